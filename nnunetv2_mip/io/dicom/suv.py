"""SUV (body weight) of a PET series: factors computed from its DICOM tags.

The rules are those of QIBA's "vendor-neutral" SUV computation (qibawiki.rsna.org, Standardized
Uptake Value) and of IBSI's manual with its reference objects (github.com/oncoray/suv_computation),
with the checks of PS3.3 C.8.9.1. A number that cannot be is refused, or read in the one unit that
makes it usual, which is said.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.body_size import BODY_SIZES, body_weight_factor, body_weight_kg
from nnunetv2_mip.io.dicom.decay import decay_reference, frame_moments
from nnunetv2_mip.io.dicom.elements import (
    private_factor,
    required_text,
    text_or_none,
)
from nnunetv2_mip.io.dicom.injection import (
    half_life,
    injected_bq,
    one_injection,
)
from nnunetv2_mip.io.dicom.nuclides import stated_nuclide
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.series import Slices, tag_name, values_of
from nnunetv2_mip.io.dicom.uptake import uptake_seconds

if TYPE_CHECKING:
    from pydicom import Dataset

_PHILIPS = (0x7053, "Philips PET Private Group")
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x00, 0x09
# One value for all slices of a series; another one in some slice is a mixture of series.
_SERIES_WIDE = ("PatientID", "Units", "DecayCorrection", "SUVType", "PatientWeight")
_INJECTION_WIDE = (
    "RadionuclideTotalDose",
    "RadionuclideHalfLife",
    "RadiopharmaceuticalStartTime",
    "RadiopharmaceuticalStartDateTime",
)
_BQML_PER = {"BQML": 1.0, "KBQML": 1000.0}
# PS3.16, CID 84 and 85.
_UCUM_UNITS = {
    "Bq/ml": ("BQML", ""),
    "{counts}": ("CNTS", ""),
    "g/ml{SUVbw}": ("GML", "BW"),
    "g/ml{SUVlbm}": ("GML", "LBM"),
    "g/ml{SUVlbm(James128)}": ("GML", "LBMJAMES128"),
    "g/ml{SUVlbm(Janma)}": ("GML", "LBMJANMA"),
    "g/ml{SUVibw}": ("GML", "IBW"),
    "cm2/ml{SUVbsa}": ("CM2ML", "BSA"),
}
_NEEDED_BY_ACTIVITY = ("weight_kg", "dose_mbq", "injection_time")


def suv_factors(
    slices: Slices, options: DicomOptions | None = None
) -> tuple[np.ndarray, list[str]]:
    """SUV per rescaled value of each slice.

    Args:
        slices: of a PET series.
        options: values that replace those of the headers.

    Returns:
        (slices,) float64, and lines for the user.

    Raises:
        MipError: a tag that SUV needs is missing or impossible, or the units are not convertible;
            names file and tag.
    """
    options = options or DicomOptions()
    lines: list[str] = []
    header, path = slices.headers[0], slices.files[0]
    _require_one_series(slices, options)
    _require_attenuation_correction(header, path)
    units, kind = _units(header, path, lines)
    if units in ("GML", "CM2ML"):
        factors, used = _from_suv(slices, kind, options, lines)
    elif units == "CNTS":
        factors, used = _from_philips_counts(slices, options, lines)
    else:
        factors, used = _from_activity(slices, options, lines)
        factors = factors * _BQML_PER[units]
    for name in _NEEDED_BY_ACTIVITY:
        if getattr(options, name) is not None and name not in used:
            lines.append(
                f"{path}: --{name} has no effect: the values do not depend on it ({units})"
            )
    return factors, lines


def _units(header: "Dataset", path: Path, lines: list[str]) -> tuple[str, str]:
    """Units (`BQML`, `KBQML`, `GML`, `CM2ML`, `CNTS`), and the kind of SUV (`BW`, `BSA`, …).

    Raises:
        MipError: there are none, or others, or they contradict the kind of SUV.
    """
    mapped = text_or_none(header, "Units") is None and _mapped_units(header)
    if mapped:
        return mapped
    stated = required_text(header, "Units", path)
    units = "".join(letter for letter in stated.upper() if letter.isalnum())
    if units not in ("GML", "CM2ML", "CNTS", *_BQML_PER):
        raise MipError(
            f"{path}: {tag_name('Units')} is {stated}; SUV can be computed from BQML, GML, CM2ML "
            "and Philips CNTS"
        )
    if units not in (stated, "KBQML"):
        lines.append(f"{path}: {tag_name('Units')} is {stated}, read as {units}")
    if units == "KBQML":
        lines.append(f"{path}: {tag_name('Units')} is {stated}, read as kBq/ml")
    by_surface = units == "CM2ML"
    kind = (text_or_none(header, "SUVType") or ("BSA" if by_surface else "BW")).upper()
    if units in ("GML", "CM2ML") and (kind == "BSA") != by_surface:
        raise MipError(
            f"{path}: {tag_name('Units')} is {units}, but {tag_name('SUVType')} is {kind}; one of "
            "them is wrong"
        )
    return units, kind


def _mapped_units(header: "Dataset") -> tuple[str, str] | None:
    """Units and kind of SUV in the real world value mapping of an enhanced PET, or None."""
    for mapping in header.get("RealWorldValueMappingSequence") or []:
        for code in mapping.get("MeasurementUnitsCodeSequence") or []:
            value = text_or_none(code, "CodeValue") or text_or_none(code, "LongCodeValue")
            found = _UCUM_UNITS.get(value or "")
            if found is not None:
                return found
    return None


def _from_suv(
    slices: Slices, kind: str, options: DicomOptions, lines: list[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """SUV by body weight per SUV of another kind, and the options used."""
    header, path = slices.headers[0], slices.files[0]
    count = len(slices.headers)
    if kind == "BW":
        return np.ones(count), ()
    if kind not in BODY_SIZES:
        raise MipError(
            f"{path}: {tag_name('SUVType')} is {kind}; BW and {', '.join(BODY_SIZES)} are known"
        )
    return np.full(count, body_weight_factor(kind, header, path, options, lines)), ("weight_kg",)


def _from_philips_counts(
    slices: Slices, options: DicomOptions, lines: list[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """SUV per count by Philips' private factors, and the options used."""
    header, path = slices.headers[0], slices.files[0]
    suv = _philips_factors(slices, _PHILIPS_SUV)
    activity = _philips_factors(slices, _PHILIPS_ACTIVITY)
    uncorrected = (text_or_none(header, "DecayCorrection") or "").upper() == "NONE"
    overridden = any(getattr(options, name) is not None for name in _NEEDED_BY_ACTIVITY)
    # The factor of SUV is for corrected counts, with the weight and dose that the scanner knew.
    if suv is not None and not uncorrected and not (overridden and activity is not None):
        return suv, ()
    if activity is not None:
        factors, used = _from_activity(slices, options, lines)
        return factors * activity, used
    if suv is not None:
        raise MipError(
            f"{path}: {tag_name('Units')} is CNTS (counts) without decay correction, and Philips' "
            "factor of activity (7053,1009) is missing or 0; export the series in BQML"
        )
    vendor = text_or_none(header, "Manufacturer") or "absent"
    raise MipError(
        f"{path}: {tag_name('Units')} is CNTS (counts), and the Philips factors (7053,1000) "
        f"and (7053,1009) are missing or 0 ({tag_name('Manufacturer')} is {vendor}); export the "
        "series in BQML"
    )


