"""What goes wrong through input: told in one message, without a traceback."""


class UserError(ValueError):
    """The user can mend this; the message names the file or value and what to do.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code = 2
