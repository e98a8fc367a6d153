"""What all commands share: the --debug option, error lines, exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class _DefaultsWhereTheyTell(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default only where there is one to show (not `None`, not a switch that is off)."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False or action.required:
            return action.help
        return super()._get_help_string(action)


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, without the twenty of its usage."""

    def error(self, message: str):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message} (--help shows all options)\n")


def new_parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """An argument parser in the house style, with `--debug` and `--version`."""
    parser = _OneLineParser(
        prog=prog,
        description=description,
        epilog=epilog,
        formatter_class=_DefaultsWhereTheyTell,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"nnunetv2-mip {__version__}")
    return parser


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> None:
    """Parse, run, and leave with the command's exit code.

    0 is success (or what `run` returns), 2 is input that cannot be served (one line on stderr),
    130 is Ctrl-C. Anything else is a defect of ours and keeps its traceback.
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
        # The disk says no: full, read-only, a file where a folder must be.
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
