"""Ctrl-C and `ray job stop` end a command in the same way: at once, with everything in the run directory kept."""

import signal
import threading

INTERRUPTED_EXIT_CODE = 130
MESSAGE = "interrupted; the same command goes on from here"


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM, by which jobs are stopped, as Ctrl-C. Ray sets a handler of its own when it connects."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
