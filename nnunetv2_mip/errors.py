"""Error of the package for bad input: one line for the user."""


class MipError(Exception):
    """Input that cannot be processed.

    The message is one line that names the file (or option) and the remedy. Commands print it and
    exit with code 2; library callers may catch it.
    """
