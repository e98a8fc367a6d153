"""Command `nnUNetv2_mip_fuse`: fusion of masks or probabilities of views to a 3D mask."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.fusion.rules import DEFAULT_RULE, RULES
from nnunetv2_mip.wording import counted

DEFAULT_VIEWS_FILE = "seg.nii.gz"


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_fuse",
        "Fuse views to a 3D mask on the grid of the volume they came from. Either -i is the output "
        "of nnUNetv2_mip_project (with a views file in it), or, with -d, a folder written by "
        "nnUNetv2_predict for that data set (masks, or probabilities by --save_probabilities).",
    )
    parser.add_argument("-i", required=True, metavar="DIR", help="folder with the views")
    parser.add_argument(
        "-o", required=True, metavar="OUT", help="mask file to write; with -d a folder"
    )
    parser.add_argument("-d", type=int, metavar="ID", help="data set of a nnUNetv2_predict output")
    parser.add_argument(
        "--views_file",
        metavar="FILE",
        help=f"without -d: stack in -i to fuse (default: {DEFAULT_VIEWS_FILE})",
    )
    parser.add_argument(
        "--suv",
        metavar="SUV",
        help="SUV volume, or folder with a DICOM PET series: lets the fusion see what is hidden, "
        "and follow the uptake",
    )
    parser.add_argument(
        "--geometry",
        metavar="DIR",
        help="with -d: folder of the <case>_geometry.json files (else the raw data set's imagesTs "
        "and imagesTr)",
    )
    parser.add_argument(
        "--rule",
        choices=RULES,
        help=f"fusion rule (default: {DEFAULT_RULE}, the mask that explains the views best)",
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="3D probability of a lesion (not for explain)"
    )
    parser.add_argument(
        "--uptake_share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="with --suv: outline lesions at this share of the nearby peak uptake; 0 keeps regions",
    )
    add_dicom_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.fuse_files import fuse_nnunet_output, fuse_project_folder
    from nnunetv2_mip.inference.progress import shown

    check_output(args.o)
    _check_options(args)
    options = dicom_options(args)
    if not args.suv:
        options.require_dicom("without --suv the input")
    if args.d is None:
        with shown("fusing"):
            warnings = fuse_project_folder(
                args.i,
                args.o,
                args.views_file or DEFAULT_VIEWS_FILE,
                args.suv,
                args.rule,
                args.threshold,
                args.uptake_share,
                options,
            )
        for line in warnings:
            print(f"warning: {line}", file=sys.stderr)
        print(f"{args.o}: written")
        return
    rule = args.rule or DEFAULT_RULE
    written = fuse_nnunet_output(args.i, args.d, args.o, args.geometry, rule, args.threshold)
    print(f"{Path(args.o)}: {counted(len(written), 'mask')} written")


def _check_options(args: argparse.Namespace) -> None:
    """Check of options that need or exclude each other, before any file is read."""
    from nnunetv2_mip.errors import MipError

    if args.rule == "visibility" and not args.suv and args.d is None:
        raise MipError("--rule visibility needs the SUV volume: add --suv SUV.nii.gz")
    if not 0 < args.threshold <= 1:
        raise MipError(f"--threshold {args.threshold}: must lie above 0 and at most at 1")
    if args.d is not None:
        for option in ("suv", "uptake_share", "views_file"):
            if getattr(args, option):
                raise MipError(f"--{option} is for one case; with -d many are fused: leave it out")
        if args.rule == "visibility":
            raise MipError(
                "--rule visibility needs the SUV volume: without -d, by --suv SUV.nii.gz"
            )
    elif args.geometry:
        raise MipError(
            "--geometry goes with -d ID; the folder of one case has its own: leave it out"
        )
    if args.uptake_share and not args.suv:
        raise MipError("--uptake_share needs the SUV volume: add --suv SUV.nii.gz")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
