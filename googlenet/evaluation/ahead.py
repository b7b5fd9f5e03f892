"""Preparation of the next element by a thread, while the last one is worked on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Prepared = TypeVar("Prepared")


def prepared_ahead(prepare: Callable[[Given], Prepared], elements: Iterable[Given]) -> Iterator[Prepared]:
    """Yield ``prepare(element)`` for each element, in order; one is prepared ahead, in a thread.

    An error of ``prepare`` or ``elements`` is raised where its element would be.
    """
    remaining = iter(elements)

    def prepare_next() -> list[Prepared]:
        return [prepare(element) for element in islice(remaining, 1)]

    with ThreadPoolExecutor(1, "prepare") as thread:
        prepared = thread.submit(prepare_next).result()
        while prepared:
            following = thread.submit(prepare_next)
            yield from prepared
            prepared = following.result()
