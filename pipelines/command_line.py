"""Command lines from dataclasses: every field an option, unknown ones refused, errors in one message."""

import errno
import os
import re
import select
import sys
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import tyro

from googlenet.records import RecordsError
from pipelines.errors import UserError
from pipelines.interruption import INTERRUPTED_EXIT_CODE, interrupt_on_sigterm, tell_interruption
from pipelines.object_store import store_failure

T = TypeVar("T")
WRAPPED = re.compile(r"^(?:\w+\.)*(\w+Error): ((?:\[Errno (\d+)\])?.*)$", re.MULTILINE)

STORAGE_EXIT_CODE = 1
# Of a program that SIGPIPE has ended, as shells tell it.
NO_READER_EXIT_CODE = 141
# What a disk or a server answers when it cannot; anything else may be a fault of this program.
STORAGE_ERRNOS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES,
    errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOTCONN, errno.ENODEV,
}  # fmt: skip


def parse(arguments: type[T], default: T | None = None) -> T:
    """An instance of the dataclass ``arguments`` from the command line; field docstrings are the help.

    ``default`` holds the defaults of the options, where the class's own do not serve.
    """
    config = (tyro.conf.HelptextFromCommentsOff,)
    return (
        tyro.cli(arguments, config=config) if default is None else tyro.cli(arguments, default=default, config=config)
    )


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its code; a :class:`UserError`, or a store that fails, is told without a traceback."""
    interrupt_on_sigterm()
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _has_reader():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
            sys.exit(NO_READER_EXIT_CODE)
        failure = storage_failure(error)
        if failure is None:
            raise
        print(f"error: {failure}\nthe same command goes on from here once that is mended", file=sys.stderr)
        sys.exit(STORAGE_EXIT_CODE)
    except KeyboardInterrupt:
        tell_interruption()
        sys.exit(INTERRUPTED_EXIT_CODE)


def _has_reader() -> bool:
    """Whether somebody still reads standard output; `head` and pagers leave when they have seen enough."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in poll.poll(0))


def storage_failure(error: BaseException) -> str | None:
    """The failure of a disk, server or shard that is behind ``error``, in one line; None if it is something else.

    Ray wraps what a worker raised, sometimes more than once.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, RecordsError) or (isinstance(current, OSError) and current.errno in STORAGE_ERRNOS):
            return (str(current).strip().splitlines() or [type(current).__name__])[-1]
        if isinstance(current, OSError | pa.ArrowException) and (answer := store_failure(str(current))):
            return answer
        current = getattr(current, "cause", None) or current.__cause__
    # What Ray Data wraps comes to the driver as text alone.
    for kind, text, number in WRAPPED.findall(str(error)):
        # Python has classes of its own for some numbers: PermissionError, TimeoutError.
        if kind in ("RecordsError", "ShardDamagedError") or (number and int(number) in STORAGE_ERRNOS):
            return str(text)
        if kind == "OSError" and (answer := store_failure(text)):
            return answer
    return None
