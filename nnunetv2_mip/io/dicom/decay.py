"""Moments that the values of a PET series are decay-corrected to.

With Decay Correction `START` all slices are corrected to the start of the *series*, though they
are acquired up to half an hour apart. Series Date and Time tell it, unless they were changed when
the series was processed again; then the frames tell it: the time of acquisition plus the moment of
the mean count rate, less Frame Reference Time, is one moment for all slices (IBSI's manual on SUV).
Scanners that write one time of acquisition for all beds, or no Frame Reference Time, are left out
by that condition.
"""

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.elements import (
    is_vendor,
    positive_number,
    positive_or_none,
    private_text,
    text_or_none,
)
from nnunetv2_mip.io.dicom.series import Slices, tag_name
from nnunetv2_mip.io.dicom.times import has_date, moment_of, parse_datetime

if TYPE_CHECKING:
    from pydicom import Dataset

# Private scan start: group, creator, element, vendor.
_SCAN_STARTS = (
    (0x0009, "GEMS_PETD_01", 0x0D, "GE"),
    (0x0071, "SIEMENS MED PT", 0x22, "Siemens"),
)
# A reference that differs from the series time by more than this gives a line.
_LATE_SERIES_S = 60
# References of the slices may differ by this share of SUV, and by this time.
_REFERENCE_TOLERANCE, _MOST_SPREAD_S = 0.005, 60.0
# No scan goes on for longer between the reference and the first slice of a series.
_LONGEST_SCAN = timedelta(hours=3)
# Against a series time that could be right, the frames' reference is one near the first of them.
_LONGEST_BEFORE_FIRST = timedelta(minutes=10)
_HALF_DAY = timedelta(hours=12)
# Values without decay correction fade: the last slice is not acquired this much later.
_MOST_APART_HALF_LIVES = 5
# Frames below one second are not imaged; the number is in s, not in ms.
_LEAST_FRAME_MS = 1000.0


def decay_reference(slices: Slices, half_life_s: float, lines: list[str]) -> datetime:
    """Moment that `START` refers to; a choice is added to `lines`.

    It is Series Date and Time. Where that is later than the first acquisition, or far from what
    all frames say, it is in this order: the private scan start of GE or Siemens, the moment that
    Frame Reference Time gives, the first acquisition.

    Raises:
        MipError: the series time is absent and nothing else tells the moment.
    """
    header, path = slices.headers[0], slices.files[0]
    stated = text_or_none(header, "DecayCorrectionDateTime")
    if stated is not None:
        return parse_datetime(stated, header, path, tag_name("DecayCorrectionDateTime"))
    series = moment_of(header, "Series", path)
    acquired = acquisitions(slices, series)
    first = min((moment for moment in acquired if moment is not None), default=None)
    if series is not None and (first is None or series <= first):
        frames = _frame_reference(slices, acquired, half_life_s)
        # One frame alone is no evidence against the series time.
        if frames is None or not frames[1] or first is None:
            return series
        off_s = (frames[0] - series).total_seconds()
        if abs(off_s) <= _LATE_SERIES_S or first - frames[0] > _LONGEST_BEFORE_FIRST:
            return series
        lines.append(
            f"{path}: the series time {series.time()} is {abs(off_s) / 60:.1f} min "
            f"{'before' if off_s > 0 else 'after'} what Frame Reference Time says of all slices; "
            f"decay is corrected to {_clock(frames[0])}"
        )
        return frames[0]
    scan, what = _scan_start(slices, acquired, series, half_life_s)
    if scan is None:
        raise MipError(f"{path}: lacks {tag_name('SeriesTime')}; SUV needs it")
    if series is None:
        lines.append(
            f"{path}: lacks {tag_name('SeriesTime')}; decay is corrected to {what} {_clock(scan)}"
        )
    elif abs((series - scan).total_seconds()) > _LATE_SERIES_S:
        lines.append(
            f"{path}: the series time {series.time()} is later than the acquisition; decay is "
            f"corrected to {what} {_clock(scan)}"
        )
    return scan


def _scan_start(
    slices: Slices,
    acquired: list[datetime | None],
    series: datetime | None,
    half_life_s: float,
) -> tuple[datetime | None, str]:
    """Scan start without the series time, and what tells it; None where nothing does."""
    header, path = slices.headers[0], slices.files[0]
    if series is None or has_date(series):
        for group, creator, element, vendor in _SCAN_STARTS:
            start = _private_start(header, path, group, creator, element, vendor)
            if start is not None and not _contradicts(start, acquired):
                return start, f"{vendor}'s scan start"
    frames = _frame_reference(slices, acquired, half_life_s, needed=True)
    if frames is not None and (series is not None or frames[1]):
        return frames[0], "the start by Frame Reference Time,"
    if series is None:
        return None, ""
    return min(m for m in acquired if m is not None), "the first acquisition's scan start"


def _private_start(
    header: "Dataset", path: Path, group: int, creator: str, element: int, vendor: str
) -> datetime | None:
    """Moment in a private element; None where it is absent, or was replaced by a text."""
    text = private_text(header, group, creator, element, vendor)
    try:
        return None if text is None else parse_datetime(text, header, path, vendor)
    except MipError:
        return None


