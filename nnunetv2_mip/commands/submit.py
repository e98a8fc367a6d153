"""`nnUNetv2_mip_submit`: validation and evaluation on the DM i AI platform."""

import argparse
import os
import sys
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.errors import MipError

EXIT_FAILED = 1
CONFIRMATION = "evaluate"
# 200 images took about 6 minutes, and other attempts may be ahead in the queue.
DEFAULT_WAIT_S = 1800.0


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_submit",
        "The competition's platform: queue a validation, ask how it stands, queue the one "
        "evaluation. Exit code 0: queued, or done with a score; 1: the attempt failed.",
        "Environment: EVAL_API_TOKEN, EVAL_API_URL (the platform's address), "
        "TUMOR_SEGMENTATION_SERVICE_URL (of your service's /predict).",
    )
    parser.add_argument("action", choices=("validate", "status", "evaluate"))
    parser.add_argument("uuid", nargs="?", help="of the attempt (status)")
    parser.add_argument("--url", help="of your service's /predict, as the platform reaches it")
    parser.add_argument("--platform", metavar="URL", help="the platform's address")
    parser.add_argument("--wait", action="store_true", help="until the attempt has ended")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="wait at most (200 images took about 6 minutes)",
    )
    parser.add_argument(
        "--evaluation", action="store_true", help="status: the attempt is an evaluation"
    )
    parser.add_argument("--yes", action="store_true", help="evaluate: do not ask")
    return parser


def run(args: argparse.Namespace) -> int:
    from nnunetv2_mip.commands.serve import require_extra

    require_extra("httpx")
    from nnunetv2_mip.dmiai.platform_client import Account, PlatformClient, status_option

    if not args.timeout > 0:
        raise MipError(f"--timeout {args.timeout}: give seconds above 0")
    if (args.action == "status") != (args.uuid is not None):
        raise MipError("give the UUID of the attempt after status, and only there")
    platform = PlatformClient(Account.from_environment(os.environ, args.platform))
    if args.action == "status":
        kind, uuid = ("evaluate" if args.evaluation else "validate"), args.uuid
        if not args.wait:
            return _print_result(platform.status(kind, uuid))
    else:
        kind, uuid = args.action, _submit(args, platform)
        if not args.wait:
            print(f"next: nnUNetv2_mip_submit status {uuid}{status_option(kind)} --wait")
            return 0
    return _print_result(platform.wait(kind, uuid, args.timeout, _StatusPrinter().show))


def _submit(args: argparse.Namespace, platform) -> str:
    """Queue an attempt; returns its UUID."""
    from nnunetv2_mip.dmiai.platform_client import SERVICE_VARIABLE, require_url

    url = args.url or os.environ.get(SERVICE_VARIABLE)
    if not url:
        raise MipError(f"{SERVICE_VARIABLE}: is not set; export it, or give --url")
    require_url(url, "--url")
    if args.action == "evaluate" and not args.yes:
        _confirm(url)
    found = platform.submit(args.action, url)
    place = "" if found.position is None else f", position {found.position} in the queue"
    print(f"{found.uuid}: queued{place}")
    return found.uuid


def _confirm(url: str) -> None:
    """Ask on the terminal before an evaluation.

    Raises:
        MipError: the answer is not `CONFIRMATION`.
    """
    print(
        f"The evaluation of {url} counts, and is allowed ONCE. Did a validation pass?",
        file=sys.stderr,
    )
    try:
        answer = input(f"Type  {CONFIRMATION}  to go on: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != CONFIRMATION:
        raise MipError("nothing was submitted (to confirm without being asked: --yes)")


class _StatusPrinter:
    """Printer of the changes of an attempt's status, on stderr."""

    def __init__(self):
        self._last = None

    def show(self, status) -> None:
        shown = (status.state, status.position)
        if shown != self._last:
            place = f" (position {status.position})" if status.position else ""
            print(f"{status.uuid}: {status.state}{place}", file=sys.stderr)
        self._last = shown


def _print_result(status) -> int:
    """Print the errors and the score of an attempt; returns the exit code."""
    for error in status.errors:
        print(f"error of the platform: {error}", file=sys.stderr)
    if status.state == "done" and status.score is not None:
        print(f"{status.uuid}: done, score {status.score:.4f}")
        return 0
    print(f"{status.uuid}: {status.state}")
    return EXIT_FAILED if status.ended else 0


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
