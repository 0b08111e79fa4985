"""The one exception that reaches a user."""


class UserError(Exception):
    """Something the user can put right: a file, a key, a flag, a full disk.

    The message is one line that says what is wrong, where, and what to do about it. The command
    line prints it without a traceback and exits with status 2.
    """

    exit_code = 2
