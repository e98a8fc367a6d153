"""`nnUNetv2_mip_export_model`: a trained model as a small folder, fit to be shared."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_checkpoint_option
from nnunetv2_mip.wording import counted


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_export_model",
        "Write a trained model as a folder of weights alone (half precision, no optimiser, no "
        "names of patients), which nnUNetv2_mip_predict -m and nnU-Net's own commands take.",
    )
    parser.add_argument("-m", required=True, type=Path, metavar="FOLDER", help="trained model")
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder")
    parser.add_argument("-f", nargs="+", required=True, metavar="FOLD", help="folds to take along")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="trained model that predicts single images in its place, with settings of its own",
    )
    add_checkpoint_option(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.export import export_model

    check_output(args.o)
    folder = export_model(args.m, args.o, args.f, args.chk, args.images)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {counted(len(args.f), 'fold')}, {size / 1e6:.1f} MB")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