def _contradicts(start: datetime, acquired: list[datetime | None]) -> bool:
    """Whether a scan start is after the first acquisition of its day, or hours before it."""
    same_day = [m for m in acquired if m is not None and m.date() == start.date()]
    if not same_day:
        return False
    before = min(same_day) - start
    return not timedelta(seconds=-_LATE_SERIES_S) <= before <= _LONGEST_SCAN


def acquisitions(slices: Slices, series: datetime | None) -> list[datetime | None]:
    """Start of acquisition of each slice, comparable with the series time where there is one.

    Where one of the two has no date, a time of acquisition is the one nearest to the series time:
    those before and after midnight belong together.
    """
    moments = [moment_of(h, "Acquisition", f) for h, f in zip(slices.headers, slices.files)]
    if series is None:
        return moments
    return [
        moment
        if moment is None or (has_date(moment) and has_date(series))
        else series + (moment - series + _HALF_DAY) % (2 * _HALF_DAY) - _HALF_DAY
        for moment in moments
    ]


def _frame_reference(
    slices: Slices, acquired: list[datetime | None], half_life_s: float, needed: bool = False
) -> tuple[datetime, bool] | None:
    """Decay reference by Frame Reference Time, and whether several frames agree on it.

    None where a slice lacks a time, or the slices contradict each other or their acquisition.

    Args:
        needed: whether to refuse a series that only lacks the duration of its frames.

    Raises:
        MipError: the duration of a frame is absent, and it is needed.
    """
    moments = [moment for moment in acquired if moment is not None]
    if len(moments) < len(acquired) or not moments:
        return None
    first = min(moments)
    seconds, offsets = [], set()
    for header, path, moment in zip(slices.headers, slices.files, moments):
        offset_ms = positive_or_none(header, "FrameReferenceTime", path)
        if offset_ms is None:
            return None
        offsets.add(offset_ms)
        # GE's Frame Reference Time is that of the start of the frame.
        mean_s = 0.0
        if not is_vendor(header, "GE"):
            if not needed and positive_or_none(header, "ActualFrameDuration", path) is None:
                return None
            mean_s = _mean_rate_s(header, path, half_life_s)
        seconds.append((moment - first).total_seconds() + mean_s - offset_ms / 1000)
    tolerance_s = min(_REFERENCE_TOLERANCE * half_life_s / math.log(2), _MOST_SPREAD_S)
    start_s = float(np.mean(seconds))
    if np.ptp(seconds) > tolerance_s or not -_LONGEST_SCAN.seconds <= start_s <= tolerance_s:
        return None
    return first + timedelta(seconds=start_s), len(offsets) > 1


def _mean_rate_s(header: "Dataset", path: Path, half_life_s: float) -> float:
    """Seconds from the start of a frame to the moment of its mean count rate."""
    duration_ms = positive_number(header, "ActualFrameDuration", path)
    seconds = duration_ms / (1000 if duration_ms >= _LEAST_FRAME_MS else 1)
    rate = math.log(2) / half_life_s
    decays = rate * seconds
    return math.log(decays / -math.expm1(-decays)) / rate


def frame_moments(slices: Slices, half_life_s: float) -> tuple[datetime, np.ndarray]:
    """First acquisition, and the moments of the mean count rate of the slices in s after it.

    Raises:
        MipError: the time of acquisition or the duration of a frame is absent.
    """
    stated = [text_or_none(header, "FrameReferenceDateTime") for header in slices.headers]
    if all(stated):
        name = tag_name("FrameReferenceDateTime")
        moments = [
            parse_datetime(str(text), header, path, name)
            for text, header, path in zip(stated, slices.headers, slices.files)
        ]
        first = min(moments)
        return first, np.array([(moment - first).total_seconds() for moment in moments])
    series = moment_of(slices.headers[0], "Series", slices.files[0])
    acquired = []
    for header, path in zip(slices.headers, slices.files):
        moment = moment_of(header, "Acquisition", path)
        if moment is None:
            raise MipError(
                f"{path}: lacks {tag_name('AcquisitionTime')}; values without decay correction "
                "need it"
            )
        if series is not None and has_date(series) and not has_date(moment):
            moment = datetime.combine(series.date(), moment.time())
        acquired.append(moment)
    # Times of one day, before and after midnight, belong together.
    latest = max(acquired)
    acquired = [
        m + 2 * _HALF_DAY if _HALF_DAY < latest - m < 2 * _HALF_DAY else m for m in acquired
    ]
    first = min(acquired)
    apart_s = (max(acquired) - first).total_seconds()
    if apart_s > max(_MOST_APART_HALF_LIVES * half_life_s, _MOST_SPREAD_S):
        raise MipError(
            f"{path}: the slices were acquired {apart_s / 3600:.1f} h apart; is this one series, "
            f"and is {tag_name('AcquisitionDate')} right?"
        )
    means = [_mean_rate_s(h, p, half_life_s) for h, p in zip(slices.headers, slices.files)]
    after = [(moment - first).total_seconds() for moment in acquired]
    return first, np.array(after) + means


def _clock(moment: datetime) -> str:
    return str((moment + timedelta(seconds=0.5)).time().replace(microsecond=0))
