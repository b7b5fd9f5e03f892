"""Ctrl-C and `ray job stop` end a command in the same way: at once, with everything in the run directory kept."""

import signal
import sys
import threading

INTERRUPTED_EXIT_CODE = 130
MESSAGE = "interrupted; the same command goes on from here"


class Stopped(KeyboardInterrupt):
    """By SIGTERM, and told so."""


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM, by which jobs are stopped, as Ctrl-C. Ray sets a handler of its own when it connects."""

    def interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end has begun; a second one would only break it off
        # At once: a job that is stopped is killed after three seconds, which its cluster may need to let go of it.
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
        raise Stopped

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
