"""Cross-fitted scores: calibrated thresholds on patients they were not chosen on.

    python benchmarks/dmiai/calibrate.py -d 10 -i recipes_out/recipe
        --scores benchmarks/dmiai/scores/FOLDER [--copies clean perturbed]

Reads the out-of-fold probabilities that `recipes.py` left. Each fold's network is scored on every
fifth of its patients with the threshold and the smallest component chosen on the other four, over
all `--copies` together. The scores are kept as the recipe "NAME calibrated" beside those of NAME.

The choice for a model itself is made by a command:

    nnUNetv2_mip_calibrate -m MODEL --write
        -i recipes_out/recipe/probabilities/clean recipes_out/recipe/probabilities/perturbed
"""

import argparse
from pathlib import Path

import numpy as np
import recipe_scores as scores

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.threshold_calibration import cross_fitted_choices
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.nnunet.paths import raw_dataset


def keep_calibrated(raw: Path, source: Path, copies: list[str], folder: Path) -> None:
    """Add the recipe "NAME calibrated" to a score folder, fold by fold.

    Args:
        raw: raw data set.
        source: folder of the recipe NAME, from `recipes.py`.
        copies: kinds of copies to choose on and to score.
        folder: of the scores; must hold those of NAME.

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
    for training in trainings:
        predicted = _predictions(raw, source, copies, int(training["fold"]))
        choices = cross_fitted_choices(
            (probability, image.truth, image.patient) for image, _, probability in predicted
        )
        rows = []
        for (image, kind, probability), (threshold, size) in zip(predicted, choices):
            config = InferenceConfig(threshold=threshold, min_component_px=size)
            about = {"recipe": f"{source.name} calibrated", "fold": training["fold"]}
            about |= {"case": image.case, "patient": image.patient, "copy": kind}
            scored = scores.score(image, mask_of_view(probability, config).astype(bool))
            rows.append(about | scored | {"seconds": seconds[image.case, kind]})
        kept.add(
            rows,
            int(training["iterations"]),
            int(training["parameters"]),
            float(training["minutes"]),
        )


def _predictions(
    raw: Path, source: Path, copies: list[str], fold: int
) -> list[tuple[scores.Image, str, np.ndarray]]:
    """Image, kind of copy and probability (H, W) of a fold's validation images."""
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
    args = parser.parse_args()
    keep_calibrated(raw_dataset(args.d), args.i.resolve(), args.copies, args.scores)


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"calibrate.py: {error}") from None
