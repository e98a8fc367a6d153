"""Time from the injection of a PET study to a moment of its scan.

The start of the injection is a date and time, a time of day, or both. A date that does not fit the
scan (it was shifted or removed) leaves the time of day, if the half-life is short enough for it.
"""

import re
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.elements import stated_text, text_or_none
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.series import tag_name
from nnunetv2_mip.io.dicom.times import has_date, parse_datetime, parse_time, wall_clock

if TYPE_CHECKING:
    from pydicom import Dataset

# No tracer is imaged after five half-lives (nine hours of fluorine-18): a time is wrong. Nuclides
# of days may be, and a time that the user gave; after ten a thousandth of the dose is left.
_MOST_HALF_LIVES, _MOST_OF_DAYS = 5, 10
# A longer delay gives a line.
_USUAL_HALF_LIVES = 3
# Tracers with a half-life of hours are imaged later than this; others while they are injected.
_LEAST_DELAY_S, _SHORT_HALF_LIFE_S = 300, 3600
# Nuclides with a longer half-life are imaged days after injection: the time of day is not enough.
_LONG_HALF_LIFE_S = 12 * 3600
_DAYS_HALF_LIFE_S = 86400
_DAY_S = 86400.0
# A header's two times of injection may differ by rounding.
_SAME_TIME_S = 60
_TIME_REMEDY = "; give the time of injection with --injection_time"


def uptake_seconds(
    tracer: "Dataset",
    header: "Dataset",
    scan: datetime,
    half_life_s: float,
    path: Path,
    options: DicomOptions,
    lines: list[str],
) -> float:
    """Seconds from the injection to `scan`; what was assumed is added to `lines`.

    Raises:
        MipError: the time of injection is absent, after the scan, or too long before it.
    """
    if options.injection_time is not None:
        return _given_uptake(header, tracer, scan, half_life_s, path, options, lines)
    clock = text_or_none(tracer, "RadiopharmaceuticalStartTime")
    dated = text_or_none(tracer, "RadiopharmaceuticalStartDateTime")
    if clock is None and dated is None:
        raise MipError(
            f"{path}: lacks {tag_name('RadiopharmaceuticalStartTime')} and "
            f"{tag_name('RadiopharmaceuticalStartDateTime')}; SUV needs the time of injection"
            + _TIME_REMEDY
        )
    at = None
    try:
        if clock is not None:
            at = parse_time(clock, path, "RadiopharmaceuticalStartTime")
    except MipError:
        if dated is None:
            raise
    if dated is not None:
        start = parse_datetime(dated, header, path, tag_name("RadiopharmaceuticalStartDateTime"))
        has_zone = re.search(r"[+-]\d{4}$", dated.strip()) is not None
        if has_zone and text_or_none(header, "TimezoneOffsetFromUTC") is None and clock is None:
            lines.append(
                f"{path}: {tag_name('RadiopharmaceuticalStartDateTime')} is {dated}, with a time "
                "zone that the times of the series lack; it is read on their clock; give it with "
                "--injection_time if that is wrong"
            )
        if at is not None:
            start = _agreed_start(start, at, dated, header, path, lines)
        span_s = (scan - start).total_seconds()
        most = _MOST_OF_DAYS if half_life_s > _LONG_HALF_LIFE_S else _MOST_HALF_LIVES
        if has_date(scan) and 0 <= span_s <= most * half_life_s:
            _doubt_delay(span_s, half_life_s, path, lines)
            return span_s
        if half_life_s > _DAYS_HALF_LIFE_S:
            raise MipError(
                f"{path}: the injection {start} does not fit the scan {_shown(scan)}, and the "
                f"time of day is not enough for a half-life of {half_life_s / 3600:.0f} h"
                + _TIME_REMEDY
            )
        if has_date(scan):
            lines.append(
                f"{path}: the injection {start} does not fit the scan {scan}; only the time of "
                "day is used"
            )
        at = at or start.time()
    assert at is not None
    return _uptake_by_clock(at, scan, half_life_s, path, lines)


