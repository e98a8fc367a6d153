"""`nnUNetv2_mip_convert_dmiai`: DM-i-AI MIP-PET PNGs to a nnU-Net data set."""

import argparse
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._options import add_new_dataset_options, add_worker_options


def _controls(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_convert_dmiai",
        "Turn DM-i-AI MIP-PET PNGs (patients/imgs, patients/labels, controls/imgs; any PNG mode) "
        "into a nnU-Net data set. Controls become cases without lesions.",
    )
    parser.add_argument("-i", required=True, metavar="DATA", help="folder with patients, controls")
    add_new_dataset_options(parser, "DMIAI")
    parser.add_argument(
        "--controls", type=_controls, default="all", metavar="N|all", help="how many controls"
    )
    add_worker_options(parser)
    parser.add_argument(
        "--skip_broken", action="store_true", help="leave out images that cannot be converted"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands._summary import print_conversion
    from nnunetv2_mip.dataset_conversion.dmiai import DEFAULT_NAME, convert_dmiai

    name = args.name or DEFAULT_NAME
    print_conversion(
        convert_dmiai(args.i, args.d, name, args.controls, args.np, args.skip_broken, args.dask),
        args.d,
    )


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
