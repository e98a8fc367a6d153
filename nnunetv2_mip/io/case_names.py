"""Names of cases: ASCII, not empty, distinct, and short enough for every file system.

What ASCII leaves of a folder's name may be nothing, or the same for two folders. A short hash of
the original name then tells them apart.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_TCIA_STUDY = re.compile(r"^(\d{2}-\d{2}-\d{4}|\d{4}-\d{2}-\d{2})\b.*-(\d+)$")
_REPLACED = re.compile(r"[^A-Za-z0-9-]+")
# File systems allow 255 bytes; endings and the names of unfinished files need the rest.
LONGEST = 200
_HASH_DIGITS = 8


def case_name(patient: str, study: str) -> str:
    """nnU-Net case name of a patient's and a study's folder (spaces, dots, … removed).

    `PETCT_0011f3deaf`, `03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689` →
    `PETCT_0011f3deaf_03-23-2003_04689`. Letters of other scripts are replaced by a hash of the
    name.
    """
    return case_name_of_folders([patient, study] if patient else [study])


def case_name_of_folders(names: Sequence[str]) -> str:
    """Case name of folders, from the outer to the inner; TCIA's study folders are shortened."""
    name = "_".join(safe_name(shortened(part)) for part in names)
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - _HASH_DIGITS - 1]}_{name_hash('/'.join(names))}"
    return name


def shortened(study: str) -> str:
    """Date and number of a TCIA study folder; any other name as it is."""
    match = _TCIA_STUDY.match(study)
    return "_".join(match.groups()) if match else study


def safe_name(text: str) -> str:
    """ASCII letters, digits, `-` and `_` of a name; never empty."""
    kept = _REPLACED.sub("_", text).strip("_")
    if keeps_letters(text):
        return kept
    return f"{kept}_{name_hash(text)}".strip("-_")


def name_hash(text: str) -> str:
    """Eight hexadecimal digits of a name, the same for composed and decomposed accents."""
    composed = unicodedata.normalize("NFC", text).encode("utf-8", "surrogateescape")
    return hashlib.sha256(composed).hexdigest()[:_HASH_DIGITS]


def distinct_names(names: Sequence[str], originals: Sequence[str]) -> list[str]:
    """Names in the same order, where equal ones get a hash of the original they stand for."""
    counts = Counter(names)
    found = []
    for name, original in zip(names, originals):
        if counts[name] > 1:
            digest = hashlib.sha256(original.encode("utf-8", "surrogateescape")).hexdigest()
            name = f"{name[: LONGEST - _HASH_DIGITS - 1]}_{digest[:_HASH_DIGITS]}"
        found.append(name)
    return found


def keeps_letters(text: str) -> bool:
    """Whether `safe_name` needs no hash."""
    return bool(_REPLACED.sub("_", text).strip("-_")) and not _loses_letters(text)


def _loses_letters(text: str) -> bool:
    """Whether letters or digits are lost that are not Latin (`ä` is near enough to `_`)."""
    return any(
        letter.isalnum()
        and not letter.isascii()
        and not unicodedata.name(letter, "").startswith("LATIN")
        for letter in unicodedata.normalize("NFKD", text)
    )
