"""Builder of nnU-Net raw data sets, case by case: parallel, resumable, whole or not at all.

A conversion works in `.<Dataset>.partial` beside its target, with a manifest of its settings.
A case is done when its record exists and its inputs are as they were; the record is written last,
after the case's files. When all cases are done the data set's own files are written and the folder
is renamed. Running the same command again finishes a stopped conversion, with the same bytes; other
settings are refused.
"""

import functools
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.dataset_conversion.body_statistics import BodyStatistics
from nnunetv2_mip.dataset_conversion.conversion_plan import (
    PROJECTED_LABELS,
    Case,
    CasePaths,
    ConversionPlan,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.io.input_states import changed_inputs, input_states
from nnunetv2_mip.nnunet.paths import dataset_name, existing_datasets, nnunet_folder
from nnunetv2_mip.nnunet.splits import patient_grouped_splits
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.views.stack_files import FILE_ENDING
from nnunetv2_mip.wording import counted

SUMMARY_NAME = "conversion.json"
_MANIFEST, _RECORDS = "manifest.json", "records"
# Entry of a record for the inputs; the data set does not get it.
_INPUTS = "inputs"
# Entry of a record for what the user says of its case.
_CHOICES = "dicom"
FORMAT_VERSION = 1
# Always cases a second: tqdm turns the rate over when it is below one.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed} gone, {remaining} left, {rate_noinv_fmt}]"


@dataclass
class ConversionResult:
    """Result of a conversion: the finished data set folder, and its summary."""

    folder: Path
    summary: dict = field(default_factory=dict)


def build_raw_dataset(
    plan: ConversionPlan, workers: int = 1, skip_broken: bool = False, dask: str | None = None
) -> ConversionResult:
    """Convert all cases of a plan into `nnUNet_raw/Dataset<id>_<name>`.

    `workers` processes, or the workers of a Dask cluster (`dask`, which must see the same folders),
    share the cases. A case that cannot be converted does not stop the others. At the end it is
    named; the data set is then finished without it if `skip_broken`, else the finished cases wait
    for another run.

    Raises:
        MipError: the id is taken, a partial conversion with other settings or of another source
            exists, no case, two cases of one name, or a case that cannot be converted (without
            `skip_broken`).
    """
    target = nnunet_folder("nnUNet_raw") / dataset_name(plan.dataset_id, plan.name)
    taken = existing_datasets(plan.dataset_id)
    if taken:
        raise MipError(
            f"{taken[0]}: data set id {plan.dataset_id} exists already; "
            "choose another id or remove that folder"
        )
    if not plan.cases and not plan.problems:
        raise MipError(f"{target.name}: there is nothing to convert")
    twice = [name for name, n in Counter(case.name for case in plan.cases).items() if n > 1]
    if twice:
        raise MipError(f"{plan.source}: two inputs get the same case name {twice[0]}; rename one")
    partial = _open_partial(target, plan)
    problems = [(str(path), reason) for path, reason in plan.problems]
    problems += _convert_missing(plan, partial, workers, dask)
    if problems and not skip_broken:
        _refuse(partial, plan, problems)
    return _finish(target, partial, plan, problems)


def _open_partial(target: Path, plan: ConversionPlan) -> Path:
    partial = target.with_name(f".{target.name}.partial")
    manifest = {
        "format_version": FORMAT_VERSION,
        "settings": dict(plan.settings),
        "source": str(plan.source.resolve()),
        "cases": [case.name for case in plan.cases],
    }
    if (partial / _MANIFEST).is_file():
        before = read_json(partial / _MANIFEST)
        for key, words in (("settings", "with other settings"), ("source", "of another folder")):
            if before.get(key) != manifest[key]:
                raise MipError(
                    f"{partial}: holds an unfinished conversion {words}; "
                    "repeat that one, or remove the folder to start anew"
                )
    elif partial.exists():
        shutil.rmtree(partial)
    for folder in ("imagesTr", "labelsTr", _RECORDS):
        (partial / folder).mkdir(parents=True, exist_ok=True)
    write_json(partial / _MANIFEST, manifest)
    return partial


def _convert_missing(
    plan: ConversionPlan, partial: Path, workers: int, dask: str | None
) -> list[tuple[str, str]]:
    """Convert the cases without a record; returns (case, reason) of the failures."""
    todo = [case for case in plan.cases if not _is_done(partial, case)]
    # Workers may have another working directory.
    work = functools.partial(_convert_case, plan.convert, partial.absolute())
    problems = []
    with tqdm(
        total=len(plan.cases),
        initial=len(plan.cases) - len(todo),
        unit="case",
        desc=plan.name,
        bar_format=_BAR,
        disable=None,
    ) as bar:
        for case, reason in for_each(work, todo, workers, dask, finished_are_kept=True):
            if reason is not None:
                problems.append((case.name, reason))
            bar.update()
    return sorted(problems)


def _is_done(partial: Path, case: Case) -> bool:
    """Whether a case has a record of the same inputs and choices; says which inputs changed."""
    path = _record_path(partial, case.name)
    if not path.is_file():
        return False
    record = read_json(path)
    changed = changed_inputs(record.get(_INPUTS, {}), input_states(case.inputs))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        tqdm.write(f"{case.name}: {changed[0]}{more} changed since; converted again", sys.stderr)
    elif record.get(_CHOICES, {}) == dict(case.choices):
        return True
    # A failure now must not leave the case of before.
    path.unlink()
    return False


def _convert_case(convert: Callable, partial: Path, case: Case) -> str | None:
    """Convert one case and write its record last; returns the reason where that fails."""
    paths = CasePaths(partial / "imagesTr", partial / "labelsTr", case.name)
    try:
        # Before they are read: what changes meanwhile is seen by the next run.
        inputs = input_states(case.inputs)
        record = convert(case.payload, paths)
    except MipError as error:
        for path in paths.files():
            path.unlink()
        return str(error)
    if case.choices:
        record = {**record, _CHOICES: dict(case.choices)}
    write_json(_record_path(partial, case.name), {**record, _INPUTS: inputs})
    return None


def _record_path(partial: Path, case: str) -> Path:
    return partial / _RECORDS / f"{case}.json"


def _refuse(partial: Path, plan: ConversionPlan, problems: list[tuple[str, str]]) -> None:
    """Raise the error that names the broken cases; a partial folder with finished cases stays."""
    done = sum(1 for _ in (partial / _RECORDS).glob("*.json"))
    if not done:
        shutil.rmtree(partial)
    for where, reason in problems[1:]:
        tqdm.write(f"cannot be converted: {_line(where, reason)}")
    total = len(plan.cases) + len(plan.problems)
    kept = f" ({done} finished cases wait in {partial})" if done else ""
    raise MipError(
        f"{_line(*problems[0])} [{len(problems)} of {counted(total, 'case')} cannot be converted; "
        f"repair and run again{kept}, or leave them out with --skip_broken]"
    )


def _remove_unfinished(partial: Path, records: Iterable[str]) -> None:
    """Remove files of no converted case: unfinished ones of a killed run, cases that are gone."""
    images, labels = partial / "imagesTr", partial / "labelsTr"
    projected = partial / PROJECTED_LABELS
    keep = {path for case in records for path in CasePaths(images, labels, case).files()}
    others = projected.iterdir() if projected.is_dir() else ()
    for path in (*images.iterdir(), *labels.iterdir(), *others):
        if path not in keep:
            path.unlink()


def _line(where: str, reason: str) -> str:
    """Reasons of a converter name their file already; those of a scan do not."""
    return f"{where}: {reason}" if os.sep in where else reason


def _finish(
    target: Path, partial: Path, plan: ConversionPlan, problems: list[tuple[str, str]]
) -> ConversionResult:
    records = {}
    for case in sorted(plan.cases, key=lambda case: case.name):
        if _record_path(partial, case.name).is_file():
            records[case.name] = read_json(_record_path(partial, case.name))
    if not records:
        shutil.rmtree(partial)
        raise MipError(f"{_line(*problems[0])} [no case could be converted]")
    _remove_unfinished(partial, records)
    patients = {case.name: case.patient for case in plan.cases if case.name in records}
    patients = dict(sorted(patients.items()))
    has_lesion = {case: bool(record["has_lesion"]) for case, record in records.items()}
    channels = plan.mip["channels"]
    mip = {
        "format_version": FORMAT_VERSION,
        **plan.mip,
        "patients": patients,
        "has_lesion": has_lesion,
        "intensity": plan.intensity or _intensity_of(channels, records.values()),
    }
    write_json(
        partial / "dataset.json",
        {
            "channel_names": {str(index): name for index, name in enumerate(channels)},
            "labels": dict(plan.labels),
            "numTraining": len(records),
            "file_ending": FILE_ENDING,
            "name": target.name,
            "mip": mip,
        },
    )
    if plan.splits is None:
        splits = patient_grouped_splits(patients, has_lesion)
    else:
        splits = [
            {part: [case for case in cases if case in records] for part, cases in split.items()}
            for split in plan.splits
        ]
    write_json(partial / "splits_final.json", splits)
    warnings = [*plan.warnings]
    originals = {case.name: case.original for case in plan.cases if case.original is not None}
    for name, record in records.items():
        record.pop(_INPUTS, None)
        if name in originals:
            record["original"] = originals[name]
        warnings += record.pop("warnings", [])
        record.pop("body", None)
    summary = {
        "settings": dict(plan.settings),
        "converted": len(records),
        "patients": len(set(patients.values())),
        **({"grouping": plan.grouping} if plan.grouping else {}),
        "with_lesion": sum(has_lesion.values()),
        **{key: round(sum(record[key] for record in records.values()), 3) for key in plan.totals},
        "skipped": [{"case": where, "reason": reason} for where, reason in problems],
        "warnings": warnings,
        "cases": records,
    }
    write_json(partial / SUMMARY_NAME, summary)
    shutil.rmtree(partial / _RECORDS)
    (partial / _MANIFEST).unlink()
    partial.replace(target)
    return ConversionResult(target, summary)


def _intensity_of(channels: Sequence[str], records: Iterable[dict]) -> dict[str, dict[str, float]]:
    """Normalisation constants of every channel from the body statistics of the records."""
    records = list(records)
    found = {
        channel: sum((BodyStatistics(*r["body"][channel]) for r in records), BodyStatistics())
        for channel in channels
    }
    return {
        channel: {
            "mean": round(body.mean, 4),
            "std": round(body.std, 4),
            "low": 0.0,
            "high": float(LEVEL_MAX),
        }
        for channel, body in found.items()
    }
