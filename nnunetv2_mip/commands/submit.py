"""`nnUNetv2_mip_submit`: queue a validation or the evaluation on the competition's platform."""

import argparse
import os
import sys
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.errors import MipError

EXIT_FAILED = 1
CONFIRMATION = "evaluate"
# 200 images took about 6 minutes, and others may wait before us.
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
    from nnunetv2_mip.dmiai.platform_client import (
        SERVICE_VARIABLE,
        Account,
        Platform,
        require_url,
        status_option,
    )

    if not args.timeout > 0:
        raise MipError(f"--timeout {args.timeout}: give seconds above 0")
    if (args.action == "status") != (args.uuid is not None):
        raise MipError("give the UUID of the attempt after status, and only there")
    account = Account.from_environment(os.environ, args.platform)
    platform = Platform(account)
    if args.action == "status":
        kind = "evaluate" if args.evaluation else "validate"
        found = platform.status(kind, args.uuid)
        if not args.wait:
            return _end(found)
    else:
        kind = args.action
        url = args.url or os.environ.get(SERVICE_VARIABLE)
        if not url:
            raise MipError(f"{SERVICE_VARIABLE}: is not set; export it, or give --url")
        require_url(url, "--url")
        if kind == "evaluate" and not args.yes:
            _confirm(url)
        found = platform.submit(kind, url)
        place = "" if found.position is None else f", position {found.position} in the queue"
        print(f"{found.uuid}: queued{place}")
        if not args.wait:
            print(f"next: nnUNetv2_mip_submit status {found.uuid}{status_option(kind)} --wait")
            return 0
    return _end(platform.wait(kind, found.uuid, args.timeout, _teller()))


def _confirm(url: str) -> None:
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


def _teller():
    last = None

    def tell(status) -> None:
        nonlocal last
        shown = (status.state, status.position)
        if shown != last:
            place = f" (position {status.position})" if status.position else ""
            print(f"{status.uuid}: {status.state}{place}", file=sys.stderr)
        last = shown

    return tell


def _end(status) -> int:
    for error in status.errors:
        print(f"error of the platform: {error}", file=sys.stderr)
    if status.state == "done" and status.score is not None:
        print(f"{status.uuid}: done, score {status.score:.4f}")
        return 0
    print(f"{status.uuid}: {status.state}")
    return EXIT_FAILED if status.ended else 0


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
