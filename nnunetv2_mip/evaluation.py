"""Evaluate predicted masks on disk: match them with the truth by name, score, summarise, write.

What counts as ground truth:

- a single file, with a single file as prediction;
- a folder of PNG masks (0 and 255); `segmentation_017.png` is the truth of `patient_017.png`;
- the DM-i-AI data folder (`patients/labels`, `controls/imgs`): a control's truth is empty, and
  controls without a prediction are left out;
- a folder of volumes or of view stacks, `<case>.nii.gz` and the like, or a folder that has such a
  folder as `labelsTr` (a raw nnU-Net data set);
- a study tree (`PETCT_*/<study>/SEG.nii.gz`), whose cases are named by `nnunetv2_mip.studies`.

The prediction of a case is `<case>` with any known suffix in the prediction folder, or the file at
the truth's relative path (predictions that mirror a tree). A 3D file whose first spacing is at
least 500 mm (or with a geometry file beside it) is a stack of views and is judged view by view, in
pixels; in its truth, label 2 is "ignore" and such pixels count for nothing. Every other 3D file is
a volume, judged in ml.
"""

import csv
import math
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from nnunetv2_mip import metrics
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, write_json
from nnunetv2_mip.png import PNG_SUFFIX, decode_mask_png, decode_png
from nnunetv2_mip.stacks import is_stack_file
from nnunetv2_mip.studies import SEG_NAME, SUV_NAME, find_studies
from nnunetv2_mip.volumes import (
    VOLUME_SUFFIXES,
    Volume,
    has_suffix,
    read_volume,
    require_same_grid,
)

FORMAT_VERSION = 1
IGNORE_LABEL = 2
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Pair:
    """A case to score.

    Attributes:
        case: its name.
        truth: the mask, or for a control without a mask its image.
        prediction: the predicted mask, None when it is missing and counts as empty.
        is_control_image: whether `truth` is the PNG of a control, which tells only the size.
    """

    case: str
    truth: Path
    prediction: Path | None
    is_control_image: bool = False


@dataclass(frozen=True)
class Matches:
    """The pairs, by case name, and the predictions that no truth asked for."""

    pairs: list[Pair]
    ignored: list[str]


def evaluate(
    predictions: Path | str,
    truths: Path | str,
    *,
    allow_missing: bool = False,
    min_overlap: float = 0.0,
    processes: int = 1,
    show_progress: bool = False,
) -> dict:
    """Score all cases of a folder, or one file against another.

    Args:
        predictions, truths: folders or files, see the module.
        allow_missing: count a missing prediction as an empty one.
        min_overlap: fraction of a lesion that must be overlapped, see `metrics.lesion_scores`.
        processes: processes for volumes and stacks.
        show_progress: draw a progress bar over volumes and stacks.

    Returns:
        the report, NaN where a score is not defined: `format_version`, `kind` ("png", "volume" or
        "stack"), `cases` {case: {score: value}}, `mean` {score: over the cases where it is
        defined}, `dice_interval_95` [low, high] (bootstrap over cases), `pooled` (recall and
        precision over all lesions together; not for stacks), `controls` (false positives where
        the truth is empty), `counts`, `min_overlap`, `missing_predictions`, `ignored_predictions`.

    Raises:
        MipError: no truth, a missing prediction, an unreadable file, differing sizes or grids,
            other labels than allowed, or truths of several kinds.
    """
    matches = match(Path(predictions), Path(truths), allow_missing)
    score = partial(score_pair, min_overlap=min_overlap)
    cases, first_kind = {}, None
    with closing(_run(score, matches.pairs, processes, show_progress)) as results:
        for (kind, scores), pair in zip(results, matches.pairs):  # results first, so they run out
            first_kind = first_kind or kind
            if kind != first_kind:
                raise MipError(
                    f"{pair.truth}: is a {kind} but {matches.pairs[0].truth} is a {first_kind}; "
                    "evaluate them separately"
                )
            cases[pair.case] = scores
    report = {"format_version": FORMAT_VERSION, "kind": first_kind, "cases": cases}
    report |= summarise(cases)
    report["counts"]["ignored_predictions"] = len(matches.ignored)
    report["min_overlap"] = min_overlap
    report["missing_predictions"] = [c for c in cases if cases[c]["missing_prediction"]]
    report["ignored_predictions"] = matches.ignored
    return report


