"""Errors the user can fix; shown as one message, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """An error that the user can fix; the message names the file or value and says what to do.

    Attributes:
        exit_code: exit code of a command that ends with it.
    """

    exit_code = 2


class DamagedFileError(UserError):
    """A file does not hold what was written to it."""


class TryAgainError(UserError):
    """A temporary condition: the same command succeeds once it has passed, and cluster/submit.py tries it again."""

    exit_code = 75


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question after the known word that is closest to ``word`` in any case; empty if none is close."""
    by_lower_case = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower_case, n=1)
    return f" (did you mean {by_lower_case[close[0]]}?)" if close else ""
