"""`nnUNetv2_mip_rehearse`: plays the competition against a running service."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.errors import MipError

EXIT_FAILED = 1


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_rehearse",
        "Send every image as the competition does, check each reply as it does, and print mean "
        "Dice, failures and times. Exit code 0: all accepted in time; 1: some not.",
    )
    parser.add_argument(
        "--url",
        default="http://127.0.0.1:9051/predict",
        help="of the service's prediction, path included",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="patients/{imgs,labels} as the competition hands them out, imgs and labels, or PNGs",
    )
    parser.add_argument(
        "--limit", type=float, default=10.0, metavar="SECONDS", help="a request may take"
    )
    parser.add_argument("--min-dice", type=float, metavar="D", help="fail below this mean Dice")
    parser.add_argument("-n", type=int, metavar="N", help="only the first N images")
    parser.add_argument("-o", metavar="FILE", help="write outcomes and summary as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from nnunetv2_mip.commands.serve import require_extra

    require_extra("httpx")
    from dataclasses import asdict

    from tqdm import tqdm

    from nnunetv2_mip.dmiai.platform_client import require_url
    from nnunetv2_mip.dmiai.rehearsal import find_pictures, rehearse, summary
    from nnunetv2_mip.files import check_output, write_json

    require_url(args.url, "--url")
    if args.n is not None and args.n < 1:
        raise MipError(f"-n {args.n}: give a number of at least 1")
    if not args.limit > 0:
        raise MipError(f"--limit {args.limit}: give seconds above 0")
    if args.o:
        check_output(args.o)
    pictures = find_pictures(args.data)[: args.n]
    outcomes = []
    for outcome in tqdm(
        rehearse(args.url, pictures, args.limit), total=len(pictures), unit="image", disable=None
    ):
        outcomes.append(outcome)
        if outcome.failure:
            tqdm.write(f"failed: {outcome.name}: {outcome.failure}", file=sys.stderr)
    found = summary(outcomes)
    if args.o:
        target = Path(args.o)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, {"summary": found, "outcomes": [asdict(o) for o in outcomes]})
    return _report(found, args.min_dice)


def _report(found: dict, min_dice: float | None) -> int:
    dice = found["mean_dice"]
    print(f"requests   {found['requests']}, {found['failures']} failed", end="")
    print(f", {found['degraded']} degraded for time" if found["degraded"] else "")
    if dice is not None:
        print(f"mean Dice  {dice:.4f} over {found['scored']} images (a failed one counts 0)")
    print(
        f"seconds    p50 {found['p50_s']:.2f}  p95 {found['p95_s']:.2f}  max {found['max_s']:.2f}"
    )
    low = min_dice is not None and (dice is None or dice < min_dice)
    passed = not found["failures"] and not low
    print("PASS" if passed else f"FAIL{f': mean Dice below {min_dice:g}' if low else ''}")
    return 0 if passed else EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
