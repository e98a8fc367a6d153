"""Cross-fitted scores: calibrated thresholds on patients they were not chosen on.

    python benchmarks/dmiai/calibrate.py -d 10 -i recipes_out/recipe
        --scores benchmarks/dmiai/scores/FOLDER [--copies clean perturbed]

Reads the out-of-fold probabilities that `recipes.py` left. Each fold's network is scored on every
fifth of its patients with the threshold and the smallest component chosen on the other four, over
all `--copies` together. The scores are kept as the recipe "NAME calibrated" beside those of NAME.
With --by_fold each fold is scored with the choice of the other folds instead, the rule for healthy
images included, as a model's own settings are chosen on all folds: "NAME calibrated by fold".

The choice for a model itself is made by a command:

    nnUNetv2_mip_calibrate -m MODEL --write
        -i recipes_out/recipe/probabilities/clean recipes_out/recipe/probabilities/perturbed
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import recipe_scores as scores

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.healthy_calibration import calibrate_healthy, evidence_of_areas
from nnunetv2_mip.evaluation.threshold_calibration import calibrate, cross_fitted_choices
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.postprocessing import mask_of_image
from nnunetv2_mip.nnunet.paths import raw_dataset

# Image, kind of copy, probability (H, W).
Prediction = tuple[scores.Image, str, np.ndarray]


def keep_calibrated(
    raw: Path, source: Path, copies: list[str], folder: Path, by_fold: bool = False
) -> None:
    """Add the recipe "NAME calibrated" (or "… by fold") to a score folder, fold by fold.

    Args:
        raw: raw data set.
        source: folder of the recipe NAME, from `recipes.py`.
        copies: kinds of copies to choose on and to score.
        folder: of the scores; must hold those of NAME.
        by_fold: choose on the other folds.

    Raises:
        MipError: no scores of NAME, or a prediction is missing.
    """
    kept = scores.ScoreFolder(folder)
    trainings = [row for row in kept.trainings() if row["recipe"] == source.name]
    if not trainings:
        raise MipError(f"{folder}: no recipe {source.name}; run recipes.py --scores first")
    seconds = {
        (row["case"], row["copy"]): row["seconds"]
        for row in kept.rows()
        if row["recipe"] == source.name
    }
    folds = [int(training["fold"]) for training in trainings]
    predicted = {fold: _predictions(raw, source, copies, fold) for fold in folds}
    name = f"{source.name} calibrated{' by fold' if by_fold else ''}"
    for training, fold in zip(trainings, folds):
        if by_fold:
            others = [found for other in folds if other != fold for found in predicted[other]]
            configs = [_choice(others)] * len(predicted[fold])
        else:
            choices = cross_fitted_choices(_with_truth(predicted[fold]))
            configs = [InferenceConfig(threshold=t, min_component_px=px) for t, px in choices]
        rows = []
        for (image, kind, probability), config in zip(predicted[fold], configs):
            about = {"recipe": name, "fold": training["fold"]}
            about |= {"case": image.case, "patient": image.patient, "copy": kind}
            scored = scores.score(image, mask_of_image(probability, config).astype(bool))
            rows.append(about | scored | {"seconds": seconds[image.case, kind]})
        kept.add(
            rows,
            int(training["iterations"]),
            int(training["parameters"]),
            float(training["minutes"]),
        )


def _choice(predicted: list[Prediction]) -> InferenceConfig:
    """Settings as `nnUNetv2_mip_calibrate --healthy` chooses them."""
    found = calibrate(_with_truth(predicted))
    healthy = calibrate_healthy(
        [evidence_of_areas(probability) for _, _, probability in predicted],
        found.image_dice,
        [image.patient for image, _, _ in predicted],
    )
    print(
        f"chosen: threshold {found.threshold}, smallest component {found.min_component_px} px, "
        f"healthy below {healthy.rule.log_odds} (mean log odds of {healthy.rule.area_mm2:g} mm²)"
    )
    return InferenceConfig(
        threshold=found.threshold,
        min_component_px=found.min_component_px,
        healthy_image=healthy.rule,
    )


def _with_truth(predicted: list[Prediction]) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    for image, _, probability in predicted:
        yield probability, image.truth, image.patient


def _predictions(raw: Path, source: Path, copies: list[str], fold: int) -> list[Prediction]:
    """Predictions of a fold's validation images."""
    predicted = []
    for kind in copies:
        for image in scores.images_of(raw, scores.folds_of(raw)[fold]["val"]):
            path = source / "probabilities" / kind / f"{image.case}.npz"
            if not path.is_file():
                raise MipError(f"{path}: no such prediction; run recipes.py")
            predicted.append((image, kind, scores.load_probability(path)))
    return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-i", type=Path, required=True, help="a recipe's folder of recipes.py")
    parser.add_argument("--copies", nargs="+", default=["clean", "perturbed"])
    parser.add_argument("--scores", type=Path, required=True, help="score folder to add to")
    parser.add_argument("--by_fold", action="store_true", help="choose on the other folds")
    args = parser.parse_args()
    keep_calibrated(raw_dataset(args.d), args.i.resolve(), args.copies, args.scores, args.by_fold)


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"calibrate.py: {error}") from None
