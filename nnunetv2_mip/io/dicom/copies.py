"""Copies of one slice in a folder: equal in everything that SUV depends on, or a contradiction."""

import filecmp
from pathlib import Path

from nnunetv2_mip.io.dicom.read_header import read_file
from nnunetv2_mip.io.dicom.series import tag_name

_COMPARED = (
    "PatientWeight",
    "PatientSize",
    "PatientSex",
    "Units",
    "SUVType",
    "DecayCorrection",
    "RescaleSlope",
    "RescaleIntercept",
    "SeriesDate",
    "SeriesTime",
    "AcquisitionDate",
    "AcquisitionTime",
    "RadiopharmaceuticalInformationSequence",
    "PixelData",
)


def contradiction_of_copies(first: Path, second: Path) -> str:
    """Difference between two files of one slice, as an error line; empty where there is none.

    Copies without the patient's name, say, are equal in all that counts.

    Raises:
        MipError: one of the files cannot be read.
    """
    if first == second or filecmp.cmp(first, second, shallow=False):
        return ""
    one, other = read_file(first), read_file(second)
    for keyword in _COMPARED:
        if one.get(keyword) != other.get(keyword):
            return (
                f"{second}: is the same slice as {first} (SOP Instance UID), with another "
                f"{tag_name(keyword)}; remove one of the two copies of the series"
            )
    return ""
