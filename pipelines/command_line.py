"""Command lines from dataclasses: every field an option, unknown ones refused, errors in one message."""

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

from pipelines import embedded_dataset
from pipelines.errors import UserError
from pipelines.storage import Storage

T = TypeVar("T")

USAGE_EXIT_CODE = 2


def parse(arguments: type[T], default: T | None = None) -> T:
    """An instance of the dataclass ``arguments`` from the command line; field docstrings are the help.

    ``default`` holds the defaults of the options, where the class's own do not serve.
    """
    config = (tyro.conf.HelptextFromCommentsOff,)
    return (
        tyro.cli(arguments, config=config) if default is None else tyro.cli(arguments, default=default, config=config)
    )


def absolute_data(data: str) -> str:
    """``data`` as it is kept in a recipe: the same whatever folder a command is given in."""
    return data if data in ("", embedded_dataset.NAME) else Storage.at(data).root


def run_command(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its code; a :class:`UserError` is printed without a traceback."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_EXIT_CODE)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
