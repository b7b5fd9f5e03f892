"""Processes that work together: if one of them fails, the others are not left waiting for it."""

import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess


def exit_codes(processes: Sequence[BaseProcess], seconds: float = 240) -> list[int | None]:
    """Start processes; once all have ended, one has failed or the time is up, return their codes and kill the rest.

    The code of a process that still ran is None.
    """
    give_up = time.monotonic() + seconds
    try:
        for process in processes:
            process.start()
        while running := [process.sentinel for process in processes if process.exitcode is None]:
            if any(process.exitcode for process in processes) or time.monotonic() > give_up:
                break
            wait(running, timeout=1)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            if process.pid is not None:  # it has started
                process.kill()
                process.join()
