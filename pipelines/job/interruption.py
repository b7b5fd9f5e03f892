"""Ctrl-C, SIGTERM (`ray job stop`) and SIGHUP (a closed terminal): all end a command at once, keeping its files."""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

INTERRUPTED_EXIT_CODE = 130
# A repeated Ctrl-C does nothing for so long: ending the processes of a cluster takes a few seconds.
END_SECONDS = 10.0
# After so long, an interrupt that was lost is raised again.
AGAIN_SECONDS = 0.1
MESSAGE = "interrupted; run the same command again to resume"


def interrupt_on_signals() -> None:
    """Treat SIGTERM, which stops jobs, and SIGHUP, of a terminal that is closed, like Ctrl-C.

    What is ignored, as SIGHUP under nohup and Ctrl-C in the background, stays ignored. Ray sets its own handler of
    SIGTERM when it connects.
    """

    def interrupt(_signal: int, _frame: object) -> None:
        # Shutdown has begun; a second signal would abort it and leave processes.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, _patiently(time.monotonic() + END_SECONDS))
        _leave_closed_terminal()
        # At once: a stopped job is killed after three seconds, and disconnecting from its cluster may take that long.
        _print_message()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
        for number in (signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        _raise_lost_interrupts()


def _raise_lost_interrupts() -> None:
    """Raise an interrupt again that Python discards since it came in a destructor: Ray Data shuts down in one."""
    before = sys.unraisablehook

    def raise_again(lost: "sys.UnraisableHookArgs") -> None:
        if lost.exc_type is KeyboardInterrupt and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            before(lost)

    sys.unraisablehook = raise_again


def _patiently(deadline: float) -> Callable[[int, object], None]:
    """Return a handler that does nothing before ``deadline``, and after it interrupts what has not ended."""

    def interrupt(_signal: int, _frame: object) -> None:
        if time.monotonic() > deadline:
            raise KeyboardInterrupt

    return interrupt


@contextmanager
def processes_ignore_closed_terminal() -> Iterator[None]:
    """Block SIGHUP in processes that are started in the block: their parent ends them. It waits for the block's end.

    Ray does the same with Ctrl-C.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tell_interruption() -> None:
    """Print how to resume, unless the handler of the signals has already done so."""
    # Read off the handler, since Ray turns exceptions in its calls into a KeyboardInterrupt without a message.
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        _print_message()


def _print_message() -> None:
    """Print the message past Python's buffer: a signal may arrive while the buffer is written."""
    try:
        os.write(sys.stderr.fileno(), f"\n{MESSAGE}\n".encode())
    except (OSError, ValueError):  # not a file
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)


def _leave_closed_terminal() -> None:
    """Discard what is written to a terminal that is gone: the errors would hide the interruption."""
    descriptors = {1, 2}
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # not a file
            descriptors.add(stream.fileno())
    for descriptor in descriptors:
        try:
            os.get_terminal_size(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
