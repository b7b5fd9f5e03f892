"""Errors the user can fix; shown as one message, without a traceback."""


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
