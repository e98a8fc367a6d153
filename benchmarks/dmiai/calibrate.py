"""Choose threshold and smallest component from out-of-fold predictions of `recipes.py`.

    python benchmarks/dmiai/calibrate.py -d 10 -i recipes_out/recipe
        [--copies clean perturbed] [-m MODEL]
    python benchmarks/dmiai/calibrate.py -d 10 -i recipes_out/recipe
        --scores benchmarks/dmiai/scores/FOLDER

Reads the probabilities that `recipes.py` left, each of a network that did not see the patient, and
chooses for the mean per-image Dice over all `--copies` together. With -m the choice is written into
that model folder's inference.json; --prefilter NAME is written with it.

With --scores nothing is chosen for good: each fold's network is judged on every fifth of its
patients by the choice made on the other four, and the scores are kept as the recipe
"NAME calibrated" beside those of NAME.
"""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

import recipe_scores as scores

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.threshold_calibration import calibrate, cross_fitted_choices
from nnunetv2_mip.files import write_json
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.nnunet.paths import raw_dataset


def keep_calibrated(raw: Path, source: Path, copies: list[str], folder: Path) -> None:
    """Scores at thresholds and components that are cross-fitted within each fold."""
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
        images, probabilities = [], []
        cases = scores.folds_of(raw)[int(training["fold"])]["val"]
        for kind in copies:
            for image in scores.images_of(raw, cases):
                path = source / "probabilities" / kind / f"{image.case}.npz"
                if not path.is_file():
                    raise MipError(f"{path}: no such prediction; run recipes.py")
                images.append((image, kind))
                probabilities.append(scores.load_probability(path))
        choices = cross_fitted_choices(
            probabilities,
            [image.truth for image, _ in images],
            [image.patient for image, _ in images],
        )
        rows = []
        for (image, kind), probability, (threshold, size) in zip(images, probabilities, choices):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-i", type=Path, required=True, help="a recipe's folder of recipes.py")
    parser.add_argument("--copies", nargs="+", default=["clean", "perturbed"])
    parser.add_argument("-m", type=Path, help="model folder to write the choice into")
    parser.add_argument("--prefilter", help="none or impulse, written with -m")
    parser.add_argument("--scores", type=Path, help="keep cross-fitted scores here; see above")
    args = parser.parse_args()
    raw = raw_dataset(args.d)
    if args.scores is not None:
        keep_calibrated(raw, args.i.resolve(), args.copies, args.scores)
        return
    probabilities, truths, patients = [], [], []
    for kind in args.copies:
        found = {path.stem: path for path in (args.i / "probabilities" / kind).glob("*.npz")}
        if not found:
            raise MipError(f"{args.i / 'probabilities' / kind}: no predictions; run recipes.py")
        for image in scores.images_of(raw, sorted(found)):
            probabilities.append(scores.load_probability(found[image.case]))
            truths.append(image.truth)
            patients.append(image.patient)
    choice = calibrate(probabilities, truths, patients)
    write_json(args.i / "calibration.json", {"copies": args.copies, **asdict(choice)})
    print(
        f"threshold {choice.threshold}, smallest component {choice.min_component_px} pixels: "
        f"Dice {choice.dice:.3f} on {choice.images} images of {choice.patients} patients "
        f"(cross-fitted {choice.dice_cross_fitted:.3f}; at 0.5 with nothing dropped "
        f"{choice.dice_default:.3f})"
    )
    if args.m is not None:
        config = replace(
            InferenceConfig.load(args.m),
            threshold=choice.threshold,
            min_component_px=choice.min_component_px,
        )
        if args.prefilter:
            config = replace(config, prefilter=args.prefilter)
        print(config.save(args.m))


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"calibrate.py: {error}") from None
