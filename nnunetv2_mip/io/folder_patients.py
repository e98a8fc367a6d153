"""Patients by the names of folders: the level of a tree that is theirs.

Certain are TCIA's `PETCT_*` folders, BIDS's `sub-*` folders and the names of autoPET's
nnU-Net-style release. Elsewhere names are read by their meaning (`io.folder_words`): dates, time
points and UIDs are studies, the level above them is the patient; centres and groups lie above the
patients. Where it stays unclear the larger group is taken: a patient too many in one fold does no
harm, one in two folds does.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nnunetv2_mip.io.folder_words import (
    Kind,
    is_numbered,
    is_short_number,
    is_tracer,
    kind_of,
    patient_in_name,
)

_TCIA_PATIENT, _BIDS_PATIENT = "PETCT_", "sub-"
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Owner:
    """Patient of a study by the names of its folders.

    Attributes:
        patient: name; None where no folder names one.
        level: index of the patient's folder in the path; -1 without one.
        certain: whether the layout says so.
        decided: whether a level below the patient was recognised as that of the studies.
        first: index of the folder that names of cases begin with.
    """

    patient: str | None
    level: int = -1
    certain: bool = False
    decided: bool = False
    first: int = 0


def owners_by_folders(paths: Sequence[tuple[str, ...]]) -> tuple[list[Owner], str]:
    """Patients of studies by their paths, and why two levels could be the patients (or "")."""
    found = [_marked(parts) for parts in paths]
    generic = [parts for parts, owner in zip(paths, found) if owner is None]
    studies_at, doubt = _study_levels(generic)
    root = _common_root(generic)
    owners = [owner or _read_folders(parts, studies_at, root) for parts, owner in zip(paths, found)]
    # What lies below the folder of a patient is of that patient, whatever its name.
    owned = {
        parts[: owner.level + 1]: owner
        for parts, owner in zip(paths, owners)
        if owner.patient is not None
    }
    for index, parts in enumerate(paths):
        above = [parts[:end] for end in range(1, len(parts)) if parts[:end] in owned]
        if above and not owners[index].certain:
            owners[index] = replace(owned[above[0]], decided=owners[index].decided)
    return owners, doubt


def owner_in_release(name: str) -> Owner:
    """Patient in the name of a case of an nnU-Net-style release."""
    parts = name.split("_", 2)
    if len(parts) == 3 and (is_tracer(parts[0]) or name.startswith(_TCIA_PATIENT)):
        return Owner("_".join(parts[:2]), 0, certain=True, decided=True)
    if name.startswith(_BIDS_PATIENT):
        return Owner(parts[0], 0, certain=True, decided=True)
    return _read_folders((name,), set(), 0)


def owner_of_image(name: str) -> Owner:
    """Patient of a DM-i-AI image: of its own, unless the name tells a study (`P1_baseline`)."""
    patient, tells_study = patient_in_name(name)
    return Owner(patient if tells_study else name, 0, certain=True, decided=True)


def is_marked(name: str) -> bool:
    """Whether a folder's name says that it is a patient's, in TCIA's tree or in BIDS."""
    return name.startswith((_TCIA_PATIENT, _BIDS_PATIENT))


def _marked(parts: tuple[str, ...]) -> Owner | None:
    """Patient of a path that TCIA's or BIDS's folders name."""
    for level in range(len(parts) - 1, -1, -1):
        if parts[level].startswith(_TCIA_PATIENT):
            return Owner(parts[level], level, certain=True, decided=True, first=level)
    for level, part in enumerate(parts):
        if part.startswith(_BIDS_PATIENT):
            # BIDS joins entities by _ where they are no folders: sub-01_ses-02.
            centre = _centre(parts, level)
            name = _of_centre(parts, level, part.split("_")[0])
            first = level if centre is None else centre
            return Owner(name, level, certain=True, decided=True, first=first)
    return None


