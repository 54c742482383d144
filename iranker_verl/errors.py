"""The one exception for a user's mistake: the command line prints its message as one line and exits with code 2."""


class UserError(Exception):
    """Says what is wrong (file, row, value) and what to do about it, in one line."""
