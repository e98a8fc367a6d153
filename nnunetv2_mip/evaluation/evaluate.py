"""Evaluation of predicted masks on disk: matched with the truth, scored, summarised, written.

Which prediction belongs to which truth: `nnunetv2_mip.evaluation.matching`.
"""

import csv
import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_mip.conventions import IGNORE_LABEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.case_scores import (
    ImageScores,
    StackScores,
    VolumeScores,
    image_scores,
    stack_scores,
    volume_scores,
)
from nnunetv2_mip.evaluation.matching import Pair, match
from nnunetv2_mip.evaluation.summary import summarise
from nnunetv2_mip.files import atomic_path, null_for_nan, write_json
from nnunetv2_mip.io.dicom.masks import is_dicom_file, read_dicom_mask_on
from nnunetv2_mip.io.png import PNG_SUFFIX, decode_png
from nnunetv2_mip.io.png_masks import decode_mask_png, decode_truth_png
from nnunetv2_mip.io.read_study import new_warnings, read_study_files
from nnunetv2_mip.io.volumes import (
    Volume,
    has_suffix,
    inverted_warning,
    read_volume,
    require_same_grid,
)
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.views.stack_files import is_stack_file

FORMAT_VERSION = 1


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
    """Report on all cases of a folder, or on one file against another.

    Args:
        predictions, truths: folders or files, see `matching`.
        allow_missing: count a missing prediction as an empty one.
        only_predicted: leave cases without a prediction out, and name them.
        min_overlap: fraction of a lesion that must be overlapped, see `lesion_scores`.
        processes: processes for volumes and stacks.
        show_progress: draw a progress bar over volumes and stacks.

    Returns:
        the report, NaN where a score is not defined: `format_version`, `kind` ("png", "volume" or
        "stack"), `cases` {case: {score: value}}, `mean` {score: over the cases where it is
        defined}, `dice_interval_95` [low, high] (bootstrap over cases), `pooled` (recall and
        precision over all lesions together; not for stacks), `controls` (false positives where
        the truth is empty), `counts`, `min_overlap`, `missing_predictions`, `ignored_predictions`,
        `controls_left_out` (controls without a prediction), `not_predicted` (other cases without
        one, left out), and `warnings` about their files where there are any.

    Raises:
        MipError: no truth, a missing prediction, an unreadable file, differing sizes or grids,
            other labels than allowed, or truths of several kinds.
    """
    matches = match(Path(predictions), Path(truths), allow_missing, only_predicted=only_predicted)
    score = partial(score_pair, min_overlap=min_overlap)
    cases, first_kind, lines = {}, None, []
    with closing(_score_all(score, matches.pairs, processes, show_progress)) as results:
        for (kind, scores), pair in zip(results, matches.pairs):  # results first, so they run out
            first_kind = first_kind or kind
            if kind != first_kind:
                raise MipError(
                    f"{pair.truth}: is a {kind} but {matches.pairs[0].truth} is a {first_kind}; "
                    "evaluate them separately"
                )
            lines += scores.pop("warnings", [])
            cases[pair.case] = scores
    report: dict[str, Any] = {"format_version": FORMAT_VERSION, "kind": first_kind, "cases": cases}
    report |= summarise(cases)
    report["counts"]["ignored_predictions"] = len(matches.ignored)
    report["min_overlap"] = min_overlap
    report["missing_predictions"] = [c for c in cases if cases[c]["missing_prediction"]]
    report["ignored_predictions"] = matches.ignored
    report["controls_left_out"] = matches.left_out
    report["not_predicted"] = matches.not_predicted
    if lines:
        report["warnings"] = lines
    return report


