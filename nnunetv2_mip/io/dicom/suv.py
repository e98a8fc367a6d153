"""SUV (body weight) of a PET series: factors computed from its DICOM tags.

The rules are those of QIBA's "vendor-neutral" SUV computation (qibawiki.rsna.org, Standardized
Uptake Value), with the checks of PS3.3 C.8.9.1. With Decay Correction `START` all slices are
corrected to the start of the *series*, though they are acquired up to half an hour apart.
"""

import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.series import Slices, number_of, tag_name, values_of

if TYPE_CHECKING:
    from pydicom import Dataset

PHILIPS_GROUP, PHILIPS_CREATOR = 0x7053, "Philips PET Private Group"
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x00, 0x09
_GE_GROUP, _GE_CREATOR, _GE_SCAN_START = 0x0009, "GEMS_PETD_01", 0x0D
# After ten half-lives a thousandth of the dose is left: a longer time means a wrong time or date.
_MOST_HALF_LIVES = 10
# Nuclides with a longer half-life are imaged days after injection: the time of day is not enough.
_LONG_HALF_LIFE_S = 12 * 3600
_DAY_S = 86400.0
# Date used where dates were removed: then only times of day are compared.
_NO_DATE = date(1900, 1, 1)
# A series time later than the first acquisition by more than this gives a warning.
_LATE_SERIES_S = 60


def suv_factors(slices: Slices) -> tuple[np.ndarray, list[str]]:
    """SUV per rescaled value of each slice.

    Args:
        slices: of a PET series.

    Returns:
        (slices,) float64, and lines for the user.

    Raises:
        MipError: a tag that SUV needs is missing or impossible, or the units are not convertible;
            names file and tag.
    """
    header, path = slices.headers[0], slices.files[0]
    count = len(slices.headers)
    _require_attenuation_correction(header, path)
    units = _text(header, "Units", path)
    if units == "GML":
        kind = str(header.get("SUVType") or "BW")
        if kind != "BW":
            raise MipError(
                f"{path}: {tag_name('SUVType')} is {kind}; SUV by body weight (BW) is needed"
            )
        return np.ones(count), []
    if units == "BQML":
        return _from_activity(slices)
    if units == "CNTS":
        suv = _philips_factor(header, _PHILIPS_SUV)
        if suv is not None:
            return np.full(count, suv), []
        activity = _philips_factor(header, _PHILIPS_ACTIVITY)
        if activity is not None:
            factors, warnings = _from_activity(slices)
            return factors * activity, warnings
        raise MipError(
            f"{path}: {tag_name('Units')} is CNTS (counts), and the Philips factors (7053,1000) "
            "and (7053,1009) are missing or 0; export the series in BQML"
        )
    raise MipError(
        f"{path}: {tag_name('Units')} is {units}; SUV can be computed from BQML, GML and Philips "
        "CNTS"
    )


def _from_activity(slices: Slices) -> tuple[np.ndarray, list[str]]:
    """SUV per Bq/ml: weight over the dose that is left at the time of the values."""
    header, path = slices.headers[0], slices.files[0]
    correction = _text(header, "DecayCorrection", path)
    if correction not in ("START", "ADMIN", "NONE"):
        raise MipError(
            f"{path}: {tag_name('DecayCorrection')} is {correction}; START, ADMIN or NONE is known"
        )
    _require_consistent_decay(header, correction, path)
    weight_g = 1000.0 * _positive(header, "PatientWeight", path)
    tracer = _tracer(header, path)
    dose_bq = _positive(tracer, "RadionuclideTotalDose", path)
    factors = np.full(len(slices.headers), weight_g / dose_bq)
    if correction == "ADMIN":
        return factors, []
    half_life_s = _positive(tracer, "RadionuclideHalfLife", path)
    scan, warnings = _series_start(slices)
    uptake_s, more = _uptake(tracer, header, scan, half_life_s, path)
    elapsed_s = np.full(len(factors), uptake_s)
    if correction == "NONE":
        elapsed_s += _frame_moments(slices, scan, half_life_s)
    return factors * 2 ** (elapsed_s / half_life_s), warnings + more


def _require_attenuation_correction(header: "Dataset", path: Path) -> None:
    done = values_of(header, "CorrectedImage")
    if done and "ATTN" not in done:
        raise MipError(
            f"{path}: is not attenuation corrected ({tag_name('CorrectedImage')} lacks ATTN), so "
            "it gives no SUV; give the corrected series"
        )


