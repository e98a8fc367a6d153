"""Choice of the lesions among the segments of a SEG, or the ROIs of an RTSTRUCT, by their names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_mip.errors import MipError

_LESION = re.compile(
    r"lesion|läsion|lésion|tumou?r|neoplas|metasta|\bmets?\b|gtv|cancer|carcino|malign|lymphom"
    r"|melanom|sarcom|\bmtv|nodul|\bmass\b|病灶|病変|腫瘍|肿瘤"
)
# Volumes around a tumour, and organs without it (Lung-GTV).
_AROUND = re.compile(
    r"\b(ptv|ctv|itv)|\bring\b|shell|margin|\bexp\b|\+ *\d|\bnon?\b|without|healthy|normal|physiol"
    r"|benign|background"
)
_MINUS = re.compile(r"[a-zà-ž]{4,}s? *(-|minus|\\) *i?(gtv|ctv|ptv)")
_ORGAN = re.compile(
    r"body|external|extern\b|\bskin\b|outline|couch|table|bolus|support|marker|isocent|organ|liver"
    r"|lung|heart|cardi|myocard|brain|cereb|\bcord\b|spinal|parotid|kidney|renal|bladder|spleen"
    r"|bone|bowel|stomach|gastr|esoph|thyroid|rectum|prostate|femor|femur|\beyes?\b|\blens\b|optic"
    r"|chiasm|mandib|larynx|pharynx|trachea|aorta|muscle|vertebra|pancreas|colon|intestin|gland"
    r"|blood|oral|breast|uter|ovar|testi|tongue|\brib|pelvi|sacrum|hippoc|cochlea|brachial|carotid"
)
_NUMBERED = re.compile(
    r"(roi|voi|region|contour|segment|segmentation|label|structure|object|mask|unnamed)?[ _#-]*\d*"
)


@dataclass(frozen=True)
class NamedRegion:
    """A segment or ROI.

    Attributes:
        number: of the segment or ROI.
        name: for people.
        says: what its codes say: `lesion`, `other`, or nothing.
        words: further text of its codes.
    """

    number: int
    name: str
    says: str = ""
    words: str = ""

    @property
    def kind(self) -> str:
        """`lesion`, `other` (organ, body, margin), `numbered` (no name), or `unknown`."""
        name = re.sub(r"[_\s]+", " ", self.name).strip().lower()
        if _AROUND.search(name) or _MINUS.search(name):
            return "other"
        if _LESION.search(name) or self.says == "lesion":
            return "lesion"
        if _ORGAN.search(name) or _ORGAN.search(self.words.lower()) or self.says == "other":
            return "other"
        if _LESION.search(self.words.lower()):
            return "lesion"
        return "numbered" if _NUMBERED.fullmatch(name) else "unknown"


def choose_lesions(
    regions: Sequence[NamedRegion], noun: str, path: Path, warn: Callable[[str], None]
) -> set[int]:
    """Numbers of the regions that are lesions.

    Args:
        regions: all of the file.
        noun: `segment` or `ROI`, for messages.
        path: of the file.
        warn: gets a line where others are left out, or a name says nothing of lesions.

    Raises:
        MipError: it is not clear which are lesions, or none is; names them.
    """
    if not regions:
        raise MipError(f"{path}: holds no {noun}")
    by_kind: dict[str, list[NamedRegion]] = {}
    for region in regions:
        by_kind.setdefault(region.kind, []).append(region)
    if "lesion" in by_kind:
        chosen = by_kind["lesion"]
        left = [region for region in regions if region not in chosen]
        if left:
            warn(f"{path}: takes {_names(chosen)} as lesions, leaves out {_names(left)}")
        return {region.number for region in chosen}
    if set(by_kind) == {"numbered"}:
        return {region.number for region in regions}
    if len(regions) == 1 and "unknown" in by_kind:
        warn(f"{path}: takes its only {noun} {_names(regions)} as lesions")
        return {regions[0].number}
    raise MipError(
        f"{path}: which {noun}s are lesions is not clear from {_names(regions)}; keep the lesions "
        f"alone in the file, or name their {noun}s Lesion 1, Lesion 2, …"
    )


def _names(regions: Sequence[NamedRegion]) -> str:
    shown = ", ".join(repr(region.name) for region in regions[:8])
    return shown + (f", … ({len(regions)} in all)" if len(regions) > 8 else "")