def write_report(report: dict, path: Path | str) -> Path:
    """Write `report` as JSON (NaN as null) and its cases as CSV (NaN as an empty cell) beside it.

    Returns:
        the path of the CSV: one row a case, columns in the order of the scores.

    Raises:
        MipError: `path` does not end in `.json`.
    """
    path = Path(path)
    if path.suffix.lower() != ".json":
        raise MipError(f"{path}: the report is JSON; give a name that ends in .json")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = path.with_suffix(".csv")
    columns = list(next(iter(report["cases"].values())))
    with atomic_path(table) as partial_table:
        with partial_table.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["case", *columns])
            for case, scores in report["cases"].items():
                row = [_null_for_nan(scores[column]) for column in columns]
                writer.writerow([case, *[int(v) if isinstance(v, bool) else v for v in row]])
        write_json(path, _null_for_nan(report))
    return table


def match(predictions: Path, truths: Path, allow_missing: bool = False) -> Matches:
    """Find the prediction of every truth, see the module.

    Raises:
        MipError: a path is missing, there is no truth, two predictions or truths of one case, or
            (unless `allow_missing`) no prediction for a case.
    """
    for path in (truths, predictions):
        if not path.exists():
            raise MipError(f"{path}: no such file or folder")
    if truths.is_file() != predictions.is_file():
        file, folder = (truths, predictions) if truths.is_file() else (predictions, truths)
        raise MipError(f"{file}: is a file but {folder} is a folder; give two files or two folders")
    if truths.is_file():
        if has_suffix(truths, (PNG_SUFFIX,)) != has_suffix(predictions, (PNG_SUFFIX,)):
            raise MipError(f"{predictions}: is another kind of file than its truth {truths}")
        return Matches([Pair(_case_of_file(truths), truths, predictions)], [])

    wanted, is_png = _truths_in(truths)
    suffixes = (PNG_SUFFIX,) if is_png else VOLUME_SUFFIXES
    available = _files_by_key(predictions, suffixes)
    pairs, used, missing = [], set(), []
    for truth in wanted:
        names = [truth.case, *_other_names(truth.path, truths)]
        key = next((name for name in names if name in available), None)
        if key is None and truth.is_control_image:
            continue
        if key is None:
            missing.append(predictions / f"{truth.case}{suffixes[0]}")
        used.add(key)
        pairs.append(Pair(truth.case, truth.path, available.get(key), truth.is_control_image))
    if not any(pair.prediction for pair in pairs):
        raise MipError(
            f"{predictions}: holds no prediction for any of the {len(wanted)} cases of {truths} "
            f"(expected files such as {(missing or [predictions])[0].name})"
        )
    if missing and not allow_missing:
        raise MipError(
            f"{missing[0]}: no such prediction ({len(missing)} of {len(pairs)} cases have none); "
            "predict them, or count them as empty with --allow-missing"
        )
    pairs.sort(key=lambda pair: pair.case)
    unused = available.keys() - used
    ignored = sorted(available[key].relative_to(predictions).as_posix() for key in unused)
    return Matches(pairs, ignored)


def score_pair(pair: Pair, min_overlap: float = 0.0) -> tuple[str, dict]:
    """Read and score one case.

    Returns:
        its kind ("png", "volume", "stack") and its scores by name.

    Raises:
        MipError: unreadable, differing sizes or grids, or other labels than allowed.
    """
    if has_suffix(pair.truth, (PNG_SUFFIX,)):
        kind, scores = "png", metrics.image_scores(*_read_images(pair), min_overlap)
    else:
        kind, scores = _score_volume(pair, min_overlap)
    row = asdict(scores)
    row |= row.pop("lesion", {})
    row["has_lesion"] = not math.isnan(scores.dice)  # Dice is NaN exactly when the truth is empty
    row["missing_prediction"] = pair.prediction is None
    return kind, row


