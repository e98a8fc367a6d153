"""Frame of all commands: argument parser, the --debug option, error lines, exit codes."""

import argparse
import copy
import os
import re
import select
import sys
from collections.abc import Callable, Sequence

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
# As a shell reports a program that SIGPIPE has ended.
EXIT_READER_LEFT = 141


# The name of a long option on the command line, before a value that "=" joins to it.
_LONG_NAME = re.compile(r"^--[A-Za-z0-9][A-Za-z0-9_-]*(?==|$)")


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help formatter that shows defaults, except `None` and those of switches.

    Of an option with several names it shows the first. The others are earlier names, which are
    still accepted.
    """

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.dest != "help":
            action = copy.copy(action)
            action.option_strings = action.option_strings[:1]
        return super()._format_action_invocation(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.required or action.nargs == 0:
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """Argument parser with one-line errors, in which `--long-name` is also `--long_name`.

    Options are spelled as nnU-Net does. Earlier versions had hyphens in some of them.
    """

    def __init__(self, **settings):
        super().__init__(**{"formatter_class": _HelpFormatter, **settings})

    def parse_known_args(self, args=None, namespace=None):
        args = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(with_underscores(args), namespace)

    def error(self, message: str):
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: error: {message} (--help shows all options)\n")


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """Arguments in which the names of long options have underscores instead of hyphens.

    Values stay as they are, also those that follow "=" or "--".
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    named = [
        _LONG_NAME.sub(lambda name: "--" + name[0][2:].replace("-", "_"), part)
        for part in arguments[:end]
    ]
    return [*named, *arguments[end:]]


def new_parser(prog: str, description: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """Argument parser with one-line errors, defaults in its help, `--debug` and `--version`."""
    parser = CommandParser(prog=prog, description=description, epilog=epilog)
    add_debug_option(parser)
    parser.add_argument("--version", action="version", version=f"nnunetv2-mip {__version__}")
    return parser


def add_debug_option(parser: argparse.ArgumentParser, default=False) -> None:
    """--debug. A part of a command (`classify predict`) needs `argparse.SUPPRESS` as default."""
    help_line = "show the traceback of an error"
    parser.add_argument("--debug", action="store_true", default=default, help=help_line)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None,
) -> None:
    """Parse the arguments, run the command, and exit with its code.

    The code is 0 for success (or the one that `run` returns), 2 for input that cannot be processed
    (one line on stderr), 130 for Ctrl-C, 141 where the reader of the output has left (`| head`).
    Any other exception is a defect of the package and keeps its traceback.
    """
    args = parser.parse_args(argv)
    try:
        code = run(args) or 0
        # Here, so that a reader who has left is noticed before Python's own exit.
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        code = EXIT_READER_LEFT
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


def _reader_has_left() -> bool:
    """Whether stdout is a pipe that is no longer read; what is still to be printed is dropped.

    Asked of the pipe itself, because a broken pipe to a worker process raises the same error.
    """
    if not hasattr(select, "poll"):
        return False
    question = select.poll()
    question.register(sys.stdout.fileno(), 0)
    left = any(event & select.POLLERR for _, event in question.poll(0))
    if left:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return left
