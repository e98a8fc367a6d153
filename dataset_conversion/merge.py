"""Merge of converted data sets into one, so that one network trains on all of them.

The first data set is the one that the network is made for. Its folds stay, and its window, pixels,
angles and intensities are those of the merged one. The cases of the other data sets are in the
training part of every fold; they are never validated.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_mip.dataset_conversion.conversion_plan import Case, CasePaths, ConversionPlan
from nnunetv2_mip.dataset_conversion.raw_dataset import (
    SUMMARY_NAME,
    ConversionResult,
    build_raw_dataset,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import link_or_copy, read_json
from nnunetv2_mip.nnunet.paths import nnunet_folder, raw_dataset
from nnunetv2_mip.nnunet.second_stage_data import STAGE2
from nnunetv2_mip.nnunet.splits import PATIENT_KEYS, SPLITS_FILE, check_splits
from nnunetv2_mip.views.stack_files import FILE_ENDING

DEFAULT_NAME = "Merged"
# dataset.json["mip"]["source"] of a merged data set.
MERGED = "merged"
# Entries of dataset.json["mip"] that a merge needs of each data set.
_NEEDED = ("source", "channels", "patients", "has_lesion", "intensity")
_SOURCE_NAME = re.compile(r"[\w.+-]+")
_CONVERTERS = "nnUNetv2_mip_convert_autopet or nnUNetv2_mip_convert_dmiai"


@dataclass(frozen=True)
class _Part:
    """One of the data sets to merge.

    Attributes:
        folder: its raw data set.
        content: of its dataset.json.
        source_of: case → name of the source.
    """

    folder: Path
    content: dict[str, Any]
    source_of: dict[str, str]

    @property
    def mip(self) -> dict[str, Any]:
        return self.content["mip"]

    @property
    def patients(self) -> dict[str, str]:
        """Case → patient."""
        return self.mip["patients"]

    def paths(self, case: str) -> CasePaths:
        return CasePaths(self.folder / "imagesTr", self.folder / "labelsTr", case)

    def settings(self) -> dict[str, Any]:
        """Entries of "mip" about all cases."""
        return {key: value for key, value in self.mip.items() if key not in PATIENT_KEYS}


def merge_datasets(
    dataset_ids: Sequence[int],
    merged_id: int,
    name: str = DEFAULT_NAME,
    sources: Sequence[str] | None = None,
) -> ConversionResult:
    """Merge raw data sets of this package's converters; their files are linked, not copied.

    Args:
        dataset_ids: of the data sets, two or more; the first one's folds are validated.
        merged_id: of the new data set.
        name: of the new data set.
        sources: name of each data set's source, for trainers that draw by source; None: the name of
            its converter (`dmiai`, `autopet`), or the names that a merged data set has.

    Raises:
        MipError: fewer than two data sets, or one twice; a data set that is missing, incomplete,
            not converted by this package, or of volumes; data sets that differ in channels, labels,
            file ending or pixel size; a case name in two of them; a validated patient of the first
            one in another one; names of sources that do not fit; see `build_raw_dataset`.
    """
    parts = _read_parts(dataset_ids, sources)
    first, *others = parts
    for part in others:
        _check_same_form(first, part)
    _check_names(parts)
    splits = _splits(first, others)
    cases = [
        Case(case, patient, (part.paths(case), record), tuple(part.paths(case).files()))
        for part in parts
        for case, patient, record in _records(part)
    ]
    source_of = {case: source for part in parts for case, source in part.source_of.items()}
    # The first data set's settings of views and window are those of inference.
    mip = {
        **first.settings(),
        "source": MERGED,
        "source_of": dict(sorted(source_of.items())),
        "merged": [
            {
                "dataset": part.folder.name,
                "cases": len(part.patients),
                "sources": sorted(set(part.source_of.values())),
                **part.settings(),
            }
            for part in parts
        ],
    }
    plan = ConversionPlan(
        dataset_id=merged_id,
        name=name,
        cases=cases,
        convert=link_case,
        settings={
            "converter": "merge_datasets",
            "datasets": [part.folder.name for part in parts],
            "sources": [sorted(set(part.source_of.values())) for part in parts],
        },
        mip=mip,
        source=first.folder,
        labels=first.content["labels"],
        intensity=first.mip["intensity"],
        splits=splits,
    )
    return build_raw_dataset(plan)


def link_case(payload: tuple[CasePaths, dict], paths: CasePaths) -> dict:
    """Link the files of a case into another data set; returns its record."""
    source, record = payload
    root = source.images.parent
    for file in source.files():
        target = paths.images.parent / file.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        link_or_copy(file, target)
    return record


def _read_parts(dataset_ids: Sequence[int], sources: Sequence[str] | None) -> list[_Part]:
    if len(dataset_ids) < 2:
        raise MipError("-d: give two data sets or more to merge")
    twice = sorted({number for number in dataset_ids if dataset_ids.count(number) > 1})
    if twice:
        raise MipError(f"-d: data set {twice[0]} is given twice")
    if sources is not None:
        if len(sources) != len(dataset_ids):
            raise MipError(
                f"--sources: {len(sources)} names for {len(dataset_ids)} data sets; give one name "
                "for each, in the order of -d"
            )
        for name in sources:
            if not _SOURCE_NAME.fullmatch(name):
                raise MipError(f"--sources {name!r}: use letters, digits and . _ + - only")
    names: Sequence[str | None] = sources or [None] * len(dataset_ids)
    return [_read_part(number, name) for number, name in zip(dataset_ids, names)]


def _read_part(dataset_id: int, source: str | None) -> _Part:
    """Data set of an id, checked: what its dataset.json says, and that all files are there."""
    folder = raw_dataset(dataset_id)
    known = sorted(nnunet_folder("nnUNet_raw").glob(f"Dataset{dataset_id:03d}_*"))
    if len(known) > 1:
        raise MipError(
            f"{known[1]}: has the id {dataset_id} of {known[0].name} too: remove or rename one"
        )
    path = folder / "dataset.json"
    content = read_json(path)
    mip = content.get("mip")
    if not isinstance(mip, dict):
        raise MipError(f'{path}: no "mip" part: not a data set of {_CONVERTERS}: convert it first')
    if mip.get("source") == STAGE2:
        raise MipError(
            f"{folder}: holds volumes (nnUNetv2_mip_convert_stage2); data sets of views alone can "
            "be merged"
        )
    missing = [key for key in _NEEDED if mip.get(key) is None]
    if missing:
        raise MipError(f'{path}: no "mip" → "{missing[0]}": convert the data set again')
    patients, has_lesion = mip["patients"], mip["has_lesion"]
    if not patients or set(patients) != set(has_lesion):
        raise MipError(
            f'{path}: "mip" → "patients" and "has_lesion" name no or not the same cases: convert '
            "the data set again"
        )
    _check_files(folder, content)
    source_of: dict[str, str]
    if source is None:
        converter: str = mip["source"]
        source_of = mip.get("source_of") or dict.fromkeys(patients, converter)
        unnamed = sorted(set(patients) - set(source_of))
        if unnamed:
            raise MipError(
                f'{path}: "mip" → "source_of" does not name the source of {unnamed[0]}: merge its '
                "data sets again"
            )
    else:
        source_of = dict.fromkeys(patients, source)
    return _Part(folder, content, source_of)


def _check_files(folder: Path, content: dict[str, Any]) -> None:
    if content.get("file_ending") != FILE_ENDING:
        raise MipError(
            f"{folder / 'dataset.json'}: file ending {content.get('file_ending')!r}; the "
            f"converters write {FILE_ENDING}: convert the data set again"
        )
    named = set(content["mip"]["patients"])
    images, ending = folder / "imagesTr", f"_0000{FILE_ENDING}"
    unknown = sorted({p.name.removesuffix(ending) for p in images.glob(f"*{ending}")} - named)
    if unknown:
        raise MipError(
            f"{images / (unknown[0] + ending)}: dataset.json does not name the patient of "
            f"{unknown[0]}: convert the data set again"
        )
    for case in sorted(named):
        paths = CasePaths(images, folder / "labelsTr", case)
        wanted = [paths.channel(index) for index in range(len(content["channel_names"]))]
        for path in (*wanted, paths.label):
            if not path.is_file():
                raise MipError(f"{path}: no such file: convert the data set again")


def _check_same_form(first: _Part, part: _Part) -> None:
    """Check that a data set can be trained on together with the first one; raises MipError."""

    def form(p: _Part) -> list[tuple[str, str, Any, str]]:
        intensity: Mapping[str, Mapping[str, float]] = p.mip["intensity"]
        scale = {name: [c.get("low"), c.get("high")] for name, c in intensity.items()}
        return [
            ("channels", "--channels", p.content["channel_names"], ", ".join(p.mip["channels"])),
            ("labels", "--labels", p.content["labels"], ", ".join(p.content["labels"])),
            ("kind of labels", "--labels", p.mip.get("labels"), str(p.mip.get("labels"))),
            ("pixel size", "--pixel", p.mip.get("pixel_mm"), _pixel(p.mip.get("pixel_mm"))),
            ("scale of levels", "", scale, str(scale)),
        ]

    for (what, option, value, text), (*_, other, other_text) in zip(form(part), form(first)):
        if value != other:
            raise MipError(
                f"{part.folder}: {what} {text}, in {first.folder.name} {other_text}: convert one "
                f"of them again so that they agree{option and f' ({option})'}"
            )


def _pixel(pixel_mm: float | None) -> str:
    return "of each study's own" if pixel_mm is None else f"{pixel_mm:g} mm"


def _check_names(parts: Sequence[_Part]) -> None:
    seen: dict[str, _Part] = {}
    for part in parts:
        for case in sorted(part.patients):
            if case in seen:
                raise MipError(
                    f"{part.folder}: has a case {case}, which {seen[case].folder.name} has too: "
                    "rename the study or image in one of them and convert it again"
                )
            seen[case] = part


def _splits(first: _Part, others: Sequence[_Part]) -> list[dict[str, list[str]]]:
    """Folds of the first data set, with all cases of the others in each training part."""
    path = first.folder / SPLITS_FILE
    folds = read_json(path)
    check_splits(folds, first.patients, sorted(first.patients), source=str(path))
    validated = {first.patients[case] for fold in folds for case in fold["val"]}
    for part in others:
        shared = sorted(validated & set(part.patients.values()))
        if shared:
            raise MipError(
                f"{part.folder}: has cases of patient {shared[0]}, whom {first.folder.name} "
                "validates: leave the patient out of one of them, or, if it is another person, "
                "convert one of them with other names (--patients)"
            )
    more = [case for part in others for case in sorted(part.patients)]
    return [{"train": [*fold["train"], *more], "val": list(fold["val"])} for fold in folds]


def _records(part: _Part) -> list[tuple[str, str, dict[str, Any]]]:
    """Case, patient and record of each case; the record is that of the case's conversion."""
    path = part.folder / SUMMARY_NAME
    known = read_json(path).get("cases", {}) if path.is_file() else {}
    has_lesion = part.mip["has_lesion"]
    return [
        (
            case,
            patient,
            {
                **known.get(case, {}),
                "has_lesion": bool(has_lesion[case]),
                "dataset": part.folder.name,
                "source": part.source_of[case],
            },
        )
        for case, patient in part.patients.items()
    ]