def _require_consistent_decay(header: "Dataset", correction: str, path: Path) -> None:
    done = values_of(header, "CorrectedImage")
    if done and ("DECY" in done) != (correction != "NONE"):
        raise MipError(
            f"{path}: {tag_name('DecayCorrection')} is {correction}, but "
            f"{tag_name('CorrectedImage')} is {', '.join(done)}; one of them is wrong"
        )


def _tracer(header: "Dataset", path: Path) -> "Dataset":
    items = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(items) != 1:
        name = tag_name("RadiopharmaceuticalInformationSequence")
        count = "several injections" if items else "nothing"
        raise MipError(f"{path}: {name} holds {count}; SUV needs the dose of one injection")
    return items[0]


def _philips_factor(header: "Dataset", element: int) -> float | None:
    """Private factor above 0, or None."""
    value = _private(header, PHILIPS_GROUP, PHILIPS_CREATOR, element)
    if value is None:
        return None
    try:
        factor = float(value)
    except ValueError:
        return None
    return factor if factor > 0 and math.isfinite(factor) else None


def _private(header: "Dataset", group: int, creator: str, element: int) -> str | None:
    try:
        value = header.private_block(group, creator)[element].value
    except KeyError:
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip("\0 ")
    return None if value is None else str(value)


def _series_start(slices: Slices) -> tuple[datetime, list[str]]:
    """Scan start that START refers to, and lines for the user.

    It is Series Date and Time, unless that is later than the first acquisition: then the series
    was made afterwards, and GE's private scan start or the first acquisition counts (QIBA).
    """
    header, path = slices.headers[0], slices.files[0]
    series = _moment(header, "Series", path)
    if series is None:
        raise MipError(f"{path}: lacks {tag_name('SeriesTime')}; SUV needs it")
    acquired = [_moment(h, "Acquisition", f) for h, f in zip(slices.headers, slices.files)]
    known = [moment for moment in acquired if moment is not None]
    # Dates that one of the two lacks cannot be compared.
    known = [moment for moment in known if _has_date(moment) == _has_date(series)]
    if not _has_date(series):
        # Times of day alone: those before and after midnight belong together.
        half = timedelta(hours=12)
        known = [series + (moment - series + half) % (2 * half) - half for moment in known]
    if not known or series <= min(known):
        return series, []
    scan, what = min(known), "the first acquisition"
    private = _private(header, _GE_GROUP, _GE_CREATOR, _GE_SCAN_START)
    if private is not None and _has_date(series):
        scan, what = _parse_datetime(private, header, path, "GE scan start (0009,100D)"), "GE's"
    late_s = (series - scan).total_seconds()
    if abs(late_s) <= _LATE_SERIES_S:
        return scan, []
    return scan, [
        f"{path}: the series time {series.time()} is later than the acquisition; decay is "
        f"corrected to {what} scan start {scan.time()}"
    ]


def _uptake(
    tracer: "Dataset", header: "Dataset", scan: datetime, half_life_s: float, path: Path
) -> tuple[float, list[str]]:
    """Seconds from injection to `scan`, and lines for the user."""
    most_s = _MOST_HALF_LIVES * half_life_s
    warnings = []
    clock = _text_or_none(tracer, "RadiopharmaceuticalStartTime")
    dated = _text_or_none(tracer, "RadiopharmaceuticalStartDateTime")
    if dated is not None:
        start = _parse_datetime(dated, header, path, tag_name("RadiopharmaceuticalStartDateTime"))
        span_s = (scan - start).total_seconds()
        if _has_date(scan) and 0 <= span_s <= most_s:
            return span_s, []
        if _has_date(scan):
            warnings.append(
                f"{path}: the injection {start} does not fit the scan {scan}; only the time of "
                "day is used"
            )
        at = start.time()
    if clock is not None:
        at = _parse_time(clock, path, "RadiopharmaceuticalStartTime")
    elif dated is None:
        raise MipError(
            f"{path}: lacks {tag_name('RadiopharmaceuticalStartTime')} and "
            f"{tag_name('RadiopharmaceuticalStartDateTime')}; SUV needs the time of injection"
        )
    # Injected before midnight and scanned after it: the same day would give a negative time.
    span_s = (scan - datetime.combine(scan.date(), at)).total_seconds() % _DAY_S
    if span_s > most_s:
        raise MipError(
            f"{path}: injection at {at} and scan at {scan.time()} are {span_s / 3600:.1f} h apart, "
            f"more than {_MOST_HALF_LIVES} half-lives; is the scan before the injection, or a "
            "time wrong?"
        )
    if half_life_s > _LONG_HALF_LIFE_S:
        warnings.append(
            f"{path}: the day of injection is not known; less than a day before the scan is assumed"
        )
    return span_s, warnings


