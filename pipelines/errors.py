"""Errors the user can fix; shown as one message, without a traceback."""


class UserError(ValueError):
    """An error that the user can fix; the message names the file or value and says what to do.

    Attributes:
        exit_code: exit code of a command that ends with it.
    """

    exit_code = 2
