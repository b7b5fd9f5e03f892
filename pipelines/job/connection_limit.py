"""Limit on the time that connecting or starting takes: Ray waits in C++, where Python cannot stop it."""

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.job.console import complain
from pipelines.job.interruption import interruption_exit_code, tell_interruption

# A stopped job is killed after three seconds.
GRACE_SECONDS = 2.0
DONE = b"\0"


@contextmanager
def limited_to(
    seconds: float, refusal: str, exit_code: int, clean_up: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """End the process if the block takes longer than ``seconds``, with ``refusal`` on standard error.

    Ctrl-C and SIGTERM raise an exception in the block as usual; if it is deaf to that, they end the process after
    ``GRACE_SECONDS``. Before the process ends there, only ``clean_up`` runs, in another thread.
    """
    news, wake = os.pipe()
    os.set_blocking(wake, False)
    watch = threading.Thread(target=_watch, args=(news, seconds, refusal, exit_code, clean_up), daemon=True)
    in_main = threading.current_thread() is threading.main_thread()
    # Python writes the number of a signal there as soon as it arrives, also while the main thread is in C++.
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False) if in_main else -1
    watch.start()
    try:
        yield
    finally:
        if in_main:
            signal.set_wakeup_fd(before)
        os.write(wake, DONE)
        watch.join()
        os.close(news)
        os.close(wake)


def _watch(news: int, seconds: float, refusal: str, exit_code: int, clean_up: Callable[[], None]) -> None:
    first = _next(news, seconds)
    if first == DONE:
        return
    if not first:
        complain(f"error: {refusal}")
        _end(exit_code, clean_up)
    if _next(news, GRACE_SECONDS) == DONE:
        return
    tell_interruption()
    _end(interruption_exit_code(), clean_up)


def _end(exit_code: int, clean_up: Callable[[], None]) -> None:
    try:
        clean_up()
    finally:
        os._exit(exit_code)


def _next(news: int, seconds: float) -> bytes:
    """Return what was written next; empty if nothing is written within ``seconds``."""
    ready, _, _ = select.select([news], [], [], seconds)
    return os.read(news, 1) if ready else b""
