"""Repeated reads of files that look damaged: a storage under load may return a part of a file."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
READS = 3
PAUSE_SECONDS = 1.0


def read_again(read: Callable[[], T], damage: type[Exception]) -> T:
    """Return what ``read`` returns; while it raises ``damage``, call it again after a pause, three times in all.

    Raises:
        Exception: the last ``damage``, or any other error of ``read`` at once.
    """
    for _ in range(READS - 1):
        try:
            return read()
        except damage:
            time.sleep(PAUSE_SECONDS)
    return read()
