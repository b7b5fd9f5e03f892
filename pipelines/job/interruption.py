"""Ctrl-C and SIGTERM (`ray job stop`), which end a command the same way: at once, keeping the run directory."""

import signal
import sys
import threading

INTERRUPTED_EXIT_CODE = 130
MESSAGE = "interrupted; run the same command again to resume"


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM, which stops jobs, like Ctrl-C. Ray sets its own handler when it connects."""

    def interrupt(_signal: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # shutdown has begun; a second SIGTERM would abort it
        # At once: a stopped job is killed after three seconds, and disconnecting from its cluster may take that long.
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def tell_interruption() -> None:
    """Print how to resume, unless the handler of SIGTERM has already done so."""
    # Read off the handler, since Ray turns exceptions in its calls into a KeyboardInterrupt without a message.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        print(f"\n{MESSAGE}", file=sys.stderr)