def _philips_factors(slices: Slices, element: int) -> np.ndarray | None:
    """Private factor of each slice, (slices,); None where a slice has none above 0."""
    found = [private_factor(h, *_PHILIPS, element, "Philips") for h in slices.headers]
    factors = [factor for factor in found if factor is not None]
    return np.array(factors) if len(factors) == len(found) else None


def _from_activity(
    slices: Slices, options: DicomOptions, lines: list[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """SUV per Bq/ml (weight over the dose left at the time of the values), and the options used."""
    header, path = slices.headers[0], slices.files[0]
    correction = _decay_correction(header, path)
    weight_kg = body_weight_kg(header, path, options, lines)
    tracer = one_injection(header, path, options)
    if correction == "ADMIN":
        nuclide, half_life_s = stated_nuclide(tracer), math.inf
    else:
        half_life_s, nuclide = half_life(tracer, path, lines)
    dose_bq = injected_bq(tracer, nuclide, weight_kg, path, options, lines)
    factors = np.full(len(slices.headers), 1000.0 * weight_kg / dose_bq)
    if correction == "ADMIN":
        return factors, ("weight_kg", "dose_mbq")
    if correction == "NONE":
        scan, after_s = frame_moments(slices, half_life_s)
    else:
        scan, after_s = decay_reference(slices, half_life_s, lines), np.zeros(len(factors))
    uptake_s = uptake_seconds(tracer, header, scan, half_life_s, path, options, lines)
    return factors * 2 ** ((uptake_s + after_s) / half_life_s), _NEEDED_BY_ACTIVITY


def _decay_correction(header: "Dataset", path: Path) -> str:
    """`START`, `ADMIN` or `NONE`.

    Raises:
        MipError: it is absent, another one, or contradicts Corrected Image.
    """
    enhanced = {"YES": "START", "NO": "NONE"}.get(text_or_none(header, "DecayCorrected") or "")
    stated = text_or_none(header, "DecayCorrection") or enhanced
    correction = (stated or required_text(header, "DecayCorrection", path)).upper()
    if correction not in ("START", "ADMIN", "NONE"):
        raise MipError(
            f"{path}: {tag_name('DecayCorrection')} is {correction}; START, ADMIN or NONE is known"
        )
    done = values_of(header, "CorrectedImage")
    if done and ("DECY" in done) != (correction != "NONE"):
        raise MipError(
            f"{path}: {tag_name('DecayCorrection')} is {correction}, but "
            f"{tag_name('CorrectedImage')} is {', '.join(done)}; one of them is wrong"
        )
    return correction


def _require_attenuation_correction(header: "Dataset", path: Path) -> None:
    done = values_of(header, "CorrectedImage")
    if done and "ATTN" not in done:
        raise MipError(
            f"{path}: is not attenuation corrected ({tag_name('CorrectedImage')} lacks ATTN), so "
            "it gives no SUV; give the corrected series"
        )
    if text_or_none(header, "AttenuationCorrected") == "NO":
        raise MipError(
            f"{path}: is not attenuation corrected ({tag_name('AttenuationCorrected')} is NO), so "
            "it gives no SUV; give the corrected series"
        )


def _require_one_series(slices: Slices, options: DicomOptions) -> None:
    """Raise MipError where slices contradict each other in what one series has once."""
    _require_one_injection(slices, options)
    for keyword in _SERIES_WIDE:
        if keyword == "PatientWeight" and options.weight_kg is not None:
            continue
        first = slices.headers[0].get(keyword)
        for header, path in zip(slices.headers, slices.files):
            other = header.get(keyword)
            if other and first and other != first:
                raise MipError(
                    f"{path}: {tag_name(keyword)} is {other}, in {slices.files[0].name} it is "
                    f"{first}; is this one series?"
                )


def _require_one_injection(slices: Slices, options: DicomOptions) -> None:
    replaced = {
        "RadionuclideTotalDose": options.dose_mbq,
        "RadiopharmaceuticalStartTime": options.injection_time,
        "RadiopharmaceuticalStartDateTime": options.injection_time,
    }
    first: dict[str, str] = {}
    for header, path in zip(slices.headers, slices.files):
        for item in list(header.get("RadiopharmaceuticalInformationSequence") or [])[:1]:
            for keyword in _INJECTION_WIDE:
                value = text_or_none(item, keyword)
                if value is None or replaced.get(keyword) is not None:
                    continue
                if first.setdefault(keyword, value) != value:
                    raise MipError(
                        f"{path}: {tag_name(keyword)} is {value}, in {slices.files[0].name} it is "
                        f"{first[keyword]}; is this one series?"
                    )
