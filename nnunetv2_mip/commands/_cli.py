"""Frame of all commands: argument parser, the --debug option, error lines, exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help formatter that shows defaults, except `None` and switches that are off."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.required:
            return action.help
        return super()._get_help_string(action)


class _OneLineParser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, without the usage."""

    def error(self, message: str):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message} (--help shows all options)\n")


def new_parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Argument parser with one-line errors, defaults in its help, `--debug` and `--version`."""
    parser = _OneLineParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"nnunetv2-mip {__version__}")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> None:
    """Parse the arguments, run the command, and exit with its code.

    The code is 0 for success (or the one that `run` returns), 2 for input that cannot be processed
    (one line on stderr), 130 for Ctrl-C. Any other exception is a defect of the package and keeps
    its traceback.
    """
    args = parser.parse_args(argv)
    try:
        code = run(args) or 0
    except MipError as error:
        if args.debug:
            raise
        print(f"{parser.prog}: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except OSError as error:
        # The disk is full or read-only, or a file lies in the place of a folder.
        if args.debug or error.filename is None or error.strerror is None:
            raise
        reason = f"{error.filename}: cannot be read or written ({error.strerror})"
        print(f"{parser.prog}: error: {reason}; choose another or make room", file=sys.stderr)
        code = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        if args.debug:
            raise
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        code = EXIT_INTERRUPTED
    raise SystemExit(code)
