"""`nnUNetv2_mip_convert_autopet`: autoPET PET/CT to a nnU-Net data set of MIP views."""

import argparse
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import (
    add_new_dataset_options,
    add_patient_options,
    add_worker_options,
    patient_options,
)
from nnunetv2_mip.commands._view_options import add_view_options, view_settings


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_convert_autopet",
        "Turn autoPET studies into a nnU-Net data set of MIP views, one stack a study. Reads the "
        "TCIA tree and others (PETCT_*/<study>/SUV.nii.gz, SEG.nii.gz; or the DICOM series of the "
        "study with SEG.nii.gz, a DICOM SEG or RTSTRUCT) and the nnU-Net-style release (imagesTr, "
        "labelsTr). A stopped conversion is "
        "finished by running it again.",
    )
    parser.add_argument("-i", required=True, metavar="TREE", help="folder with the studies")
    add_new_dataset_options(parser, "AutoPETMIP")
    add_dicom_options(parser)
    add_view_options(parser)
    add_patient_options(parser)
    add_worker_options(parser)
    parser.add_argument(
        "--skip_broken", action="store_true", help="leave out studies that cannot be converted"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands._summary import print_conversion
    from nnunetv2_mip.dataset_conversion.autopet import DEFAULT_NAME, convert_autopet

    name = args.name or DEFAULT_NAME
    settings, options = view_settings(args), dicom_options(args)
    print_conversion(
        convert_autopet(
            args.i,
            args.d,
            name,
            settings,
            args.np,
            args.skip_broken,
            args.dask,
            patient_options(args),
            options,
        ),
        args.d,
    )


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