def _score_volume(
    pair: Pair, min_overlap: float
) -> tuple[str, metrics.StackScores | metrics.VolumeScores]:
    truth = read_volume(pair.truth)
    is_stack = is_stack_file(pair.truth)
    true_mask = _checked_labels(truth, (0, 1, IGNORE_LABEL) if is_stack else None)
    prediction = np.zeros(true_mask.shape, bool)
    if pair.prediction is not None:
        predicted = read_volume(pair.prediction)
        require_same_grid(predicted, truth)
        prediction = _checked_labels(predicted, None) != 0
    if not is_stack:
        spacing_mm = truth.spacing_mm
        return "volume", metrics.volume_scores(prediction, true_mask, spacing_mm, min_overlap)
    # An ignored pixel is background in both.
    prediction &= true_mask != IGNORE_LABEL
    return "stack", metrics.stack_scores(prediction, true_mask == 1)


def summarise(cases: dict[str, dict]) -> dict:
    """Mean, interval, pooled lesion scores, controls and counts of per-case scores."""
    rows = list(cases.values())
    floats = [name for name, value in rows[0].items() if isinstance(value, float)]
    pixels = [name for name in rows[0] if name.endswith("_pixels")]
    controls = [row for row in rows if not row["has_lesion"]]
    error = next(n for n in rows[0] if n.startswith("false_positive_"))
    counts = {
        "cases": len(rows),
        "with_lesions": len(rows) - len(controls),
        "controls": len(controls),
        "missing_predictions": sum(row["missing_prediction"] for row in rows),
    }
    summary = {
        "mean": {name: _mean([row[name] for row in rows]) for name in floats + pixels},
        "dice_interval_95": list(
            metrics.bootstrap_interval([row["dice"] for row in rows], BOOTSTRAP_SEED)
        ),
        "controls": {
            "with_false_positives": sum(row[error] > 0 for row in controls),
            f"mean_{error}": _mean([row[error] for row in controls]),
        },
        "counts": counts,
    }
    if "lesions" in rows[0]:
        names = ("lesions", "lesions_found", "predicted_lesions", "predicted_lesions_right")
        counts |= {name: sum(row[name] for row in rows) for name in names}
        summary["pooled"] = {
            "lesion_recall": _ratio(counts["lesions_found"], counts["lesions"]),
            "lesion_precision": _ratio(
                counts["predicted_lesions_right"], counts["predicted_lesions"]
            ),
        }
    return summary


@dataclass(frozen=True)
class _Truth:
    case: str
    path: Path
    is_control_image: bool = False


def _truths_in(folder: Path) -> tuple[list[_Truth], bool]:
    """The truths of a folder, and whether they are PNGs."""
    if (folder / "patients" / "labels").is_dir():
        masks = sorted(_files(folder / "patients" / "labels", (PNG_SUFFIX,)))
        controls = folder / "controls" / "imgs"
        images = sorted(_files(controls, (PNG_SUFFIX,))) if controls.is_dir() else []
        found = [_Truth(_case_of_file(path), path) for path in masks]
        return _unique([*found, *(_Truth(_stem(path), path, True) for path in images)]), True
    if (folder / SUV_NAME).is_file():
        return _studies_in(folder), False
    images, volumes = _files(folder, (PNG_SUFFIX,)), _files(folder, VOLUME_SUFFIXES)
    if images and volumes:
        raise MipError(f"{folder}: holds PNGs and volumes; evaluate them separately")
    if images or volumes:
        found = [_Truth(_case_of_file(path), path) for path in sorted(images or volumes)]
        return _unique(found), bool(images)
    if (folder / "labelsTr").is_dir():
        return _labels_in(folder), False
    return _studies_in(folder), False


def _studies_in(folder: Path) -> list[_Truth]:
    found = [_Truth(study.case, study.seg) for study in find_studies(folder) if study.seg]
    if not found:
        raise MipError(f"{folder}: no study in it has a {SEG_NAME} to compare with")
    return found


