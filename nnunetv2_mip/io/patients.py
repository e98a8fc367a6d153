"""Patients of the studies of a tree: who they are, and how sure that is.

They come from what the user says (`PatientOptions`), from PatientID of DICOM headers, or from the
names of the folders (`io.folder_patients`).
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.folder_patients import Owner
from nnunetv2_mip.wording import counted, part_of

# How `--assume_…` may be answered.
ONE_STUDY_PER_PATIENT, ONE_PATIENT = "one_study_per_patient", "one_patient"
REMEDY = (
    "say whose they are with --patients CSV (columns case,patient) or --patient_regex REGEX (its "
    "first group is the patient, in the path of a study: ^([^/]+) is the first folder)"
)
# Identities of DICOM headers that name nobody.
_NO_PATIENT_ID = re.compile(
    r"anon\w*|unknown|none|null|n/?a|0+|x+|test|patient|phantom|id|default|de-?identified|removed"
    r"|[-?.\s]*",
    re.IGNORECASE,
)
_EXAMPLES = 3


@dataclass(frozen=True)
class PatientOptions:
    """What the user says of the patients; at most one entry is set.

    Attributes:
        regex: searched in the path of a study; its first group (or the match) is the patient.
        table: CSV with the columns `case` (name of a case or path of a study) and `patient`.
        assume: `ONE_STUDY_PER_PATIENT` or `ONE_PATIENT`.
    """

    regex: str | None = None
    table: Path | None = None
    assume: str | None = None


@dataclass(frozen=True)
class Grouping:
    """How the studies of a tree were given to patients.

    Attributes:
        line: how many of whom, by what, with examples; empty where it is certain.
        question: why the user must be asked, with the options that answer; empty where not.
        warnings: lines for the user.
    """

    line: str = ""
    question: str = ""
    warnings: tuple[str, ...] = ()

    def require_answer(self) -> None:
        """Raise MipError where the patients must not be guessed."""
        if self.question:
            raise MipError(self.question)


@dataclass
class StudyPlace:
    """What is known of a study before its patient is.

    Attributes:
        case: name of the case.
        parts: folders of the study below the tree; of a release the name of the case.
        owner: by these.
        patient_id: PatientID of its DICOM headers, or empty.
    """

    case: str
    parts: tuple[str, ...]
    owner: Owner = field(default_factory=lambda: Owner(None))
    patient_id: str = ""


def give_patients(
    places: Sequence[StudyPlace], tree: Path, options: PatientOptions, doubt: str = ""
) -> tuple[list[str], Grouping]:
    """Patient of each study, and how they were found.

    Args:
        places: the studies.
        tree: the folder that was searched.
        options: of the user.
        doubt: of `owners_by_folders`.

    Raises:
        MipError: a table or expression that cannot be used, or that leaves a study out.
    """
    cases = [place.case for place in places]
    if options.regex is not None:
        patients = _by_regex(places, options.regex)
        return patients, Grouping(
            describe_patients(cases, patients, f"--patient_regex {options.regex}")
        )
    if options.table is not None:
        patients = _by_table(places, options.table)
        return patients, Grouping(describe_patients(cases, patients, str(options.table)))
    if options.assume == ONE_STUDY_PER_PATIENT:
        return cases, Grouping(describe_patients(cases, cases, "assumption, one study per patient"))
    name = tree.resolve().name
    if options.assume == ONE_PATIENT:
        patients = [name] * len(places)
        return patients, Grouping(
            describe_patients(cases, patients, "assumption, all of one patient")
        )
    return _guess(places, tree, name, doubt)


def _guess(
    places: Sequence[StudyPlace], tree: Path, name: str, doubt: str
) -> tuple[list[str], Grouping]:
    cases = [place.case for place in places]
    unowned = [place.case for place in places if place.owner.patient is None]
    alone = 0 < len(unowned) < len(places)
    by_folder = [place.owner.patient or (place.case if alone else name) for place in places]
    certain = all(place.owner.certain for place in places)
    ids = [
        ""
        if place.owner.certain or _NO_PATIENT_ID.fullmatch(place.patient_id)
        else place.patient_id
        for place in places
    ]
    unowned_ids = [key for key, place in zip(ids, places) if place.owner.patient is None]
    patients, how = by_folder, "the names of the folders"
    warnings: tuple[str, ...] = ()
    by_header = any(ids)
    if by_header:
        decided = [place.owner.decided or place.owner.certain for place in places]
        several = len(set(by_folder)) > 1
        if len(places) > 1 and len(set(ids)) == 1 and several:
            # One identity in all headers tells nothing apart.
            by_header = False
            warnings = (
                f"{tree}: PatientID is {ids[0]} in all DICOM headers, so patients are told apart "
                "by the folders",
            )
        else:
            patients = _joined(by_folder, ids, decided)
            how = "PatientID of the DICOM headers"
            certain = all(key or place.owner.certain for key, place in zip(ids, places))
            if not certain:
                how += " and the names of the folders"
    line = "" if certain else describe_patients(cases, patients, how)
    count, of = len(places), len(set(patients))
    decided_all = all(place.owner.decided or place.owner.certain for place in places)
    question = ""
    if count > 1 and not certain:
        if doubt and not by_header:
            question = f"{tree}: {doubt}; {REMEDY}"
        elif alone and (left := [case for case, key in zip(unowned, unowned_ids) if not key]):
            question = (
                f"{tree}: {part_of(len(left), count, 'study', 'lies')} in no patient's folder "
                "(for example "
                f"{_few(left)}); {REMEDY}"
            )
        elif of == count and not decided_all:
            question = (
                f"{tree}: holds {count} studies, and no name says which of them are of one "
                f"patient (for example {_few(cases)}); {REMEDY}, or say "
                "--assume_one_study_per_patient"
            )
        elif of == 1:
            question = (
                f"{tree}: holds {count} studies, by their names all of one patient "
                f"({patients[0]}; for example {_few(cases)}); {REMEDY}, or say "
                "--assume_one_patient or --assume_one_study_per_patient"
            )
    return patients, Grouping(line, question, warnings)


def _joined(by_folder: list[str], ids: list[str], decided: list[bool]) -> list[str]:
    """Patients of studies: one where PatientID is the same, or the folder of a patient is."""
    group = list(range(len(ids)))

    def first(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    seen: dict[tuple[str, str], int] = {}
    for index, (folder, key) in enumerate(zip(by_folder, ids)):
        if key:
            group[first(index)] = first(seen.setdefault(("id", key), index))
        if decided[index] or not key:
            group[first(index)] = first(seen.setdefault(("folder", folder), index))
    names: dict[int, set[str]] = defaultdict(set)
    for index, key in enumerate(ids):
        if key:
            names[first(index)].add(key)
    found = []
    for index, folder in enumerate(by_folder):
        of_group = names[first(index)]
        found.append(min(of_group) if of_group else folder)
    return found


def _by_regex(places: Sequence[StudyPlace], text: str) -> list[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise MipError(f"--patient_regex {text}: is no regular expression ({error})") from None
    found = []
    for place in places:
        path = "/".join(place.parts) or place.case
        match = pattern.search(path)
        patient = match and (match[1] if pattern.groups else match[0])
        if not patient:
            raise MipError(f"--patient_regex {text}: finds no patient in {path}")
        found.append(patient)
    return found


def _by_table(places: Sequence[StudyPlace], path: Path) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            # Spreadsheets of many countries write semicolons.
            separator = next((sign for sign in ",;\t" if sign in header), ",")
            names = [name.strip().strip('"').lower() for name in header.split(separator)]
            rows = list(csv.DictReader(stream, names, delimiter=separator, skipinitialspace=True))
    except FileNotFoundError:
        raise MipError(f"{path}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise MipError(f"{path}: cannot be read as CSV ({error})") from None
    if not rows or not {"case", "patient"} <= set(rows[0]):
        raise MipError(
            f"{path}: needs the columns case,patient, and a row for each study; it has "
            f"{', '.join(names)}, and {counted(len(rows), 'row')}"
        )
    known: dict[str, str] = {}
    for row in rows:
        case, patient = ((row[key] or "").strip() for key in ("case", "patient"))
        if case and patient and known.setdefault(case.strip("/"), patient) != patient:
            raise MipError(f"{path}: gives {case} to {known[case.strip('/')]} and to {patient}")
    found, missing = [], []
    for place in places:
        patient = known.get(place.case) or known.get("/".join(place.parts))
        if not patient:
            missing.append(place.case)
        found.append(patient or "")
    if missing:
        raise MipError(
            f"{path}: names no patient of {counted(len(missing), 'case')}: {_few(missing)}"
        )
    return found


def describe_patients(cases: Sequence[str], patients: Sequence[str], how: str) -> str:
    """`6 studies of 5 patients, by …; for example P1: P1_baseline, P1_followup; …`."""
    counts = Counter(patients)
    shown = sorted(counts, key=lambda patient: (-counts[patient], patient))[:_EXAMPLES]
    examples = "; ".join(
        f"{name}: {_few([case for case, patient in zip(cases, patients) if patient == name])}"
        for name in shown
    )
    studies = counted(len(cases), "study")
    people = counted(len(counts), "patient")
    return f"{studies} of {people}, by {how}; for example {examples}"


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_EXAMPLES])
    return f"{shown}, …" if len(names) > _EXAMPLES else shown
