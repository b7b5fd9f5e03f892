"""Ctrl-C, SIGTERM (`ray job stop`) and SIGHUP (a closed terminal): all end a command at once, keeping its files."""

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.job.interpreter import INTERRUPTED_EXIT_CODE
from pipelines.run.lock import taken_over

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# A second signal does nothing for so long: ending the processes of a cluster takes a few seconds.
END_SECONDS = 10.0
# After so long, an interrupt that was lost is raised again.
AGAIN_SECONDS = 0.1
MESSAGE = "interrupted; run the same command again to resume"


def interrupt_on_signals() -> None:
    """Let Ctrl-C, SIGTERM, which stops jobs, and SIGHUP, of a terminal that is closed, end a command once.

    Later signals do not disturb its end for ``END_SECONDS``. What is ignored, as SIGHUP under nohup and Ctrl-C in the
    background, stays ignored. Ray sets its own handler of SIGTERM when it connects.
    """

    def interrupt(number: int, _frame: object) -> None:
        # Shutdown has begun; a second signal would abort it and leave processes.
        ending = _Ending(time.monotonic() + END_SECONDS)
        for other in SIGNALS:
            if signal.getsignal(other) is not signal.SIG_IGN:
                signal.signal(other, ending)
        # At once: a stopped job is killed after three seconds, and disconnecting from its cluster may take that long.
        _print_message()
        _leave_lost_outputs(is_closing=number == signal.SIGHUP)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
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


@dataclass(frozen=True)
class _Ending:
    """Handler of further signals: it does nothing before a deadline, and after it interrupts what has not ended."""

    deadline: float

    def __call__(self, _signal: int, _frame: object) -> None:
        if time.monotonic() > self.deadline:
            raise KeyboardInterrupt


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
    if not is_interrupted():
        _print_message()


def is_interrupted() -> bool:
    """Return whether a signal has interrupted this command, which is about to end."""
    # Read off the handler, since Ray turns exceptions in its calls into a KeyboardInterrupt without a message.
    return isinstance(signal.getsignal(signal.SIGTERM), _Ending)


def interruption_exit_code() -> int:
    """Return the exit code of a command that is interrupted.

    A job whose run another one has taken over must not be submitted again, as one whose machine is shut down is.
    """
    return UserError.exit_code if taken_over.is_set() else INTERRUPTED_EXIT_CODE


def _print_message() -> None:
    """Print the message past Python's buffer: a signal may arrive while the buffer is written.

    A job whose run another one has taken over has said so, and is not to be run again.
    """
    if taken_over.is_set():
        return
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # not a file
        print(f"\n{MESSAGE}", file=sys.stderr, flush=True)
        return
    with suppress(OSError):  # a terminal or a reader that is gone
        os.write(descriptor, f"\n{MESSAGE}\n".encode())


def _leave_lost_outputs(*, is_closing: bool) -> None:
    """Discard what is written to a terminal that is gone, or about to go, and to a pipe without a reader.

    The errors would hide the interruption. Ctrl-C ends the reader of a pipe, such as tee, too.
    """
    outputs = {1, 2}
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # not a file
            outputs.add(stream.fileno())
    # While standard error goes to a file, the terminal is kept under another descriptor.
    all_open = {int(path.name) for path in Path("/dev/fd").iterdir()}
    for descriptor in (outputs | all_open) - {0}:
        try:
            os.get_terminal_size(descriptor)
            is_lost = is_closing
        except OSError as error:
            is_lost = error.errno == errno.EIO or (descriptor in outputs and not has_reader(descriptor))
        if is_lost:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def has_reader(descriptor: int) -> bool:
    """Return whether an output still has a reader; `head` and pagers exit once they have seen enough."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))