def _frame_moments(slices: Slices, scan: datetime, half_life_s: float) -> np.ndarray:
    """Times of the average count rate of each slice, in seconds after `scan`, (slices,)."""
    rate = math.log(2) / half_life_s
    moments = []
    for header, path in zip(slices.headers, slices.files):
        acquired = _moment(header, "Acquisition", path)
        if acquired is None:
            raise MipError(
                f"{path}: lacks {tag_name('AcquisitionTime')}; values without decay correction "
                "need it"
            )
        if _has_date(acquired) != _has_date(scan):
            acquired = datetime.combine(scan.date(), acquired.time())
        after_s = (acquired - scan).total_seconds()
        if after_s < -_DAY_S / 2:
            after_s += _DAY_S
        decays = rate * _positive(header, "ActualFrameDuration", path) / 1000.0
        moments.append(after_s + math.log(decays / -math.expm1(-decays)) / rate)
    return np.array(moments)


def _has_date(moment: datetime) -> bool:
    return moment.date() > _NO_DATE + timedelta(days=7)


def _moment(header: "Dataset", what: str, path: Path) -> datetime | None:
    """Time of `<what>Date` and `<what>Time` (or `AcquisitionDateTime`); None without a time."""
    clock = _text_or_none(header, f"{what}Time")
    if clock is None:
        dated = _text_or_none(header, "AcquisitionDateTime") if what == "Acquisition" else None
        if dated:
            return _parse_datetime(dated, header, path, tag_name("AcquisitionDateTime"))
        return None
    day = _text_or_none(header, f"{what}Date")
    at = _parse_time(clock, path, f"{what}Time")
    if day is None:
        return datetime.combine(_NO_DATE, at)
    try:
        # ACR-NEMA wrote 1997.07.15.
        return datetime.combine(datetime.strptime(day.replace(".", ""), "%Y%m%d").date(), at)
    except ValueError:
        raise MipError(f"{path}: {tag_name(f'{what}Date')} is no date: {day}") from None


def _parse_time(text: str, path: Path, keyword: str) -> time:
    """Time of HH, HHMM, HHMMSS or HHMMSS.FFFFFF; a leap second counts as the one before."""
    whole, _, fraction = text.replace(":", "").partition(".")
    parts = [whole[i : i + 2] for i in range(0, len(whole), 2)]
    try:
        hour, minute, second = (int(part) for part in [*parts, "0", "0"][:3])
        return time(hour, minute, min(second, 59), int(f"{fraction:0<6}"[:6]))
    except ValueError:
        raise MipError(f"{path}: {tag_name(keyword)} is no time of day: {text}") from None


def _parse_datetime(text: str, header: "Dataset", path: Path, name: str) -> datetime:
    """Wall-clock time of a DICOM DT in the header's time zone."""
    from pydicom.valuerep import DT

    try:
        moment = DT(text.strip())
        zone = _text_or_none(header, "TimezoneOffsetFromUTC")
        if moment.tzinfo is not None and zone is not None:
            moment = moment.astimezone(datetime.strptime(zone.strip(), "%z").tzinfo)
        return datetime(*moment.timetuple()[:6], moment.microsecond)
    except (ValueError, TypeError, AttributeError):
        raise MipError(f"{path}: {name} is no date and time: {text}") from None


def _text_or_none(header: "Dataset", keyword: str) -> str | None:
    values: Sequence[str] = values_of(header, keyword)
    return values[0].strip() or None if values else None


def _text(header: "Dataset", keyword: str, path: Path) -> str:
    text = _text_or_none(header, keyword)
    if text is None:
        raise MipError(f"{path}: lacks {tag_name(keyword)}; SUV needs it")
    return text


def _positive(header: "Dataset", keyword: str, path: Path) -> float:
    value = number_of(header, keyword, path)
    if value <= 0:
        raise MipError(f"{path}: {tag_name(keyword)} is {value:g}; SUV needs a number above 0")
    return value
