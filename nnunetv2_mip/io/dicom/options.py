"""Choices of the user for a DICOM study: its series, and values that its headers lack."""

from dataclasses import dataclass
from datetime import datetime, time

# Kinds of DICOM object that are written of a mask.
DICOM_OBJECTS = ("seg", "rtstruct", "sr")


@dataclass(frozen=True)
class DicomOptions:
    """What the user says of a DICOM study; None leaves it to the headers.

    Attributes:
        series: SeriesInstanceUID of the PET series to read.
        weight_kg: body weight in kg, instead of Patient's Weight.
        dose_mbq: injected activity in MBq, instead of Radionuclide Total Dose.
        injection_time: start of the injection, instead of the radiopharmaceutical's start; a time
            alone is the latest one before the acquisition.
    """

    series: str | None = None
    weight_kg: float | None = None
    dose_mbq: float | None = None
    injection_time: datetime | time | None = None
