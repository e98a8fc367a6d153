"""Check of labelled cases for likely errors, before a network is trained or scored on them."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.comparison import patients_of
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.volumes import PLAUSIBLE_BODY_MEDIAN_SUV
from nnunetv2_mip.nnunet.paths import existing_datasets, raw_dataset
from nnunetv2_mip.nnunet.splits import SPLITS_FILE, check_splits
from nnunetv2_mip.report.case_facts import CaseFacts
from nnunetv2_mip.wording import counted, part_of

# A size or spacing is odd beyond this many times the median, or below its inverse.
ODD_FACTOR = 2.0
# A smaller lesion is most likely an error of annotation.
TINY_ML, TINY_CM2 = 0.05, 0.1
NAMES_SHOWN = 5
CONVERSION_FILE = "conversion.json"
_ABSOLUTE_PATH = re.compile(r"(?:[A-Za-z]:[/\\]|/)(?=[^\s/\\])")


@dataclass(frozen=True)
class Finding:
    """Line of a check.

    Attributes:
        level: `ok`, `note` or `warning`.
        text: for the reader.
    """

    level: str
    text: str


@dataclass(frozen=True)
class DatasetCheck:
    """Result of the check of a set of cases.

    Attributes:
        name: of the data set or folder.
        facts: of its cases.
        findings: lines for the reader, warnings first.
        folds: (name, validation cases with lesions, without), empty without splits.
        patients: patient of every case, empty where they are not known.
    """

    name: str
    facts: list[CaseFacts]
    findings: list[Finding]
    folds: list[tuple[str, int, int]] = field(default_factory=list)
    patients: Mapping[str, str] = field(default_factory=dict)


def dataset_folder(named: str) -> Path:
    """Raw data set that `-d` names: by its number under nnUNet_raw, or by its folder.

    Raises:
        MipError: there is no such data set.
    """
    if named.isdigit():
        return raw_dataset(int(named))
    folder = Path(named)
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder; -d takes a data set's number, or its folder")
    if not (folder / "labelsTr").is_dir():
        raise MipError(f"{folder}: is no raw nnU-Net data set (it has no labelsTr)")
    return folder


def check_cases(folder: Path, facts: Sequence[CaseFacts]) -> DatasetCheck:
    """Check of all cases of a data set, or of a folder of truths.

    Args:
        folder: of the cases; splits and the record of the conversion are read from it.
        facts: of all cases, see `case_facts.read_all_facts`.

    Raises:
        MipError: one of those files cannot be read.
    """
    patients = patients_of(folder)
    findings = [
        *_empty_labels(facts),
        *_tiny_lesions(facts),
        *_sizes(facts),
        *_spacings(facts),
        *_uptake(facts),
        *_repeated_images(facts),
        *_case_warnings(facts),
        *_hidden_lesions(facts),
        *conversion_findings(folder),
    ]
    splits_findings, folds = _check_folds(folder, facts, patients)
    findings += splits_findings
    order = {"warning": 0, "note": 1, "ok": 2}
    findings.sort(key=lambda finding: order[finding.level])
    return DatasetCheck(folder.resolve().name, list(facts), findings, folds, patients)


def _names(names: Sequence[str]) -> str:
    names = list(names)
    more = f", … ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _empty_labels(facts: Sequence[CaseFacts]) -> list[Finding]:
    known = [f for f in facts if f.burden is not None]
    empty = [f.case for f in known if f.burden == 0]
    if not known:
        return []
    if len(empty) == len(known):
        text = f"no label holds a lesion ({len(known)} empty): there is nothing to find"
        return [Finding("warning", text)]
    if empty:
        text = f"{part_of(len(empty), len(known), 'label', 'is')} empty (cases without lesions, "
        return [Finding("note", f"{text}or forgotten ones): {_names(empty)}")]
    return [Finding("ok", f"{counted(len(known), 'label')}, each with lesions")]


def _tiny_lesions(facts: Sequence[CaseFacts]) -> list[Finding]:
    tiny = [
        (f.case, row)
        for f in facts
        for row in f.lesions or ()
        if row.get("volume_ml", TINY_ML) < TINY_ML or row.get("area_cm2", TINY_CM2) < TINY_CM2
    ]
    if not tiny:
        return []
    smallest = f"{TINY_ML} ml" if "volume_ml" in tiny[0][1] else f"{TINY_CM2} cm²"
    cases = _names(sorted({case for case, _ in tiny}))
    text = (
        f"{counted(len(tiny), 'lesion', 'is')} smaller than {smallest} (a slip of the pen?): "
        f"{cases}"
    )
    return [Finding("note", text)]


def _sizes(facts: Sequence[CaseFacts]) -> list[Finding]:
    return _outliers("size", "pixels or voxels", [(f.case, f.size) for f in facts])


def _spacings(facts: Sequence[CaseFacts]) -> list[Finding]:
    counts = Counter(tuple(round(mm, 3) for mm in f.spacing_mm) for f in facts)
    common, number = counts.most_common(1)[0]
    text = " × ".join(f"{mm:g}" for mm in common) + " mm"
    found = _outliers("spacing", "mm", [(f.case, f.spacing_mm) for f in facts])
    if len(counts) == 1:
        return [Finding("ok", f"one spacing everywhere: {text}"), *found]
    line = f"{len(counts)} different spacings; {part_of(number, len(facts), 'case', 'has')} {text}"
    return [Finding("note", line), *found]


def _outliers(what: str, unit: str, named: Sequence[tuple[str, tuple]]) -> list[Finding]:
    """Warning about cases whose values are far from the median of their axis."""
    by_length = defaultdict(list)
    for case, values in named:
        by_length[len(values)].append((case, values))
    odd = []
    for group in by_length.values():
        median = np.median(np.array([values for _, values in group], float), axis=0)
        for case, values in group:
            ratio = np.maximum(np.array(values, float), 1e-9) / np.maximum(median, 1e-9)
            if (ratio > ODD_FACTOR).any() or (ratio < 1 / ODD_FACTOR).any():
                odd.append(f"{case} ({' × '.join(f'{v:.4g}' for v in values)})")
    if not odd:
        return []
    cases = f"{counted(len(odd), 'case', 'has')}"
    text = f"{cases} an odd {what} ({unit}; beyond {ODD_FACTOR:g} times the median or below half): "
    return [Finding("warning", text + _names(odd))]


def _uptake(facts: Sequence[CaseFacts]) -> list[Finding]:
    missing = [f.case for f in facts if f.uptake is None]
    found = []
    if missing:
        text = (
            f"{part_of(len(missing), len(facts), 'case', 'comes')} without image: {_names(missing)}"
        )
        found.append(Finding("note", text))
    medians = [f.uptake for f in facts if f.kind == "volume" and f.uptake is not None]
    low, high = PLAUSIBLE_BODY_MEDIAN_SUV
    if medians and all(low <= median <= high for median in medians):
        text = f"the median of the body lies between SUV {low:g} and {high:g} in every case"
        found.append(Finding("ok", text))
    return found


def _repeated_images(facts: Sequence[CaseFacts]) -> list[Finding]:
    groups = defaultdict(list)
    for f in facts:
        if f.digest is not None:
            groups[f.digest, f.size].append(f.case)
    repeated = [cases for cases in groups.values() if len(cases) > 1]
    if repeated:
        pairs = _names([" = ".join(cases) for cases in repeated])
        text = f"{counted(len(repeated), 'image', 'occurs')} more than once: {pairs}"
        return [Finding("warning", text)]
    return [Finding("ok", "no image occurs twice")] if groups else []


def _case_warnings(facts: Sequence[CaseFacts]) -> list[Finding]:
    return [Finding("warning", f"{f.case}: {line}") for f in facts for line in f.warnings]


def _hidden_lesions(facts: Sequence[CaseFacts]) -> list[Finding]:
    seen = [(f.case, row) for f in facts for row in f.lesions or () if "seen_in" in row]
    if not seen:
        return []
    hidden = [(case, row) for case, row in seen if row["seen_in"] == 0]
    if not hidden:
        return [Finding("ok", f"{counted(len(seen), 'lesion')}, each visible in some view")]
    ml = sum(row["volume_ml"] for _, row in hidden)
    cases = _names(sorted({case for case, _ in hidden}))
    text = (
        f"{part_of(len(hidden), len(seen), 'lesion', 'is')} visible in no view ({ml:.1f} ml): "
        f"{cases}"
    )
    return [Finding("note", text)]


def conversion_findings(folder: Path) -> list[Finding]:
    """Warnings and skipped cases of a raw data set's conversion (its conversion.json)."""
    path = folder / CONVERSION_FILE
    if not path.is_file():
        return []
    content = read_json(path)
    lines = [str(line) for line in content.get("warnings", ())]
    for skipped in content.get("skipped", ()):
        lines.append(f"{skipped.get('case')}: left out by the conversion: {skipped.get('reason')}")
    return [Finding("warning", shorten_paths(line)) for line in lines]


