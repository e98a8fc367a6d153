"""`nnUNetv2_mip_convert_stage2`: studies to volumes with the cue of a 2D model."""

import argparse
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import (
    add_device_option,
    add_new_dataset_options,
    add_patient_options,
    add_worker_options,
    patient_options,
)


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_convert_stage2",
        "Turn autoPET studies into the volumetric data set of a second stage: SUV, CT if wanted, "
        "and as cue what a 2D model says of every voxel. Each cue comes from the fold that has not "
        "seen the patient, and the splits are those of the 2D model. A stopped conversion is "
        "finished by running it again.",
    )
    parser.add_argument(
        "-i", required=True, metavar="TREE", help="the studies that the 2D data set was made of"
    )
    add_new_dataset_options(parser, "AutoPETStage2")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--cue_from", metavar="MODEL_2D", help="model folder of the 2D model, every fold trained"
    )
    source.add_argument(
        "--no_cue", action="store_true", help="without a cue: 3D alone, to compare with"
    )
    parser.add_argument("--with_ct", "--ct", action="store_true", help="the CT is a channel too")
    add_device_option(parser)
    add_patient_options(parser)
    add_worker_options(parser)
    add_dicom_options(parser)
    parser.add_argument(
        "--skip_broken", action="store_true", help="leave out studies that cannot be converted"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands._summary import print_conversion
    from nnunetv2_mip.dataset_conversion.stage2 import DEFAULT_NAME, convert_stage2

    result = convert_stage2(
        args.i,
        args.d,
        args.cue_from,
        args.name or DEFAULT_NAME,
        args.with_ct,
        args.device,
        args.np,
        args.skip_broken,
        args.dask,
        patient_options(args),
        dicom_options(args),
    )
    print_conversion(result, args.d)


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
