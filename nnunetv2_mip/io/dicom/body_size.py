"""Body weight of a patient, and SUV of other body sizes (lean mass, ideal weight, surface).

The formulas are those of DICOM's SUV units (PS3.16, CID 85) and of IBSI's manual on SUV: lean body
mass by James (factors 120 and 128) and by Janmahasatian (Clin Pharmacokinet 2005), ideal body
weight and body surface (Du Bois) as of Sugawara (Radiology 1999). Weights in kg, heights in cm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.elements import (
    positive_number,
    positive_or_none,
    stated_text,
    text_or_none,
)
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.series import tag_name

if TYPE_CHECKING:
    from pydicom import Dataset

# From a newborn to the load of a scanner's table; lighter ones (animals) are read with a line.
_LEAST_KG, _USUAL_KG, _MOST_KG = 0.01, 1.0, 300.0
_LEAST_CM, _MOST_CM = 30.0, 250.0
# Body mass index, kg/m²: outside of it a weight or a height is doubted.
_LEAST_BMI, _MOST_BMI = 8.0, 45.0
_POUND_KG, _INCH_CM = 0.45359237, 2.54
_WEIGHT_REMEDY = "; give it with --weight_kg"


@dataclass(frozen=True)
class BodySize:
    """Body size that SUV can be normalised by.

    Attributes:
        description: for people.
        men, women: size of (weight in kg, height in cm); in kg, the surface in kg of 10 cm².
    """

    description: str
    men: Callable[[float, float], float]
    women: Callable[[float, float], float]


def _janmahasatian(slope: float, intercept: float) -> Callable[[float, float], float]:
    return lambda kg, cm: 9270 * kg / (intercept + slope * _bmi(kg, cm))


def _surface(kg: float, cm: float) -> float:
    """Body surface in units of 1000 cm², so that SUV (cm²/ml) times kg over it is SUV (g/ml)."""
    return 71.84 * kg**0.425 * cm**0.725 / 1000


def _lean_women(kg: float, cm: float) -> float:
    return 1.07 * kg - 148 * (kg / cm) ** 2


# SUV Type (0054,1006).
BODY_SIZES = {
    "LBM": BodySize(
        "lean body mass (James)", lambda kg, cm: 1.1 * kg - 120 * (kg / cm) ** 2, _lean_women
    ),
    "LBMJAMES128": BodySize(
        "lean body mass (James 128)", lambda kg, cm: 1.1 * kg - 128 * (kg / cm) ** 2, _lean_women
    ),
    "LBMJANMA": BodySize(
        "lean body mass (Janmahasatian)", _janmahasatian(216, 6680), _janmahasatian(244, 8780)
    ),
    "IBW": BodySize(
        "ideal body weight",
        lambda kg, cm: 48 + 1.06 * (cm - 152),
        lambda kg, cm: 45.5 + 0.91 * (cm - 152),
    ),
    "BSA": BodySize("body surface area", _surface, _surface),
}


def body_weight_kg(header: "Dataset", path: Path, options: DicomOptions, lines: list[str]) -> float:
    """Body weight in kg; what was changed or is doubtful is added to `lines`.

    Raises:
        MipError: the weight is absent, or is a body weight in no unit; names the element or the
            option.
    """
    name = tag_name("PatientWeight")
    if options.weight_kg is not None:
        if not _LEAST_KG <= options.weight_kg <= _MOST_KG:
            raise MipError(
                f"--weight_kg is {options.weight_kg:g}; a body weight is {_LEAST_KG:g} to "
                f"{_MOST_KG:g} kg"
            )
        lines.append(
            f"{path}: weight {options.weight_kg:g} kg of --weight_kg instead of "
            f"{stated_text(header, 'PatientWeight')}"
        )
        _doubt_body_mass(header, path, options.weight_kg, lines)
        return options.weight_kg
    value = positive_number(header, "PatientWeight", path, _WEIGHT_REMEDY)
    if 1000 * _USUAL_KG <= value <= 1000 * _MOST_KG:
        lines.append(f"{path}: {name} is {value:g}, read as g: {value / 1000:g} kg")
        value /= 1000
    elif not _LEAST_KG <= value <= _MOST_KG:
        raise MipError(
            f"{path}: {name} is {value:g}, which is no body weight in kg (at most {_MOST_KG:g})"
            + _WEIGHT_REMEDY
        )
    elif value < _USUAL_KG:
        lines.append(f"{path}: {name} is {value:g} kg, less than of a newborn{_WEIGHT_REMEDY}")
    _doubt_body_mass(header, path, value, lines)
    return value


def _doubt_body_mass(header: "Dataset", path: Path, kg: float, lines: list[str]) -> None:
    """A line where weight and height do not fit: pounds, or digits that were exchanged."""
    stated = positive_or_none(header, "PatientSize", path)
    cm = None if stated is None else _height_cm(stated, kg)
    if cm is None or _LEAST_BMI <= _bmi(kg, cm) <= _MOST_BMI:
        return
    pounds = _LEAST_BMI <= _bmi(kg * _POUND_KG, cm) <= _MOST_BMI and kg > 80
    lines.append(
        f"{path}: weight {kg:g} kg and height {cm / 100:g} m give a body mass index of "
        f"{_bmi(kg, cm):.0f}" + ("; is the weight in pounds?" if pounds else "; is one wrong?")
    )


def _bmi(kg: float, cm: float) -> float:
    return kg / (cm / 100) ** 2


def _height_cm(value: float, kg: float) -> float | None:
    """Height in cm of a number in m, cm, mm or inches; None where it is none of them."""
    if _LEAST_CM <= 100 * value <= _MOST_CM:
        return 100 * value
    possible = [cm for cm in (value, value / 10) if _LEAST_CM <= cm <= _MOST_CM]
    inches = value * _INCH_CM
    if _LEAST_CM <= inches <= _MOST_CM and _LEAST_BMI <= _bmi(kg, inches) <= _MOST_BMI:
        possible.append(inches)
    if len(possible) > 1:
        possible = [cm for cm in possible if _LEAST_BMI <= _bmi(kg, cm) <= _MOST_BMI]
    return possible[0] if len(possible) == 1 else None


def body_weight_factor(
    kind: str, header: "Dataset", path: Path, options: DicomOptions, lines: list[str]
) -> float:
    """SUV by body weight over SUV by another body size.

    Args:
        kind: key of `BODY_SIZES`.

    Raises:
        MipError: weight, height or sex is absent or impossible; names the element.
    """
    size = BODY_SIZES[kind]
    why = f"; SUV by {size.description} ({tag_name('SUVType')}) is converted with it"
    remedy = why + "; correct the element or export the series in Bq/ml"
    kg = body_weight_kg(header, path, options, lines)
    stated = positive_number(header, "PatientSize", path, remedy)
    cm = _height_cm(stated, kg)
    if cm is None:
        raise MipError(f"{path}: {tag_name('PatientSize')} is {stated:g}, no height in m{remedy}")
    if abs(100 * stated - cm) > 0.01:
        lines.append(
            f"{path}: {tag_name('PatientSize')} is {stated:g}, which is no height in m; read as "
            f"{cm / 100:.3g} m"
        )
    sex = (text_or_none(header, "PatientSex") or "absent").upper()
    values = {"M": [size.men], "F": [size.women], "O": [size.men, size.women]}.get(sex)
    if size.men is size.women:
        values = [size.men]
    if values is None:
        raise MipError(f"{path}: {tag_name('PatientSex')} is {sex}; M, F or O is needed{remedy}")
    normal = sum(value(kg, cm) for value in values) / len(values)
    if normal <= 0:
        raise MipError(
            f"{path}: weight {kg:g} kg and height {cm / 100:g} m have no {size.description}{remedy}"
        )
    mean = " (mean of the formulas of men and women)" if len(values) > 1 else ""
    lines.append(
        f"{path}: SUV by {size.description} is converted to SUV by body weight: weight {kg:g} kg, "
        f"height {cm / 100:.3g} m, sex {sex}{mean}, × {kg / normal:.4g}"
    )
    return kg / normal
