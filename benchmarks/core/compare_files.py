"""Comparison of the files of two folders, byte by byte but for a short list of differences.

What may differ is named in `Allowed`, file by file; whatever else differs is a difference.
"""

import csv
import gzip
import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

EQUAL, ALLOWED, DIFFERENT = "equal", "equal but for allowed", "different"
SHOWN_LINES, SHOWN_LETTERS = 3, 160
# nnU-Net names a log after the second in which the training began.
LOG_NAME = re.compile(r"training_log_[\d_]+\.txt$")
# Of a DICOM SEG: identifiers that are drawn anew each time, the moment, and who wrote it.
DICOM_ELEMENTS = {
    "AlgorithmVersion",
    "ContentDate",
    "ContentTime",
    "ContributionDateTime",
    "DimensionOrganizationUID",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "MediaStorageSOPInstanceUID",
    "SOPInstanceUID",
    "SeriesDate",
    "SeriesInstanceUID",
    "SeriesTime",
    "SoftwareVersions",
    "TrackingUID",
}
CHECKPOINT_ENTRIES = re.compile(r"epoch_(start|end)_timestamps")


@dataclass(frozen=True)
class Allowed:
    """A difference that says nothing about the code.

    Attributes:
        name: what it is, for the report.
        files: pattern of the paths in which it may be.
        pattern: regular expression of the text; None: the file is not compared at all.
        replacement: of the text, as `re.sub` takes it.
        columns: of a CSV, whose values may differ; `pattern` is not looked at.
    """

    name: str
    files: str
    pattern: str | None = None
    replacement: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What was found about one file.

    Attributes:
        path: below the two folders.
        state: `EQUAL`, `ALLOWED` or `DIFFERENT`.
        notes: names of what was allowed, or where the files differ.
    """

    path: str
    state: str
    notes: tuple[str, ...] = ()


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """The paths by the name under which they are compared."""
    return {LOG_NAME.sub("training_log_TIME.txt", path): path for path in paths}


def compare_files(
    before: Path, after: Path, name: str, paths: tuple[str | None, str | None], allowed
) -> Verdict:
    """Compare one file of two folders.

    Args:
        before, after: the folders.
        name: of the file in the report.
        paths: of the file in both folders; None where it is missing.
        allowed: differences that are none.
    """
    if None in paths:
        return Verdict(name, DIFFERENT, (f"only {'after' if paths[0] is None else 'before'}",))
    one, two = (folder / path for folder, path in zip((before, after), paths))
    contents = one.read_bytes(), two.read_bytes()
    if contents[0] == contents[1]:
        return Verdict(name, EQUAL)
    rules = [rule for rule in allowed if fnmatch(name, rule.files)]
    skipped = [rule.name for rule in rules if rule.pattern is None and not rule.columns]
    if skipped:
        return Verdict(name, ALLOWED, tuple(skipped))
    suffix = one.suffix
    if suffix == ".dcm":
        return _listed(name, *map(_dicom_lines, (one, two)), "identifiers, moment, version")
    if suffix == ".pth":
        return _listed(name, *map(_checkpoint_lines, (one, two)), "times of epochs")
    if suffix == ".b2nd":
        return _listed(name, *map(_blosc_lines, (one, two)), "compression by blosc2, same values")
    try:
        texts = [content.decode() for content in contents]
    except UnicodeDecodeError:
        return _bytes_verdict(name, suffix, *contents)
    return _text_verdict(name, *texts, rules)


def _text_verdict(name: str, one: str, two: str, rules: Sequence[Allowed]) -> Verdict:
    used = []
    for rule in rules:
        masked = [_masked(text, rule) for text in (one, two)]
        if masked[0][1] != masked[1][1]:
            used.append(rule.name)
        one, two = masked[0][0], masked[1][0]
    if one == two:
        return Verdict(name, ALLOWED, tuple(used))
    return Verdict(name, DIFFERENT, tuple(first_differences(one, two)))


def _masked(text: str, rule: Allowed) -> tuple[str, list[str]]:
    """The text without what may differ, and what was taken away."""
    if not rule.columns:
        found = [match.group() for match in re.finditer(rule.pattern, text)]
        return re.sub(rule.pattern, rule.replacement, text), found
    rows = list(csv.reader(io.StringIO(text)))
    places = [k for k, column in enumerate(rows[0]) if column in rule.columns]
    found = [row[k] for row in rows[1:] for k in places]
    for row in rows[1:]:
        for k in places:
            row[k] = "MASKED"
    return "\n".join(map(repr, rows)), found


def first_differences(one: str, two: str) -> Iterator[str]:
    """The first lines that differ, each cut to where it does."""
    lines = one.splitlines(), two.splitlines()
    shown = 0
    for number, (left, right) in enumerate(zip(*lines), 1):
        if left != right and shown < SHOWN_LINES:
            shown += 1
            at = next((k for k, (a, b) in enumerate(zip(left, right)) if a != b), 0)
            cut = slice(max(0, at - 40), at + SHOWN_LETTERS - 40)
            yield f"line {number}: {left[cut]!r} became {right[cut]!r}"
    if len(lines[0]) != len(lines[1]):
        longer = max(lines, key=len)[min(map(len, lines))]
        yield f"{len(lines[0])} lines became {len(lines[1])}, first: {longer[:SHOWN_LETTERS]!r}"
    elif not shown:
        yield "the ends of lines differ"


def _bytes_verdict(name: str, suffix: str, one: bytes, two: bytes) -> Verdict:
    """The verdict on binary files that differ: a time in the header of an archive is allowed."""
    if suffix == ".gz":
        if one[:4] + one[8:] == two[:4] + two[8:]:
            return Verdict(name, ALLOWED, ("time in the header of gzip",))
        one, two = gzip.decompress(one), gzip.decompress(two)
    elif suffix in (".npz", ".zip"):
        members = [_members(content) for content in (one, two)]
        if members[0] == members[1]:
            return Verdict(name, ALLOWED, ("times in the headers of zip",))
    if one == two:
        return Verdict(name, DIFFERENT, ("same content, compressed in another way",))
    if len(one) != len(two):
        return Verdict(name, DIFFERENT, (f"{len(one)} bytes became {len(two)}",))
    places = [k for k, (a, b) in enumerate(zip(one, two)) if a != b]
    return Verdict(name, DIFFERENT, (f"{len(places)} of {len(one)} bytes, first {places[0]}",))


def _members(content: bytes) -> list[tuple]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(i.filename, i.compress_type, archive.read(i)) for i in archive.infolist()]


def _listed(name: str, one: list[str], two: list[str], note: str) -> Verdict:
    """The verdict on files of named values, given as lines."""
    if one == two:
        return Verdict(name, ALLOWED, (note,))
    return Verdict(name, DIFFERENT, tuple(first_differences("\n".join(one), "\n".join(two))))


def _dicom_lines(path: Path) -> list[str]:
    """Every element of a DICOM file, the pixels too, of `DICOM_ELEMENTS` without the values."""
    import pydicom

    found = pydicom.dcmread(path)

    def lines(dataset, depth: int) -> Iterator[str]:
        for element in dataset:
            what = f"{' ' * depth}{element.tag} {element.keyword} {element.VR}"
            if element.keyword in DICOM_ELEMENTS:
                yield what
            elif element.VR == "SQ":
                yield f"{what}: {len(element.value)}"
                for item in element.value:
                    yield from lines(item, depth + 1)
            else:
                yield f"{what}: {element.value!r}"

    return [*lines(found.file_meta, 0), *lines(found, 0)]


def _blosc_lines(path: Path) -> list[str]:
    """What is in an array of nnU-Net's preprocessing: its threads compress it anew each time."""
    import blosc2

    found = blosc2.open(str(path), mode="r")
    layout = f"{found.dtype} {found.shape} chunks {found.chunks} blocks {found.blocks}"
    return [layout, hashlib.sha256(found[:].tobytes()).hexdigest()]


def _checkpoint_lines(path: Path) -> list[str]:
    """Every value of a checkpoint but the times: tensors by type, shape and a sum of their bytes.

    An archive of PyTorch differs in its bytes even where all values are equal.
    """
    import torch

    def lines(value, place: str) -> Iterator[str]:
        if CHECKPOINT_ENTRIES.search(place):
            return
        if isinstance(value, torch.Tensor):
            digest = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
            yield f"{place}: {value.dtype} {tuple(value.shape)} {digest}"
        elif isinstance(value, dict):
            for key, entry in value.items():
                yield from lines(entry, f"{place}/{key}")
        elif isinstance(value, list | tuple):
            yield f"{place}: {type(value).__name__} of {len(value)}"
            for k, entry in enumerate(value):
                yield from lines(entry, f"{place}/{k}")
        else:
            yield f"{place}: {value!r}"

    return list(lines(torch.load(path, map_location="cpu", weights_only=False), ""))
