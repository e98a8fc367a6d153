"""Options of the commands that read DICOM: the series, and values that its headers lack."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2_mip.io.dicom.options import DicomOptions


def add_dicom_options(parser: argparse.ArgumentParser) -> None:
    """--series, --weight_kg, --dose_mbq, --injection_time."""
    group = parser.add_argument_group("DICOM (see docs/how_to/dicom.md)")
    group.add_argument(
        "--series",
        nargs="+",
        metavar="UID",
        help="SeriesInstanceUID of the PET series to read, where a study has several",
    )
    group.add_argument(
        "--weight_kg",
        type=float,
        metavar="KG",
        help="body weight, instead of the header's (of one study)",
    )
    group.add_argument(
        "--dose_mbq",
        type=float,
        metavar="MBQ",
        help="injected activity at the time of injection, instead of the header's",
    )
    group.add_argument(
        "--injection_time",
        metavar="TIME",
        help="HH:MM:SS, or YYYY-MM-DDTHH:MM:SS, instead of the header's (the scanner's clock)",
    )


def dicom_options(args: argparse.Namespace) -> "DicomOptions":
    """What these options say.

    Raises:
        MipError: a value that cannot be.
    """
    from nnunetv2_mip.io.dicom.options import check_options

    return check_options(
        tuple(args.series or ()), args.weight_kg, args.dose_mbq, args.injection_time
    )
