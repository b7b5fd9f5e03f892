"""Command lines from dataclasses: every field an option, unknown ones refused, errors in one message."""

import os
import select
import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from pipelines.errors import UserError
from pipelines.job.interruption import INTERRUPTED_EXIT_CODE, interrupt_on_sigterm, tell_interruption
from pipelines.run.storage_failures import storage_failure

T = TypeVar("T")

STORAGE_EXIT_CODE = 1
# Of a program that SIGPIPE has ended, as shells tell it.
NO_READER_EXIT_CODE = 141


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
