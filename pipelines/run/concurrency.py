"""Work on many files, several at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# A request to an object store takes tens of milliseconds, however small the file.
REQUESTS_AT_ONCE = 16


def concurrently(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what ``work`` returns for each item, in order; threads are a few items ahead, so that memory is bounded."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        ahead: deque[Future[R]] = deque()
        try:
            for item in items:
                ahead.append(threads.submit(work, item))
                if len(ahead) == REQUESTS_AT_ONCE:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
