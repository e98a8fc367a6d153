"""Radionuclides of PET: half-life, usual injected activity, names and codes in DICOM headers."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunetv2_mip.io.dicom.elements import text_or_none

if TYPE_CHECKING:
    from pydicom import Dataset

# Headers round half-lives: 6586 to 6600 s of fluorine-18, 4058 to 4098 s of gallium-68.
_HALF_LIFE_TOLERANCE = 0.025
_FDG = re.compile(r"fdg|fluoro-?d[eé]s?oxy-?glucose|fludeoxyglucose", re.IGNORECASE)


@dataclass(frozen=True)
class Nuclide:
    """A radionuclide.

    Attributes:
        symbol, name, mass: `F`, `Fluorine`, `18`; the mass of an isomer ends in m.
        half_life_s: half-life in s.
        codes: SNOMED CT and SRT code values of DICOM's CID 4020.
        usual_mbq_per_kg: lowest and highest usual activity, in MBq per kg of body weight.
        most_mbq: an activity above this is no injection of it, in MBq.
    """

    symbol: str
    name: str
    mass: str
    half_life_s: float
    codes: tuple[str, ...] = ()
    usual_mbq_per_kg: tuple[float, float] = (0.3, 30)
    most_mbq: float = 5000

    def __str__(self) -> str:
        return f"{self.name.lower()}-{self.mass}"

    def has_half_life(self, seconds: float) -> bool:
        """Whether a half-life is this nuclide's, but for rounding."""
        return abs(seconds / self.half_life_s - 1) < _HALF_LIFE_TOLERANCE

    def is_named_in(self, text: str) -> bool:
        """Whether a text has the nuclide: `18F`, `F-18`, `^18^Fluorine`, `FDG F^18^`."""
        element = f"(?:{self.symbol}|{self.name})"
        before = rf"(?<!\d){self.mass}\W{{0,3}}{element}(?![a-z])"
        after = rf"(?<![a-z]){element}\W{{0,3}}{self.mass}(?![\da-z])"
        return re.search(f"{before}|{after}", text, re.IGNORECASE) is not None


_HOUR, _DAY = 3600, 86400
# Usual MBq per kg and most MBq of nuclides that are injected for therapy.
_THERAPY, _THERAPY_MBQ = (5.0, 400.0), 50000.0
NUCLIDES = (
    Nuclide("F", "Fluorine", "18", 6586.2, ("77004003", "C-111A1"), (0.3, 20)),
    Nuclide("Ga", "Gallium", "68", 4062.6, ("35337001", "C-131A3"), (0.3, 10)),
    Nuclide("C", "Carbon", "11", 1221.8, ("40565003", "C-105A1")),
    Nuclide("N", "Nitrogen", "13", 597.9, ("21576001", "C-107A1")),
    Nuclide("O", "Oxygen", "15", 122.24, ("129504001", "C-B1038"), (0.3, 60)),
    Nuclide("Rb", "Rubidium", "82", 76.38, ("79197006", "C-159A2"), (1, 60)),
    Nuclide("Cu", "Copper", "61", 12020, ("71425003", "C-127A1")),
    Nuclide("Cu", "Copper", "62", 580.2, ("422934004", "C-127A5")),
    Nuclide("Cu", "Copper", "64", 45723, ("3932008", "C-127A2"), (0.3, 15)),
    Nuclide("Zr", "Zirconium", "89", 78.41 * _HOUR, ("63360001", "C-168A4"), (0.1, 5)),
    Nuclide("I", "Iodine", "124", 4.176 * _DAY, ("40937006", "C-114A5"), (0.1, 10)),
    Nuclide("Y", "Yttrium", "86", 14.74 * _HOUR, ("10738001", "C-162A3"), (0.3, 10)),
    Nuclide("Y", "Yttrium", "90", 64.1 * _HOUR, ("14691008", "C-162A7"), _THERAPY, _THERAPY_MBQ),
    Nuclide("Sc", "Scandium", "43", 14007, ("126605",), (0.3, 10)),
    Nuclide("Sc", "Scandium", "44", 14292, ("126600",), (0.3, 10)),
    Nuclide("Mn", "Manganese", "52", 5.591 * _DAY, ("37225000", "C-149A1")),
    Nuclide("Br", "Bromine", "76", 16.2 * _HOUR, ("79523006", "C-113A2")),
    Nuclide("Tb", "Terbium", "152", 17.5 * _HOUR, ("126606",)),
    Nuclide("Ga", "Gallium", "66", 9.49 * _HOUR, ("79477007", "C-131A1"), (0.3, 10)),
    Nuclide("Ge", "Germanium", "68", 270.9 * _DAY, ("53315004", "C-128A2")),
    Nuclide("Na", "Sodium", "22", 2.602 * 365.25 * _DAY, ("71633006", "C-155A1")),
    Nuclide("Lu", "Lutetium", "177", 6.647 * _DAY, (), _THERAPY, _THERAPY_MBQ),
    Nuclide("I", "Iodine", "131", 8.025 * _DAY, (), _THERAPY, _THERAPY_MBQ),
    Nuclide("Ho", "Holmium", "166", 26.8 * _HOUR, (), _THERAPY, _THERAPY_MBQ),
    Nuclide("Tc", "Technetium", "99m", 6.007 * _HOUR),
)


def stated_nuclide(tracer: "Dataset") -> Nuclide | None:
    """Nuclide that an item of an injection names, by its codes first; None if it names none known.

    Args:
        tracer: item of Radiopharmaceutical Information Sequence.
    """
    coded = list(tracer.get("RadionuclideCodeSequence") or [])
    for item in coded:
        for nuclide in NUCLIDES:
            if text_or_none(item, "CodeValue") in nuclide.codes:
                return nuclide
    texts = [text_or_none(item, "CodeMeaning") for item in coded]
    texts.append(text_or_none(tracer, "Radiopharmaceutical"))
    pharmaceuticals = tracer.get("RadiopharmaceuticalCodeSequence") or []
    texts.extend(text_or_none(item, "CodeMeaning") for item in pharmaceuticals)
    for text in texts:
        found = [nuclide for nuclide in NUCLIDES if text and nuclide.is_named_in(text)]
        if len(found) == 1:
            return found[0]
    if any(text and _FDG.search(text) for text in texts):
        return NUCLIDES[0]
    return None


def nuclide_of_half_life(seconds: float) -> Nuclide | None:
    """The one nuclide with a half-life; None if it is none's."""
    found = [nuclide for nuclide in NUCLIDES if nuclide.has_half_life(seconds)]
    return min(found, key=lambda n: abs(n.half_life_s - seconds)) if found else None
