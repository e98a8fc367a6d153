"""Meaning of a folder's or a study's name: patient, study of a patient, centre, group of patients.

Dates, time points, sessions and UIDs name studies. Modalities and file formats name what a study
holds. Both lie below the patient, or above it where a tree is sorted by them.
"""

import re
import unicodedata
from enum import Enum
from functools import lru_cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _longest_first(word: str) -> tuple[int, str]:
    return -len(word), word


_GAP = r"[ _.,()+-]*"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0[1-9]|1[0-2])"
_MONTH_NAME = r"(?:jan|feb|mar|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez)[a-z]*"
_YEAR = r"(?:19|20)\d{2}"
_DATE = (
    rf"(?:{_YEAR}(?P<a>[-_. ]?){_MONTH}(?P=a)(?:0[1-9]|[12]\d|3[01])(?:[t_ -]?[0-2]\d[0-5]\d"
    rf"(?:[0-5]\d)?)?|{_DAY}(?P<b>[-_. ]){_DAY}(?P=b)(?:{_YEAR}|\d{{2}})"
    rf"|{_YEAR}[-_. ]{_MONTH}|{_DAY}?[-_. ]?{_MONTH_NAME}[-_. ]?{_YEAR}"
    rf"|{_YEAR}[-_. ]?{_MONTH_NAME}(?:[-_. ]?{_DAY})?|{_YEAR})(?!\d)"
)
_UID = r"\d+(?:\.\d+){4,}"
# Folder of a series in a TCIA download: `300.000000-Segmentation-99531`.
TCIA_SERIES = re.compile(r"^\d+\.\d{6}-")
_TIME_WORDS = _words(
    "baseline base bl followup follow fu up ses session day week month year scan scans visit "
    "exam examination study studies tp timepoint timepoints time point pre post interim "
    "initial primary first second third fourth screening staging restaging eot eos recurrence "
    "relapse treatment therapy chemo radiotherapy rt response before after early late delayed "
    "retest acq acquisition repeat rescan accession cycle nadir progression run "
    "erstuntersuchung verlauf kontrolle vor nach na"
)
_TRACERS = _words(
    "fdg psma dota dotatate dotatoc dotanoc fapi fes flt fet naf choline fluciclovine mibg dopa"
)
_CONTENT_WORDS = _words(
    "pet pt ct petct ctpet suv suvbw nifti nii nifty dicom dicoms dcm mr mri mrt spect "
    "spectct ac nac wb wholebody whole body ganzkoerper ganzkorper ganzkörper series serie "
    "recon reconstruction image images imaging img imgs anat func ga68 f18 18f 68ga cu64 zr89 "
    "tracer tracers mask masks seg segmentation label labels data files scandata ims "
    "converted mhd mha nrrd"
).union(_TRACERS)
_GROUP_WORDS = _words(
    "train training tr ts test testing val valid validation holdout split fold batch cohort "
    "cohorts group groups arm control controls healthy negative positive negatives positives "
    "patient patients subject subjects case cases raw rawdata sourcedata derivatives dataset "
    "datasets collection download downloads export exports part manifest lymphoma melanoma "
    "lung cancer tumor tumour none all scanner vendor"
)
_CENTRE = re.compile(
    r"^(?:centre|center|centrum|zentrum|site|hospital|clinic|klinik|klinikum|institution|institute"
    r"|inst|uni|university|krankenhaus)(?:[ _-][a-z0-9]{1,12}|[a-z]|\d{1,4})?$"
)
_PATIENT = re.compile(
    r"^(?:sub-.+|petct_.+|(?:(?:patient|patients|pat|pt|subject|subj|sub|case|person|proband|"
    r"volunteer|animal|mouse|rat|id)[ _.-]{0,2}[a-z]{0,3}|p[ _.-]{0,2})\d[a-z0-9]*)$"
)
# Letters and a number of several digits: NSCLC-001.
_NUMBERED = re.compile(r"^(?:[a-z]{2,}(?:[ _-][a-z]{1,12})*[ _-]?\d{2,}|[a-z]-?\d{3,})$")
_TIME_WORD = "|".join(sorted(_TIME_WORDS, key=_longest_first))
# A single letter means a time point with its number alone: t1, d28, w4, v2, c2d1.
_SINGLE = r"(?:[tdwv]|tp)[ _.-]?\d{1,3}|c\d{1,2}d\d{1,2}"
_TIME = rf"(?:{_SINGLE}|(?:{_TIME_WORD})(?:[ _.-]?\d{{1,3}}|[ _.-][a-z](?![a-z0-9]))?)"
_CONTENT_WORD = "|".join(sorted(_CONTENT_WORDS, key=_longest_first))
# pt12 is a patient, PT a modality.
_CONTENT = rf"(?:(?!pt[ _.-]?\d)(?:{_CONTENT_WORD})(?:[ _.-]?\d{{1,4}})?)"
_WORD_END = r"(?![a-z0-9])"
_STUDY_PART = re.compile(rf"(?:{_UID}|{_DATE}|{_TIME}){_WORD_END}")
_CONTENT_PART = re.compile(rf"{_CONTENT}{_WORD_END}")
_NUMBER_PART = re.compile(rf"\d{{1,3}}{_WORD_END}")
_DATE_FIRST = re.compile(rf"^{_DATE}{_WORD_END}")
_SUFFIX = re.compile(rf"[ _.-]+(?:{_UID}|{_DATE}|{_TIME}|{_CONTENT})$")
_PREFIX = re.compile(rf"^(?:{_UID}|{_DATE}|{_TIME}|{_CONTENT})[ _.-]+(?=.)")
_REPEAT_NUMBER = re.compile(r"^(.*\d.*)[ _-]\d{1,2}$")


