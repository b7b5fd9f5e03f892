"""Command lines from dataclasses: one option per field, unknown options refused, errors in one message."""

import atexit
import gc
import io
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pipelines.errors import UserError
from pipelines.job.console import complain
from pipelines.job.interruption import has_reader, interrupt_on_signals, interruption_exit_code, tell_interruption
from pipelines.job.options import parse_options
from pipelines.run.storage_failures import storage_failure

T = TypeVar("T")

STORAGE_EXIT_CODE = 1
# Exit code that shells report for a program ended by SIGPIPE.
NO_READER_EXIT_CODE = 141
# Objects after which Python looks for garbage among the new ones, and such searches until it looks further. By default
# it does after some hundred: importing PyTorch, Ray and MLflow makes a million, all of which stay.
GARBAGE_THRESHOLDS = 100_000, 50, 50


def parse(arguments: type[T], first: Sequence[str] = (), **given: Any) -> T:
    """Return an instance of the dataclass ``arguments`` from the command line; see :func:`parse_options`.

    Raises:
        UserError: a word of the command line is wrong, or one is missing.
    """
    return parse_options(arguments, sys.argv[1:], first, **given)


class LeftAtWork(threading.Thread):
    """A thread that a command does not wait for, and that may be in PyTorch when the command ends."""


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its code; report a :class:`UserError` or a storage failure without a traceback."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    _open_standard_streams()
    interrupt_on_signals()
    code = _exit_code_of(main)
    gc.freeze()  # at its end, Python would search all objects once more
    if any(isinstance(thread, LeftAtWork) for thread in threading.enumerate()):
        # Python's own end would abort the process, with another exit code.
        atexit.register(os._exit, code)
    sys.exit(code)


def _exit_code_of(main: Callable[[], int | None]) -> int:
    try:
        _check_current_folder()
        _check_encoding()
        return main() or 0
    except UserError as error:
        complain(f"error: {error}")
        return error.exit_code
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not has_reader(sys.stdout.fileno()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's flush at exit
            return NO_READER_EXIT_CODE
        failure = storage_failure(error)
        if failure is None:
            raise
        complain(f"error: {failure}\nfix that and run the same command again to resume")
        return STORAGE_EXIT_CODE
    except KeyboardInterrupt:
        tell_interruption()
        return interruption_exit_code()


def _open_standard_streams() -> None:
    """Open the null device for each standard stream that is closed, as some service managers leave them.

    Otherwise the next files that are opened would get their numbers, and what libraries print would go into those.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show ends no job


def _check_current_folder() -> None:
    """Refuse a current folder that has been removed: no path could be made absolute there."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError("the current folder has been removed; change to one that exists, such as with cd ~") from error


def _check_encoding() -> None:
    """Refuse another encoding of names than UTF-8: ids of images and paths would mean something else elsewhere."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise UserError(f"the names of files are read as {encoding} here; set PYTHONUTF8=1 to read them as UTF-8")
