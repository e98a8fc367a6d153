"""`nnUNetv2_mip_rehearse`: rehearsal of DM i AI against a running service."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.wording import counted

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
        "-i",
        "--data",
        required=True,
        metavar="DIR",
        help="patients/{imgs,labels} as the competition hands them out, imgs and labels, or PNGs",
    )
    parser.add_argument(
        "--limit", type=float, default=10.0, metavar="SECONDS", help="a request may take"
    )
    parser.add_argument("--min_dice", type=float, metavar="D", help="fail below this mean Dice")
    parser.add_argument("-n", type=int, metavar="N", help="only the first N images")
    parser.add_argument("-o", metavar="FILE", help="write outcomes and summary as JSON")
    return parser


def run(args: argparse.Namespace) -> int:
    from nnunetv2_mip.commands.serve import require_extra

    require_extra("httpx")
    from nnunetv2_mip.dmiai.platform_client import require_url
    from nnunetv2_mip.dmiai.rehearsal import find_cases, summary
    from nnunetv2_mip.files import check_output

    require_url(args.url, "--url")
    if args.n is not None and args.n < 1:
        raise MipError(f"-n {args.n}: give a number of at least 1")
    if not args.limit > 0:
        raise MipError(f"--limit {args.limit}: give seconds above 0")
    if args.o:
        check_output(args.o)
    outcomes = _outcomes(args.url, find_cases(args.data)[: args.n], args.limit)
    found = summary(outcomes)
    if args.o:
        _write(Path(args.o), found, outcomes)
    return _print_summary(found, args.min_dice)


def _outcomes(url: str, cases: list, limit_s: float) -> list:
    """Outcome of each case, with a progress bar and a line on stderr for each failure."""
    from tqdm import tqdm

    from nnunetv2_mip.dmiai.rehearsal import rehearse

    outcomes = []
    for outcome in tqdm(
        rehearse(url, cases, limit_s), total=len(cases), unit="image", disable=None
    ):
        outcomes.append(outcome)
        if outcome.failure:
            tqdm.write(f"failed: {outcome.name}: {outcome.failure}", file=sys.stderr)
    return outcomes


def _write(path: Path, found: dict, outcomes: list) -> None:
    from dataclasses import asdict

    from nnunetv2_mip.files import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"summary": found, "outcomes": [asdict(outcome) for outcome in outcomes]})


def _print_summary(found: dict, min_dice: float | None) -> int:
    """Print the summary; returns the exit code."""
    dice = found["mean_dice"]
    print(f"requests   {found['requests']}, {found['failures']} failed", end="")
    print(f", {found['degraded']} degraded for time" if found["degraded"] else "")
    if dice is not None:
        print(
            f"mean Dice  {dice:.4f} over {counted(found['scored'], 'image')} (a failed one "
            "counts 0)"
        )
    print(
        f"seconds    p50 {found['p50_s']:.2f}  p95 {found['p95_s']:.2f}  max {found['max_s']:.2f}"
    )
    low = min_dice is not None and (dice is None or dice < min_dice)
    passed = not found["failures"] and not low
    print("PASS" if passed else f"FAIL{f': mean Dice below {min_dice:g}' if low else ''}")
    return 0 if passed else EXIT_FAILED


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
