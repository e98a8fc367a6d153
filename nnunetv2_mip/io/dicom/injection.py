"""Injection of a PET study: activity and half-life of the tracer.

A value in another unit than DICOM's (Bq, s) is read as such where only one unit gives a usual
value, and said; else it is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.elements import positive_number, stated_text, text_or_none
from nnunetv2_mip.io.dicom.nuclides import (
    NUCLIDES,
    Nuclide,
    nuclide_of_half_life,
    stated_nuclide,
)
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.series import tag_name

if TYPE_CHECKING:
    from pydicom import Dataset

_BQ_PER = {"kBq": 1e3, "MBq": 1e6, "GBq": 1e9, "µCi": 3.7e4, "mCi": 3.7e7}
_COMMON_UNITS = ("kBq", "MBq", "mCi")
_SECONDS_PER = {"minutes": 60.0, "hours": 3600.0, "days": 86400.0, "ms": 1e-3}
# Activity that no injection is below: of a mouse it is some MBq.
_LEAST_BQ = 1e5
# Below this share of the usual activity per kg a number is not in Bq.
_LEAST_SHARE = 0.1
# Activity that no animal of less than a kilogram gets.
_MOST_SMALL_BQ = 2e8
_LEAST_HALF_LIFE_S = 60.0
# Half-lives of no stated nuclide are read in another unit only if they are no likely seconds.
_LIKELY_S = (300, 1e6)
_DOSE_REMEDY = "; give it with --dose_mbq"


def one_injection(header: "Dataset", path: Path, options: DicomOptions) -> "Dataset":
    """Item of the one injection in a header; the first of several if the user gives dose and time.

    Raises:
        MipError: there is none, or there are several.
    """
    items = header.get("RadiopharmaceuticalInformationSequence") or []
    name = tag_name("RadiopharmaceuticalInformationSequence")
    if not items:
        raise MipError(
            f"{path}: {name} holds nothing; SUV needs its {tag_name('RadionuclideHalfLife')}, "
            "dose and time of injection"
        )
    given = None not in (options.dose_mbq, options.injection_time)
    half_lives = {text_or_none(item, "RadionuclideHalfLife") for item in items}
    if len(items) > 1 and not (given and len(half_lives) == 1):
        raise MipError(
            f"{path}: {name} holds several injections; SUV needs the dose of one: give their "
            "activity at one moment with --dose_mbq and --injection_time"
        )
    return items[0]


def injected_bq(
    tracer: "Dataset",
    nuclide: Nuclide | None,
    weight_kg: float,
    path: Path,
    options: DicomOptions,
    lines: list[str],
) -> float:
    """Injected activity in Bq; what was changed or is doubtful is added to `lines`.

    Args:
        tracer: item of `one_injection`.
        nuclide: None where it is not known.

    Raises:
        MipError: the activity is absent, or is a usual one in no unit, or in several.
    """
    name = tag_name("RadionuclideTotalDose")
    what = f" of {nuclide}" if nuclide else ""
    most_mbq = nuclide.most_mbq if nuclide else 50000.0
    low, high = nuclide.usual_mbq_per_kg if nuclide else (0.3, 30.0)
    least_bq = max(_LEAST_BQ, _LEAST_SHARE * low * 1e6 * weight_kg)
    if options.dose_mbq is not None:
        if not least_bq <= options.dose_mbq * 1e6 <= most_mbq * 1e6:
            raise MipError(
                f"--dose_mbq is {options.dose_mbq:g}; an injection{what} of a patient of "
                f"{weight_kg:g} kg is {least_bq / 1e6:.2g} to {most_mbq:g} MBq"
            )
        lines.append(
            f"{path}: dose {options.dose_mbq:g} MBq of --dose_mbq instead of "
            f"{stated_text(tracer, 'RadionuclideTotalDose')}"
        )
        value = options.dose_mbq * 1e6
    else:
        value = positive_number(tracer, "RadionuclideTotalDose", path, _DOSE_REMEDY)
    if least_bq <= value <= most_mbq * 1e6:
        per_kg = value / 1e6 / weight_kg
        if weight_kg < 1 and value > _MOST_SMALL_BQ:
            raise MipError(
                f"{path}: a weight of {weight_kg:g} kg ({tag_name('PatientWeight')}) and a dose of "
                f"{value / 1e6:.4g} MBq ({name}) do not fit; give one with --weight_kg or "
                "--dose_mbq"
            )
        if per_kg < low / 2 or (per_kg > high and weight_kg >= 1):
            lines.append(
                f"{path}: the dose ({name}) is {value / 1e6:.4g} MBq, {per_kg:.2g} MBq per kg; "
                f"usual{what} is {low:g} to {high:g}; --dose_mbq sets it"
            )
        return value
    unit, possible = _unit_of(value, weight_kg, low, high, most_mbq)
    if unit is None or weight_kg < 1:
        found = f"it could be in {' or '.join(possible)}" if possible else "nor one in MBq or mCi"
        raise MipError(
            f"{path}: {name} is {value:g}, which is no injected activity{what} in Bq for "
            f"{weight_kg:g} kg; {found}{_DOSE_REMEDY}"
        )
    dose_bq = value * _BQ_PER[unit]
    lines.append(
        f"{path}: {name} is {value:g}, too little for Bq; read as {unit}"
        + ("" if unit == "MBq" else f": {dose_bq / 1e6:.4g} MBq")
    )
    return dose_bq


def _unit_of(
    value: float, weight_kg: float, low: float, high: float, most_mbq: float
) -> tuple[str | None, list[str]]:
    """The one unit in which a number is a usual activity, and all in which it could be one.

    Args:
        low, high: usual activity in MBq per kg.
        most_mbq: no injection is more, in MBq.
    """
    per_kg = {unit: value * bq / 1e6 / weight_kg for unit, bq in _BQ_PER.items()}
    possible = [
        unit
        for unit, share in per_kg.items()
        if low / 1.5 <= share <= 1.25 * high and share * weight_kg <= most_mbq / 3
    ]
    likely = possible
    if len(possible) > 1 and sum(unit in _COMMON_UNITS for unit in possible) == 1:
        # Activities are seldom written in GBq or µCi; these do not make a good reading doubtful.
        likely = [
            unit
            for unit in possible
            if unit in _COMMON_UNITS and 3 * low <= per_kg[unit] <= high / 1.5
        ]
    if len(likely) == 1 and low <= per_kg[likely[0]] <= high:
        return likely[0], possible
    return None, possible


def half_life(tracer: "Dataset", path: Path, lines: list[str]) -> tuple[float, Nuclide | None]:
    """Half-life in s and the nuclide; what was changed or is doubtful is added to `lines`.

    Raises:
        MipError: the half-life is absent, or is not the one of the nuclide that the item names.
    """
    name = tag_name("RadionuclideHalfLife")
    value = positive_number(tracer, "RadionuclideHalfLife", path)
    stated, own = stated_nuclide(tracer), nuclide_of_half_life(value)
    if own is not None and (stated is None or stated.has_half_life(value)):
        return value, stated or own
    candidates: tuple[Nuclide, ...] = NUCLIDES if stated is None else (stated,)
    if stated is None and _LIKELY_S[0] <= value <= _LIKELY_S[1]:
        candidates = ()
    units = [
        (unit, nuclide)
        for unit, seconds in _SECONDS_PER.items()
        for nuclide in candidates
        if nuclide.has_half_life(value * seconds)
    ]
    if len({unit for unit, _ in units}) == 1:
        unit, nuclide = units[0]
        lines.append(f"{path}: {name} is {value:g}, read as {unit}: the half-life of {nuclide}")
        return value * _SECONDS_PER[unit], nuclide
    if own is not None and stated is not None:
        lines.append(
            f"{path}: {name} is {value:g} s, the half-life of {own}, but the header names {stated}"
            f" ({stated.half_life_s:g} s); {own} is taken"
        )
        return value, own
    if stated is not None:
        raise MipError(
            f"{path}: {name} is {value:g}, but {stated} has {stated.half_life_s:g} s; correct the "
            "half-life or the radionuclide (0054,0300)"
        )
    if value < _LEAST_HALF_LIFE_S:
        raise MipError(f"{path}: {name} is {value:g}, which is no half-life in s; correct it")
    lines.append(f"{path}: {name} is {value:g} s, the half-life of no nuclide known in PET")
    return value, None
