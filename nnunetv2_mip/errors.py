"""The one error that users are meant to read."""


class MipError(Exception):
    """Input that cannot be served.

    The message is one line that names the file (or option) and the remedy. Commands print it and
    exit with code 2; library callers may catch it.
    """
