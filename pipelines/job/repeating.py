"""Work that is repeated beside a block, in a thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(work: Callable[[], None], every_seconds: float, name: str) -> Iterator[None]:
    """Call ``work`` again and again during the block, first after ``every_seconds``; ``name`` is that of the thread."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_seconds):
            work()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