def _labels_in(folder: Path) -> list[_Truth]:
    """The labels of a nnU-Net data set, named as the converters name the cases of a release."""
    names = {}
    if any((folder / "imagesTr").glob("*_0001.nii.gz")):
        names = {study.seg: study.case for study in find_studies(folder) if study.seg}
    labels = sorted(_files(folder / "labelsTr", VOLUME_SUFFIXES))
    if not labels:
        raise MipError(f"{folder / 'labelsTr'}: holds no label files")
    return _unique([_Truth(names.get(path, _stem(path)), path) for path in labels])


def _unique(truths: list[_Truth]) -> list[_Truth]:
    seen: dict[str, Path] = {}
    for truth in truths:
        if truth.case in seen:
            raise MipError(f"{truth.path}: names the same case as {seen[truth.case]}; remove one")
        seen[truth.case] = truth.path
    return truths


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and has_suffix(path, suffixes) and not path.name.startswith(".")
    ]


def _files_by_key(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by stem at the top level and by relative path below it."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or not has_suffix(path, suffixes) or not path.is_file():
            continue
        key = (relative.parent / _stem(path)).as_posix()
        if key in found:
            raise MipError(f"{path}: predicts the same case as {found[key]}; remove one")
        found[key] = path
    return found


def _other_names(truth: Path, folder: Path) -> list[str]:
    """The file's own stem; `<patient>/<study>/SEG` and `<patient>/<study>` inside a tree."""
    if truth.name != SEG_NAME:
        return [_stem(truth)]
    if not truth.is_relative_to(folder) or truth.parent == folder:
        return []
    parent = truth.parent.relative_to(folder)
    return [(parent / _stem(truth)).as_posix(), parent.as_posix()]


def _stem(path: Path) -> str:
    known = (PNG_SUFFIX, *VOLUME_SUFFIXES)
    suffix = next((s for s in known if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise MipError(f"{path}: unknown kind of mask; use one of {', '.join(known)}")
    return path.name[: -len(suffix)]


def _case_of_file(path: Path) -> str:
    """The stem; the DM-i-AI mask `segmentation_017.png` belongs to the case `patient_017`."""
    stem = _stem(path)
    if has_suffix(path, (PNG_SUFFIX,)) and stem.startswith("segmentation_"):
        return "patient_" + stem.removeprefix("segmentation_")
    return stem


def _run(score: Callable, pairs: list[Pair], processes: int, show_progress: bool) -> Generator:
    """Results in the order of `pairs`; PNGs are too quick to be worth a process or a bar."""
    if has_suffix(pairs[0].truth, (PNG_SUFFIX,)):
        yield from map(score, pairs)
        return
    from tqdm import tqdm

    bar = partial(tqdm, total=len(pairs), desc="evaluate", unit="case", disable=not show_progress)
    workers = min(processes, len(pairs))
    if workers <= 1:
        yield from bar(map(score, pairs))
        return
    # SimpleITK runs threads, and forking a process with threads can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from bar(pool.map(score, pairs))


def _read_images(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, (row, column)."""
    if pair.is_control_image:
        truth = np.zeros(decode_png(pair.truth).shape, np.uint8)
    else:
        truth = decode_mask_png(pair.truth)
    if pair.prediction is None:
        return np.zeros_like(truth), truth
    prediction = decode_mask_png(pair.prediction)
    if prediction.shape != truth.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (prediction.shape, truth.shape)]
        raise MipError(
            f"{pair.prediction}: has {sizes[0]} pixels but {pair.truth} has {sizes[1]}; "
            "predict at the size of the image"
        )
    return prediction, truth


def _checked_labels(volume: Volume, allowed: tuple[int, ...] | None) -> np.ndarray:
    """The array, after a check that it holds only `allowed`, or 0 and one other value."""
    array = volume.array
    values = (0, array.max()) if allowed is None else allowed
    strange = np.ones(array.shape, bool)
    for value in values:
        strange &= array != value
    if strange.any():
        shown = ", ".join(f"{value:g}" for value in np.unique(array[strange])[:6])
        wanted = "0 and one other value" if allowed is None else "0, 1 and 2 (ignore)"
        raise MipError(f"{volume.path}: is not a mask of {wanted}; it holds also {shown}")
    return array


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _null_for_nan(content):
    if isinstance(content, dict):
        return {key: _null_for_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_null_for_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
