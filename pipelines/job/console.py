"""Terminal output for people: lines, durations, sizes, numbers, names."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from decimal import Decimal
from typing import TextIO

# Commands in a line, to its end. People copy them, and a terminal copies a broken one as two.
COMMANDS = re.compile(
    r"(?:\bpython (?:'[^']*|\S*)pipelines/|MLFLOW_TRACKING_URI=|base64 < |\bpip install |\bgit config "
    r"|\bray job stop ).*"
)
# In place of the spaces of a command while its line is broken; no text for a terminal has it.
UNBROKEN_SPACE = "\0"


def say(text: str, *, wrap: bool = True) -> None:
    """Print lines on standard output without buffering; on a terminal, long ones break between words.

    Commands stay whole. ``wrap`` is False for what people copy besides, such as JSON, and for tables.
    """
    shown = _fitted(text, sys.stdout) if wrap else text
    try:
        print(shown, flush=True)
    except OSError as error:  # a full disk, or no reader
        raise OSError(error.errno, error.strerror, "standard output") from error


def complain(text: str) -> None:
    """Print lines on standard error; on a terminal, long ones break between words."""
    print(_fitted(text, sys.stderr), file=sys.stderr, flush=True)


def terminal_columns(most: int) -> int:
    """Return the width of the terminal, at most ``most``; ``most`` if standard output goes elsewhere."""
    return min(most, shutil.get_terminal_size().columns) if sys.stdout.isatty() else most


def _fitted(text: str, stream: TextIO) -> str:
    if not stream.isatty():
        return text
    return fitted(text, shutil.get_terminal_size().columns)


def fitted(text: str, columns: int, hanging: str = "  ") -> str:
    """Return ``text`` with the lines that are longer than ``columns`` broken between words.

    A word that is longer, such as a path, stays whole, and so does a command, with what follows it in its line. What
    follows a break is indented by ``hanging`` more.
    """
    return "\n".join(line if len(line) <= columns else _broken(line, columns, hanging) for line in text.split("\n"))


def _broken(line: str, columns: int, hanging: str) -> str:
    indent = line[: len(line) - len(line.lstrip())] + hanging
    words = textwrap.TextWrapper(columns, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    words.subsequent_indent = indent
    whole = COMMANDS.sub(lambda command: command[0].replace(" ", UNBROKEN_SPACE), line)
    return words.fill(whole).replace(UNBROKEN_SPACE, " ")


def duration(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds: 3:07:21, 7:21."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def size(num_bytes: float) -> str:
    """Format a number of bytes: 12 bytes, 3.2 KB, 3.2 MB, 4.48 GB."""
    if num_bytes < 1e3:
        return count(round(num_bytes), "byte")
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.1f} KB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.2f} GB"


def count(number: int, thing: str, things: str = "") -> str:
    """Format a number of things: 1 class, 1,000 classes. ``things`` is the plural, by default with an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def two_digits(number: float) -> str:
    """Return a small number with two digits, and never with an exponent: 0.000085."""
    return f"{Decimal(f'{number:.2g}'):f}"


def some(names: Sequence[str], most: int = 10) -> str:
    """Format the first ``most`` names: a, b, c and 7 more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
