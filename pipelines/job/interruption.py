"""Ctrl-C and `ray job stop` end a command in the same way: at once, with everything in the run directory kept."""

import signal
import sys
import threading

INTERRUPTED_EXIT_CODE = 130
MESSAGE = "interrupted; the same command goes on from here"


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM, by which jobs are stopped, as Ctrl-C. Ray sets a handler of its own when it connects."""

    def interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end has begun; a second one would only break it off
        # At once: a job that is stopped is killed after three seconds, which its cluster may need to let go of it.
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def tell_interruption() -> None:
    """Say what to do now, unless the handler of SIGTERM has said it."""
    # Asked of the handler: Ray turns what is raised in its own calls into a KeyboardInterrupt without a message.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        print(f"\n{MESSAGE}", file=sys.stderr)
