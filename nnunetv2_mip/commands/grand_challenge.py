"""`nnUNetv2_mip_grand_challenge`: mask of the one study of an autoPET challenge run."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_device_option

MODEL_FOLDER = "/opt/ml/model"


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_grand_challenge",
        "Segment the one study of a grand-challenge run (autoPET I to IV). Once its PET has been "
        "read a mask is always written, in time.",
    )
    parser.add_argument(
        "-i",
        "--input",
        default="/input",
        metavar="DIR",
        help="holds images/pet/*.mha (SUV), images/ct/*.mha and, in edition 4, lesion-clicks.json",
    )
    parser.add_argument(
        "-o", "--output", default="/output", metavar="DIR", help="folder to write to"
    )
    parser.add_argument(
        "-m",
        "--model",
        metavar="DIR",
        help=f"model folder (default: {MODEL_FOLDER} where it has one, else the one that comes "
        "along)",
    )
    parser.add_argument(
        "--edition",
        default="auto",
        choices=("auto", "1", "2", "3", "4"),
        help="of autoPET; auto: 4 where there are clicks, else 3, whose answer 1 and 2 take too",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=240.0,
        metavar="S",
        help="seconds for the whole run: rather than be late it takes fewer views or no TTA",
    )
    add_device_option(parser)
    parser.add_argument(
        "--data_centric", action="store_true", help="edition 3: the model is the baseline's"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="to test an image or a model: fail where a run would answer by the clicks alone",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    started = time.monotonic()
    from nnunetv2_mip.errors import MipError
    from nnunetv2_mip.grand_challenge.sandbox import prepare_environment

    if not args.budget > 0:
        raise MipError(f"--budget {args.budget:g}: must be above 0")
    prepare_environment()
    from nnunetv2_mip.grand_challenge.layout import find_study
    from nnunetv2_mip.grand_challenge.run import RunOptions, run_study

    study = find_study(args.input, args.edition)
    options = RunOptions(
        model_folder(args.model),
        args.device,
        args.budget,
        started,
        args.data_centric,
        args.strict,
    )
    path = run_study(study, Path(args.output), options, say, warn)
    seconds = time.monotonic() - started
    say(f"{path}: written after {seconds:.1f} s (edition {study.edition.number})")


def model_folder(named: str | None, mounted: str = MODEL_FOLDER) -> Path:
    """Folder of the model: that of -m, else the mounted one, else the bundled one."""
    from nnunetv2_mip.nnunet.model_folder import bundled_model

    if named is not None:
        return Path(named)
    if Path(mounted).is_dir() and any(Path(mounted).iterdir()):
        return Path(mounted)
    return bundled_model()


def say(line: str) -> None:
    # The platform reads the log while the run goes on.
    print(line, flush=True)


def warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
