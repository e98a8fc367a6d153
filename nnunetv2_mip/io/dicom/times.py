"""Dates and times of a DICOM header as wall-clock time of the scanner."""

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.elements import text_or_none
from nnunetv2_mip.io.dicom.series import tag_name

if TYPE_CHECKING:
    from pydicom import Dataset

# Date used where dates were removed: then only times of day are compared.
_NO_DATE = date(1900, 1, 1)


def has_date(moment: datetime) -> bool:
    """Whether the date of a moment is real: neither absent nor replaced by 1900."""
    return moment.date() > _NO_DATE + timedelta(days=7)


def moment_of(header: "Dataset", what: str, path: Path) -> datetime | None:
    """Moment of `<what>Date` and `<what>Time`, or of `AcquisitionDateTime`; None without a time.

    Args:
        what: `Series` or `Acquisition`.

    Raises:
        MipError: no date or no time of day.
    """
    clock = text_or_none(header, f"{what}Time")
    if clock is None:
        dated = text_or_none(header, "AcquisitionDateTime") if what == "Acquisition" else None
        if dated:
            return parse_datetime(dated, header, path, tag_name("AcquisitionDateTime"))
        return None
    day = text_or_none(header, f"{what}Date")
    at = parse_time(clock, path, f"{what}Time")
    if day is None:
        return datetime.combine(_NO_DATE, at)
    digits = day.replace(".", "")  # ACR-NEMA wrote 1997.07.15.
    try:
        if len(digits) != 8 or not digits.isdigit():
            raise ValueError
        year, month, number = int(digits[:4]), int(digits[4:6]), int(digits[6:])
        return datetime.combine(date(year, month, number), at)
    except ValueError:
        raise MipError(f"{path}: {tag_name(f'{what}Date')} is no date: {day}") from None


def parse_time(text: str, path: Path, keyword: str) -> time:
    """Time of HH, HHMM, HHMMSS or HHMMSS.FFFFFF; a leap second counts as the one before.

    Raises:
        MipError: no time of day; names file and element.
    """
    whole, _, fraction = text.replace(":", "").partition(".")
    parts = [whole[i : i + 2] for i in range(0, len(whole), 2)]
    try:
        hour, minute, second = (int(part) for part in [*parts, "0", "0"][:3])
        return time(hour, minute, min(second, 59), int(f"{fraction:0<6}"[:6]))
    except ValueError:
        raise MipError(f"{path}: {tag_name(keyword)} is no time of day: {text}") from None


def parse_datetime(text: str, header: "Dataset", path: Path, name: str) -> datetime:
    """Wall-clock time of a DICOM DT in the header's time zone.

    Args:
        name: of the element, for the error line.

    Raises:
        MipError: no date and time.
    """
    from pydicom.valuerep import DT

    try:
        return wall_clock(DT(text.strip()), header)
    except (ValueError, TypeError, AttributeError):
        raise MipError(f"{path}: {name} is no date and time: {text}") from None


def wall_clock(moment: datetime, header: "Dataset") -> datetime:
    """Moment without time zone, on the clock of Timezone Offset From UTC where both have one."""
    zone = text_or_none(header, "TimezoneOffsetFromUTC")
    if moment.tzinfo is not None and zone is not None:
        moment = moment.astimezone(datetime.strptime(zone, "%z").tzinfo)
    return datetime(*moment.timetuple()[:6], moment.microsecond)