def shorten_paths(line: str) -> str:
    """Line with absolute paths cut to their last two names: a report may be shown to others."""
    parts = [
        _last_two_names(part) if _ABSOLUTE_PATH.match(part) else part for part in line.split(": ")
    ]
    # Within a sentence a path ends at the first space.
    return re.sub(
        rf"(?<=\s){_ABSOLUTE_PATH.pattern}\S*", lambda m: _last_two_names(m[0]), ": ".join(parts)
    )


def _last_two_names(path: str) -> str:
    return "/".join(re.split(r"[/\\]", path)[-2:])


def _check_folds(
    folder: Path, facts: Sequence[CaseFacts], patients: Mapping[str, str]
) -> tuple[list[Finding], list[tuple[str, int, int]]]:
    path = _splits_file(folder)
    if path is None:
        return [], []
    splits = read_json(path)
    cases = {f.case for f in facts}
    try:
        # Where patients are not known, each case counts as one patient.
        check_splits(splits, patients or {case: case for case in cases}, cases, path.name)
    except MipError as error:
        finding = Finding("warning", str(error))
    else:
        who = "patient" if patients else "case"
        text = (
            f"{counted(len(splits), 'fold')}, no {who} on both sides of one, none validated twice"
        )
        finding = Finding("ok", text if patients else f"{text} (patients are not named)")
    burden = {f.case: f.burden or 0 for f in facts}
    folds = []
    if isinstance(splits, list):
        for number, fold in enumerate(splits):
            val = fold.get("val", ()) if isinstance(fold, dict) else ()
            known = [burden[case] for case in val if case in burden]
            lesions = sum(value > 0 for value in known)
            folds.append((f"fold {number}", lesions, len(known) - lesions))
    return [finding], folds


def _splits_file(folder: Path) -> Path | None:
    """Splits of the preprocessed data set, which nnU-Net uses, else those of the raw one."""
    number = folder.resolve().name[7:10]
    if folder.resolve().name.startswith("Dataset") and number.isdigit():
        for found in existing_datasets(int(number)):
            elsewhere = found.resolve() != folder.resolve()
            if (
                elsewhere
                and found.name == folder.resolve().name
                and (found / SPLITS_FILE).is_file()
            ):
                return found / SPLITS_FILE
    return folder / SPLITS_FILE if (folder / SPLITS_FILE).is_file() else None
