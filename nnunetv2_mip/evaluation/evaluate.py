"""Evaluate predicted masks on disk: match them with the truth, score, summarise, write.

What is matched with what stands in `nnunetv2_mip.evaluation.matching`.
"""

import csv
import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import IGNORE_LABEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation import metrics
from nnunetv2_mip.evaluation.bootstrap import bootstrap_interval
from nnunetv2_mip.evaluation.matching import Pair, match
from nnunetv2_mip.files import atomic_path, null_for_nan, write_json
from nnunetv2_mip.io.png import PNG_SUFFIX, decode_mask_png, decode_png
from nnunetv2_mip.io.volumes import (
    Volume,
    has_suffix,
    read_volume,
    require_same_grid,
)
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.views.stack_files import is_stack_file

FORMAT_VERSION = 1
BOOTSTRAP_SEED = 0


def evaluate(
    predictions: Path | str,
    truths: Path | str,
    *,
    allow_missing: bool = False,
    only_predicted: bool = False,
    min_overlap: float = 0.0,
    processes: int = 1,
    show_progress: bool = False,
) -> dict:
    """Score all cases of a folder, or one file against another.

    Args:
        predictions, truths: folders or files, see the module.
        allow_missing: count a missing prediction as an empty one.
        only_predicted: leave cases without a prediction out, and name them.
        min_overlap: fraction of a lesion that must be overlapped, see `metrics.lesion_scores`.
        processes: processes for volumes and stacks.
        show_progress: draw a progress bar over volumes and stacks.

    Returns:
        the report, NaN where a score is not defined: `format_version`, `kind` ("png", "volume" or
        "stack"), `cases` {case: {score: value}}, `mean` {score: over the cases where it is
        defined}, `dice_interval_95` [low, high] (bootstrap over cases), `pooled` (recall and
        precision over all lesions together; not for stacks), `controls` (false positives where
        the truth is empty), `counts`, `min_overlap`, `missing_predictions`, `ignored_predictions`,
        `controls_left_out` (controls without a prediction), `not_predicted` (other cases without
        one, left out).

    Raises:
        MipError: no truth, a missing prediction, an unreadable file, differing sizes or grids,
            other labels than allowed, or truths of several kinds.
    """
    matches = match(Path(predictions), Path(truths), allow_missing, only_predicted=only_predicted)
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
    report["controls_left_out"] = matches.left_out
    report["not_predicted"] = matches.not_predicted
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
                row = [null_for_nan(scores[column]) for column in columns]
                writer.writerow([case, *[int(v) if isinstance(v, bool) else v for v in row]])
        write_json(path, null_for_nan(report))
    return table


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


def worst_first(cases: dict[str, dict]) -> list[str]:
    """Names of the cases: lowest Dice first, then the controls, most false positives first."""
    error = _false_positive_name(next(iter(cases.values())))

    def badness(case: str) -> tuple:
        scores = cases[case]
        undefined = math.isnan(scores["dice"])
        return undefined, 0.0 if undefined else scores["dice"], -scores[error]

    return sorted(cases, key=badness)


def _false_positive_name(scores: dict) -> str:
    return next(name for name in scores if name.startswith("false_positive_"))


def summarise(cases: dict[str, dict]) -> dict:
    """Mean, interval, pooled lesion scores, controls and counts of per-case scores."""
    rows = list(cases.values())
    floats = [name for name, value in rows[0].items() if isinstance(value, float)]
    pixels = [name for name in rows[0] if name.endswith("_pixels")]
    controls = [row for row in rows if not row["has_lesion"]]
    error = _false_positive_name(rows[0])
    counts = {
        "cases": len(rows),
        "with_lesions": len(rows) - len(controls),
        "controls": len(controls),
        "missing_predictions": sum(row["missing_prediction"] for row in rows),
    }
    summary = {
        "mean": {name: _mean([row[name] for row in rows]) for name in floats + pixels},
        "dice_interval_95": list(bootstrap_interval([row["dice"] for row in rows], BOOTSTRAP_SEED)),
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


def _run(score: Callable, pairs: list[Pair], processes: int, show_progress: bool) -> Generator:
    """Results in the order of `pairs`; PNGs are too quick to be worth a process or a bar."""
    if has_suffix(pairs[0].truth, (PNG_SUFFIX,)):
        yield from map(score, pairs)
        return
    from tqdm import tqdm

    bar = partial(tqdm, total=len(pairs), desc="evaluate", unit="case", disable=not show_progress)
    with closing(for_each(score, pairs, processes, in_order=True)) as results:
        yield from bar(scores for _, scores in results)


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
