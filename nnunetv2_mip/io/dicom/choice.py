"""Choice of the PET series of a study: usable ones first, then ranked.

What scanners and archives store as PET besides the study itself: series without attenuation
correction, other reconstructions, single beds, reformats, gated and dynamic frames, MIPs, captures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import archives_hint
from nnunetv2_mip.io.dicom.find_series import Series, find_series
from nnunetv2_mip.io.dicom.options import DicomOptions

# Lengths that differ by less are one length.
_SAME_LENGTH = 0.1
# Distances of slices that differ by less are one distance.
_SAME_GAP = 0.05
_REMEDY = "name one with --series UID"


@dataclass(frozen=True)
class Choice:
    """Series of a study, and what was left out.

    Attributes:
        series: the series taken.
        warnings: lines for the user: others that could be meant.
    """

    series: Series
    warnings: tuple[str, ...] = ()


def pet_series(found: Sequence[Series], folder: Path) -> list[Series]:
    """PET series among the series of a folder.

    Raises:
        MipError: there is none.
    """
    pets = [item for item in found if item.modality == "PT"]
    if not pets:
        there = ", ".join(sorted({item.modality for item in found})) or "no DICOM series at all"
        raise MipError(
            f"{folder}: holds no PET series (Modality PT); there is: {there}{archives_hint(folder)}"
        )
    return pets


def named_series(pets: Sequence[Series], folder: Path, uids: Sequence[str]) -> list[Series]:
    """The series of these UIDs.

    Raises:
        MipError: there is none of a UID.
    """
    known = {item.uid: item for item in pets}
    missing = [uid for uid in uids if uid not in known]
    if missing:
        raise MipError(f"{folder}: has no PET series {missing[0]}; there is: {_list(pets)}")
    return [known[uid] for uid in dict.fromkeys(uids)]


def options_of_folders(
    options: DicomOptions, folders: Sequence[Path], tree: Path | str
) -> dict[Path, DicomOptions]:
    """Options of each study of a tree: a named series belongs to the study that has it.

    Args:
        options: what the user says.
        folders: of the DICOM studies.
        tree: holds them, for messages.

    Raises:
        MipError: options, but no DICOM study; a weight, dose or injection for several; a series
            that no study has.
    """
    if options and not folders:
        options.require_dicom(tree)
    options.require_one_study(len(folders), tree)
    if not options.series:
        return dict.fromkeys(folders, options)
    uids = {folder: {item.uid for item in find_series(folder)} for folder in folders}
    for uid in options.series:
        if not any(uid in there for there in uids.values()):
            raise MipError(f"{tree}: no DICOM study has the series {uid} of --series")
    return {
        folder: replace(options, series=tuple(uid for uid in options.series if uid in there))
        for folder, there in uids.items()
    }


def choose_pet(pets: Sequence[Series], folder: Path) -> Choice:
    """PET series of one study that is meant.

    Stacks of slices are taken before others; then attenuation corrected, in units of activity or
    SUV, not gated or dynamic, original, axial ones; then the one that covers most of the body; of
    equal lengths the one with more slices. A series that is broken is not passed over in silence.

    Args:
        pets: PET series of one study.
        folder: for messages.

    Raises:
        MipError: none is usable, the best is broken, or several could be meant.
    """
    volumes = [item for item in pets if item.is_volume]
    if not volumes:
        if len(pets) == 1:
            raise MipError(pets[0].problem)
        raise MipError(f"{folder}: holds no PET series of slices: {_list(pets)}; {pets[0].problem}")
    ranked = sorted(volumes, key=_class, reverse=True)
    best = [item for item in ranked if _class(item) == _class(ranked[0])]
    longest = max(item.extent_mm for item in best)
    equal = [item for item in best if item.extent_mm >= (1 - _SAME_LENGTH) * longest]
    finest = min(item.gap_mm for item in equal)
    like = [item for item in equal if item.gap_mm <= (1 + _SAME_GAP) * finest]
    if not all(item.corrections for item in best):
        # The longest may be the one without attenuation correction.
        like = best
    if len(like) > 1:
        raise MipError(
            f"{folder}: holds {len(like)} PET series that could be meant; {_REMEDY}, or give a "
            f"folder with one of them: {_list(like)}"
        )
    taken = like[0]
    if taken.problem:
        others = [item for item in volumes if not item.problem]
        more = f"; or {_REMEDY}: {_list(others)}" if others else ""
        raise MipError(f"{taken.problem}{more}")
    left = [item for item in volumes if item is not taken and _may_be_meant(item, taken)]
    if not left:
        return Choice(taken)
    line = (
        f"{folder}: the PET series {taken.describe()} is read; left out: {_list(left)}; --series "
        "UID takes another"
    )
    return Choice(taken, (line,))


def choose_ct(fitting: Sequence[Series], folder: Path) -> Choice | None:
    """CT of a PET among the series of its frame of reference; None where there is none.

    Stacks of slices are taken before others, then original and axial ones, then the one that covers
    most of the body, then the one with more slices.
    """
    if not fitting:
        return None
    ranked = sorted(
        fitting,
        key=lambda item: (*_ct_class(item), round(item.extent_mm, 1), len(item.files)),
        reverse=True,
    )
    taken, *others = ranked
    left = [item for item in others if _ct_class(item) == _ct_class(taken)]
    if not left:
        return Choice(taken)
    line = f"{folder}: the CT series {taken.describe()} is read; left out: {_list(left)}"
    return Choice(taken, (line,))


def _ct_class(item: Series) -> tuple[bool, ...]:
    return item.stack is not None, item.is_original, item.is_axial


def _class(item: Series) -> tuple[bool, ...]:
    """What makes a series better whatever its length."""
    is_broken = item.stack is None
    return (
        "ATTN" in item.corrections,
        not item.is_relative,
        not item.is_repeated,
        item.is_original,
        item.is_axial or is_broken,
    )


def _may_be_meant(item: Series, taken: Series) -> bool:
    """Whether a series could be meant instead: images without correction beside others are not."""
    return "ATTN" in item.corrections or "ATTN" not in taken.corrections


def _list(items: Sequence[Series]) -> str:
    return "; ".join(item.describe() for item in items)