def _centre(parts: tuple[str, ...], level: int) -> int | None:
    return next((i for i in range(level) if kind_of(parts[i]) is Kind.CENTRE), None)


def _of_centre(parts: tuple[str, ...], level: int, patient: str) -> str:
    """Patient with the centre above, whose patients may have the numbers of another's."""
    centre = _centre(parts, level)
    return patient if centre is None else f"{parts[centre]}_{patient}"


def _study_levels(paths: Sequence[tuple[str, ...]]) -> tuple[set[int], str]:
    """Levels of studies by names that come again below other folders, and the doubt about them.

    `baseline` in a language that is not known here lies below every patient. Where there are about
    as many such names as folders, the names could as well be patients and the folders time points.
    """
    studies: set[int] = set()
    doubt = ""
    for level in range(1, max((len(parts) for parts in paths), default=0)):
        above: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        for parts in paths:
            if len(parts) > level and kind_of(parts[level]) is Kind.UNKNOWN:
                above[parts[level]].add(parts[:level])
        folders = {path[-1] for paths_above in above.values() for path in paths_above}
        known = [kind_of(name) not in (Kind.UNKNOWN, Kind.PATIENT) for name in folders]
        if all(known) or not any(len(found) > 1 for found in above.values()):
            continue
        counted = all(map(is_short_number, above)) or all(map(is_numbered, folders))
        if len(above) > max(1, len(folders) // 2) and not counted:
            doubt = doubt or (
                f"names such as {_few(sorted(above))} lie in several of the folders "
                f"{_few(sorted(folders))}: either could be the patients"
            )
        studies.add(level)
    return studies, doubt


def _common_root(paths: Sequence[tuple[str, ...]]) -> int:
    """Number of outer folders that all studies share and that leave two levels or more."""
    root = 0
    while paths and all(
        len(parts) > root + 2 and parts[: root + 1] == paths[0][: root + 1] for parts in paths
    ):
        root += 1
    return root


def _read_folders(parts: tuple[str, ...], studies_at: set[int], root: int) -> Owner:
    """Patient of a path by the meaning of its names."""
    kinds = [kind_of(part) for part in parts]
    end, decided = len(parts), False
    while end > 0:
        level = end - 1
        kind = kinds[level]
        number = is_short_number(parts[level]) and level > 0
        counted = number and kinds[level - 1] in (Kind.UNKNOWN, Kind.PATIENT)
        if kind is Kind.STUDY or (kind is Kind.UNKNOWN and (level in studies_at or counted)):
            decided = True
        elif kind is not Kind.CONTENT:
            break
        end = level
    if not end:
        return _in_study_name(parts, kinds)
    if end < len(parts) and all(kind in (Kind.CENTRE, Kind.GROUP) for kind in kinds[:end]):
        # Groups alone above: what looked like a study is the patient.
        end, decided = end + 1, False
        kinds[end - 1] = Kind.UNKNOWN
    named = [i for i in range(end) if kinds[i] in (Kind.UNKNOWN, Kind.PATIENT)]
    known = [i for i in named if kinds[i] is Kind.PATIENT]
    if known:
        level = known[0]
    elif decided:
        level = named[-1] if named else end - 1
    else:
        level = next((i for i in named if i >= root), named[-1] if named else end - 1)
    # A folder for the patient, and one for the study in it.
    decided = decided or (level < len(parts) - 1 and is_numbered(parts[level]))
    name, tells_study = patient_in_name(parts[level])
    return Owner(_of_centre(parts, level, name), level, decided=decided or tells_study)


def _in_study_name(parts: tuple[str, ...], kinds: Sequence[Kind]) -> Owner:
    """Patient of a path of studies' names alone, where one of these holds a patient's too."""
    for level, part in enumerate(parts):
        name, tells_study = patient_in_name(part)
        if name != part and is_numbered(name):
            return Owner(name, level, decided=tells_study)
    return Owner(None)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{shown}, …" if len(names) > _NAMES_SHOWN else shown