def _uptake_by_clock(
    at: time, scan: datetime, half_life_s: float, path: Path, lines: list[str]
) -> float:
    """Seconds from the last time of day `at` before the scan, less than a day."""
    # Injected before midnight and scanned after it: the same day would give a negative time.
    span_s = (scan - datetime.combine(scan.date(), at)).total_seconds() % _DAY_S
    if span_s > _MOST_HALF_LIVES * half_life_s:
        raise MipError(
            f"{path}: the injection at {at} is {span_s / 3600:.1f} h before the scan at "
            f"{scan.time()} or after it, more than {_MOST_HALF_LIVES} half-lives of "
            f"{half_life_s / 60:.4g} min: a time is wrong{_TIME_REMEDY}"
        )
    if half_life_s > _DAYS_HALF_LIFE_S:
        raise MipError(
            f"{path}: the day of injection is not known "
            f"({tag_name('RadiopharmaceuticalStartDateTime')} is absent), and the half-life is "
            f"{half_life_s / 3600:.0f} h{_TIME_REMEDY} as YYYY-MM-DDTHH:MM"
        )
    if half_life_s > _LONG_HALF_LIFE_S:
        lines.append(
            f"{path}: the day of injection is not known; less than a day before the scan is assumed"
        )
    _doubt_delay(span_s, half_life_s, path, lines)
    return span_s


def _given_uptake(
    header: "Dataset",
    tracer: "Dataset",
    scan: datetime,
    half_life_s: float,
    path: Path,
    options: DicomOptions,
    lines: list[str],
) -> float:
    """Seconds from `--injection_time` to the scan."""
    given = options.injection_time
    if isinstance(given, datetime):
        given = wall_clock(given, header)
        if not has_date(scan):
            raise MipError(
                f"{path}: the headers have no date to compare with --injection_time {given}; give "
                "the time of day alone"
            )
        span_s = (scan - given).total_seconds()
    else:
        assert given is not None
        day = datetime.combine(scan.date(), given.replace(tzinfo=None))
        span_s = (scan - day).total_seconds() % _DAY_S
    if not 0 <= span_s <= _MOST_OF_DAYS * half_life_s:
        raise MipError(
            f"{path}: --injection_time {given} is {timedelta(seconds=abs(round(span_s)))} "
            f"{'before' if span_s > 0 else 'after'} the scan {_shown(scan)}, with a half-life of "
            f"{half_life_s / 60:.4g} min"
        )
    keyword = "RadiopharmaceuticalStartDateTime"
    if text_or_none(tracer, keyword) is None:
        keyword = "RadiopharmaceuticalStartTime"
    lines.append(
        f"{path}: injection {given} of --injection_time instead of {stated_text(tracer, keyword)}"
    )
    _doubt_delay(span_s, half_life_s, path, lines)
    return span_s


def _shown(moment: datetime) -> str:
    return str(moment if has_date(moment) else moment.time())


def _agreed_start(
    start: datetime, at: time, dated: str, header: "Dataset", path: Path, lines: list[str]
) -> datetime:
    """Start of injection by its two elements, with a line where they differ.

    The one with a date counts, unless its time zone is not the header's or is not known to be, or
    its time of day was removed (midnight).
    """
    half = timedelta(seconds=_DAY_S / 2)
    gap = (datetime.combine(start.date(), at) - start + half) % (2 * half) - half
    if abs(gap.total_seconds()) <= _SAME_TIME_S:
        return start
    foreign = dated[-5:-4] in ("+", "-") and text_or_none(header, "TimezoneOffsetFromUTC") is None
    if foreign:
        used = start + gap
    else:
        used = datetime.combine(start.date(), at) if start.time() == time() else start
    lines.append(
        f"{path}: {tag_name('RadiopharmaceuticalStartDateTime')} is {dated}, "
        f"{tag_name('RadiopharmaceuticalStartTime')} {at}; {used} is used"
    )
    return used


def _doubt_delay(span_s: float, half_life_s: float, path: Path, lines: list[str]) -> None:
    """A line where a delay is unusual: of a time that was never set, or set wrongly."""
    if span_s < _LEAST_DELAY_S and half_life_s > _SHORT_HALF_LIFE_S:
        lines.append(
            f"{path}: the scan is {span_s / 60:.0f} min after the injection; is the time of "
            "injection right? --injection_time sets it"
        )
    if span_s > _USUAL_HALF_LIVES * half_life_s:
        lines.append(
            f"{path}: the scan is {span_s / 3600:.1f} h after the injection, "
            f"{span_s / half_life_s:.1f} half-lives; is a time wrong? --injection_time sets it"
        )
