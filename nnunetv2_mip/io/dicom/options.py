"""Choices of the user for a DICOM study: its series, and values that its headers lack."""

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime, time
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError

# Options that replace a value of the headers.
_OVERRIDES = ("weight_kg", "dose_mbq", "injection_time")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

# Kinds of DICOM object that are written of a mask.
DICOM_OBJECTS = ("seg", "rtstruct", "sr")


@dataclass(frozen=True)
class DicomOptions:
    """What the user says of a DICOM study; None leaves it to the headers.

    Attributes:
        series: SeriesInstanceUIDs of PET series to read; a study without one of them chooses.
        weight_kg: body weight in kg, instead of Patient's Weight.
        dose_mbq: injected activity in MBq, instead of Radionuclide Total Dose.
        injection_time: start of the injection, instead of the radiopharmaceutical's start; a time
            alone is the latest one before the acquisition.
    """

    series: tuple[str, ...] = ()
    weight_kg: float | None = None
    dose_mbq: float | None = None
    injection_time: datetime | time | None = None

    def __bool__(self) -> bool:
        """Whether anything was said."""
        return bool(self.series) or self.has_overrides

    @property
    def has_overrides(self) -> bool:
        """Whether a value of the headers is replaced."""
        return any(getattr(self, name) is not None for name in _OVERRIDES)

    def to_dict(self) -> dict[str, Any]:
        """What was said, for a record (JSON)."""
        found: dict[str, Any] = {"series": list(self.series)} if self.series else {}
        for name in _OVERRIDES:
            value = getattr(self, name)
            if value is not None:
                found[name] = value if isinstance(value, (int, float)) else value.isoformat()
        return found

    def describe(self) -> str:
        """Options as they are typed, for messages."""
        words = {
            name: " ".join(value)
            if isinstance(value, list)
            else f"{value:g}"
            if isinstance(value, (int, float))
            else value
            for name, value in self.to_dict().items()
        }
        return ", ".join(f"--{name} {value}" for name, value in words.items())

    def require_dicom(self, source: Path | str) -> None:
        """Raise MipError where options were given for an input that is no DICOM.

        Args:
            source: holds no DICOM PET.
        """
        if self:
            raise MipError(
                f"{self.describe()}: is for DICOM, and {source} holds no DICOM PET series; leave "
                "it out"
            )

    def require_one_study(self, studies: int, source: Path | str) -> None:
        """Raise MipError where several studies would share a weight, a dose or an injection.

        Args:
            studies: number of studies that are read.
            source: holds them.
        """
        if studies > 1 and self.has_overrides:
            raise MipError(
                f"{replace(self, series=()).describe()}: belongs to one study, and {source} holds "
                f"{studies} DICOM studies; give the folder of one"
            )


# Options of a study about which the user says nothing.
FROM_HEADERS = DicomOptions()


def check_options(
    series: tuple[str, ...] = (),
    weight_kg: float | None = None,
    dose_mbq: float | None = None,
    injection_time: str | None = None,
) -> DicomOptions:
    """Options of a command line or a request.

    Raises:
        MipError: a series that is no UID, a number that is not above 0, or no time.
    """
    for uid in series:
        if not _UID.fullmatch(uid):
            raise MipError(f"--series {uid}: is no SeriesInstanceUID (numbers and dots)")
    for name, value in (("weight_kg", weight_kg), ("dose_mbq", dose_mbq)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise MipError(f"--{name} {value:g}: must be a number above 0")
    moment = None if injection_time is None else parse_injection_time(injection_time)
    return DicomOptions(tuple(series), weight_kg, dose_mbq, moment)


def parse_injection_time(text: str) -> datetime | time:
    """Date and time, or time of day, of a text as ISO 8601 or as DICOM writes it.

    Examples: `10:05`, `100500`, `2025-01-31T10:05`, `20250131100500`.

    Raises:
        MipError: it is neither, or has a time zone (the scanner's clock is meant).
    """
    plain = text.strip().partition(".")[0]
    digits = re.sub(r"[-:T ]", "", plain)
    has_separators = digits != plain
    form = {4: "%H%M", 6: "%H%M%S", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    # 2025-01 and 20:25-01 are no times.
    dated = len(digits) > 6
    pattern = r"(\d{4}-\d{2}-\d{2}[T ])?\d{2}:\d{2}(:\d{2})?"
    try:
        if form is None or not digits.isdigit():
            raise ValueError
        if has_separators and not re.fullmatch(pattern, plain):
            raise ValueError
        moment = datetime.strptime(digits, form)
    except ValueError:
        raise MipError(
            f"--injection_time {text}: is no time; give HH:MM:SS of the scanner's clock, or "
            "YYYY-MM-DDTHH:MM:SS"
        ) from None
    return moment if dated else moment.time()