class Kind(Enum):
    """What a name in a path stands for."""

    STUDY = "a study of a patient: a date, a time point, a UID"
    CONTENT = "what a study holds: a modality, a tracer, a format"
    CENTRE = "a centre, whose patients have names of their own"
    GROUP = "a group of patients: a part of a data set"
    PATIENT = "a patient, by a word for it"
    UNKNOWN = "anything"


@lru_cache(maxsize=1 << 16)
def kind_of(name: str) -> Kind:
    """Meaning of a folder's name."""
    text = _folded(name)
    if TCIA_SERIES.match(text):
        return Kind.CONTENT
    parts = _study_parts(text)
    if parts is not None:
        return Kind.STUDY if "study" in parts else Kind.CONTENT
    if _CENTRE.match(text):
        return Kind.CENTRE
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", text)]
    if words and all(word in _GROUP_WORDS for word in words) and not _PATIENT.match(text):
        return Kind.GROUP
    if _PATIENT.match(text):
        return Kind.PATIENT
    return Kind.STUDY if _DATE_FIRST.match(text) else Kind.UNKNOWN


def is_numbered(name: str) -> bool:
    """Whether a name is like a patient's in a study: a word of its own, or letters and a number."""
    return kind_of(name) is Kind.PATIENT or _NUMBERED.match(_folded(name)) is not None


def is_tracer(name: str) -> bool:
    """Whether a name is that of a tracer: `fdg`, `psma`, …."""
    return _folded(name) in _TRACERS


def is_short_number(name: str) -> bool:
    """Whether a name is a number of one or two digits, as studies of a patient are counted."""
    return re.fullmatch(r"\d{1,2}", name) is not None


def patient_in_name(name: str) -> tuple[str, bool]:
    """Patient in the name of a study, and whether the rest of the name tells the study.

    Dates, time points, modalities and counts are taken off both ends: `P1_baseline` → `P1`. A name
    of nothing else stays whole.
    """
    start, end = 0, len(name)
    text = _folded(name)
    if len(text) != len(name):
        # Letters that fold to several ones: positions would not fit.
        text = name.lower() if len(name.lower()) == len(name) else name
    while found := _SUFFIX.search(text[start:end]):
        end = start + found.start()
    while found := _PREFIX.search(text[start:end]):
        start += found.end()
    left, counted = name[start:end], _REPEAT_NUMBER.match(name[start:end])
    if counted and kind_of(counted[1]) in (Kind.PATIENT, Kind.UNKNOWN):
        return counted[1], True
    if not any(letter.isalnum() for letter in left):
        return name, False
    rest = (_study_parts(text[:start]) or set()) | (_study_parts(text[end:]) or set())
    return left, "study" in rest


def _study_parts(text: str) -> set[str] | None:
    """Kinds of the parts of a name, or None where one part is of neither."""
    found, place = set(), 0
    gap = re.compile(_GAP)
    while place < len(text):
        here = gap.match(text, place)
        place = here.end() if here else place
        if place == len(text):
            break
        for kind, pattern in (
            ("study", _STUDY_PART),
            ("content", _CONTENT_PART),
            ("number", _NUMBER_PART),
        ):
            match = pattern.match(text, place)
            if match and match.end() > place:
                found.add(kind)
                place = match.end()
                break
        else:
            return None
    return found if found & {"study", "content"} else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
