"""Error and warning of the package about input: one line for the user."""


class MipError(Exception):
    """Input that cannot be processed.

    The message is one line that names the file (or option) and the remedy. Commands print it and
    exit with code 2; library callers may catch it.
    """


class MipWarning(UserWarning):
    """Input that was processed, of which something is in doubt; commands print it."""