def write_report(report: dict, path: Path | str) -> Path:
    """Path of the CSV that is written beside the JSON report.

    The JSON holds `report`, NaN as null. The CSV holds its cases, one a row, columns in the order
    of the scores, NaN as an empty cell.

    Args:
        report: of `evaluate`.
        path: of the JSON.

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
    """Kind of one case ("png", "volume", "stack") and its scores by name (and `warnings`, if any).

    Raises:
        MipError: unreadable, differing sizes or grids, or other labels than allowed.
    """
    scores: ImageScores | StackScores | VolumeScores
    lines: list[str] = []
    if has_suffix(pair.truth, (PNG_SUFFIX,)):
        kind, scores = "png", image_scores(*_read_images(pair), min_overlap)
    else:
        kind, scores = _score_volume(pair, min_overlap, lines)
    row: dict[str, Any] = asdict(scores)
    row |= row.pop("lesion", {})
    row["has_lesion"] = not math.isnan(scores.dice)  # Dice is NaN exactly when the truth is empty
    row["missing_prediction"] = pair.prediction is None
    if lines:
        row["warnings"] = lines
    return kind, row


def _read_volumes(pair: Pair, lines: list[str]) -> tuple[Volume, Volume | None]:
    """Truth and prediction; a DICOM SEG or RTSTRUCT is put on the grid of the other file."""
    if pair.study is not None:
        study = read_study_files(pair.study)
        lines += study.warnings
        if study.seg is None:
            raise MipError(f"{pair.truth}: holds no lesion mask")
        if pair.prediction is not None and is_dicom_file(pair.prediction):
            return study.seg, read_dicom_mask_on(pair.prediction, study.grid, lines.append)
        return study.seg, None if pair.prediction is None else read_volume(pair.prediction)
    if not is_dicom_file(pair.truth):
        truth = read_volume(pair.truth)
        if pair.prediction is not None and is_dicom_file(pair.prediction):
            return truth, read_dicom_mask_on(pair.prediction, truth.grid, lines.append)
        return truth, None if pair.prediction is None else read_volume(pair.prediction)
    if pair.prediction is None or is_dicom_file(pair.prediction):
        raise MipError(
            f"{pair.truth}: a DICOM mask has no grid of its own; score it against a prediction as "
            "NIfTI, MHA or NRRD (or leave cases without one out with --only_predicted)"
        )
    predicted = read_volume(pair.prediction)
    return read_dicom_mask_on(pair.truth, predicted.grid, lines.append), predicted


def _score_volume(
    pair: Pair, min_overlap: float, lines: list[str]
) -> tuple[str, StackScores | VolumeScores]:
    truth, predicted = _read_volumes(pair, lines)
    lines += [line for line in truth.warnings if line not in lines]
    is_stack = pair.study is None and is_stack_file(pair.truth)
    true_mask = _checked_labels(truth, (0, 1, IGNORE_LABEL) if is_stack else None)
    doubt = None if is_stack else inverted_warning(true_mask, truth.path)
    lines += [doubt] if doubt and doubt not in lines else []
    prediction = np.zeros(true_mask.shape, bool)
    if predicted is not None:
        require_same_grid(predicted, truth)
        lines += new_warnings(predicted, truth)
        prediction = _checked_labels(predicted, None) != 0
    if not is_stack:
        spacing_mm = truth.spacing_mm
        return "volume", volume_scores(prediction, true_mask, spacing_mm, min_overlap)
    # An ignored pixel is background in both.
    prediction &= true_mask != IGNORE_LABEL
    return "stack", stack_scores(prediction, true_mask == 1)


def _score_all(
    score: Callable, pairs: list[Pair], processes: int, show_progress: bool
) -> Generator:
    """Results in the order of `pairs`; PNGs need no further processes."""
    from tqdm import tqdm

    hidden = None if show_progress else True
    bar = partial(tqdm, total=len(pairs), desc="evaluate", unit="case", disable=hidden)
    if has_suffix(pairs[0].truth, (PNG_SUFFIX,)):
        yield from bar(map(score, pairs))
        return
    with closing(for_each(score, pairs, processes, in_order=True)) as results:
        yield from bar(scores for _, scores in results)


def _read_images(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, (row, column)."""
    if pair.is_control_image:
        truth = np.zeros(decode_png(pair.truth).shape, np.uint8)
    else:
        truth = decode_truth_png(pair.truth)
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
    unexpected = np.ones(array.shape, bool)
    for value in values:
        unexpected &= array != value
    if unexpected.any():
        shown = ", ".join(f"{value:g}" for value in np.unique(array[unexpected])[:6])
        wanted = "0 and one other value" if allowed is None else "0, 1 and 2 (ignore)"
        raise MipError(f"{volume.path}: is not a mask of {wanted}; it holds also {shown}")
    return array
