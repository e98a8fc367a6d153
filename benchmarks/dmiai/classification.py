"""Classification of DM-i-AI images: five folds, baselines, and the bundled classifier.

    python benchmarks/dmiai/classification.py table -d ID --network MODEL --splits SPLITS -o OUT
    python benchmarks/dmiai/classification.py stacked -d ID --network MODEL --splits SPLITS -o OUT
    python benchmarks/dmiai/classification.py whole -d ID --network MODEL --splits SPLITS -o OUT
    python benchmarks/dmiai/classification.py both -d ID --network MODEL --splits SPLITS -o OUT
    python benchmarks/dmiai/classification.py bundle -d ID --network MODEL --splits SPLITS -o OUT
    python benchmarks/dmiai/classification.py robust -d ID --splits SPLITS [--images 24]

The data set ID has all patients and controls (`nnUNetv2_mip_convert_dmiai` without --controls).
MODEL has a segmentation network for every fold of SPLITS, trained on that fold's training part.
Controls that SPLITS does not name are in no training part and are assigned to folds at random.

`table`: every image is scored once, by a head on the features of a network not trained on it.
Columns: `frozen encoder` all features, `lesion probability` its log odds and the uptake there (both
heads are fitted on that network's features of images that it was trained on);
`height alone` and `margins` (nothing from inside the body). Natural ratio with the threshold of the
best expected F1 at that ratio, and one to one with heights matched: every patient with a random
control of the same 40 mm bin of heights, 200 matchings, 10 bootstrap draws of the pairs of each.
Thresholds and calibration come from out-of-fold scores within the training part.

`stacked`: `lesion probability` with every figure, of the images that the head is fitted on too, by
a network not trained on the image: `nnUNetv2_mip_classify train --fold_networks`.

`whole`: networks of their own, from scratch or (--fine_tune) from each fold's encoder; from scratch
MODEL only prepares the images, so that all five folds can be validated. Each fold's network scores
the images of its fold; calibration and threshold are fitted on the other folds' scores.

`both`: `stacked` and `whole` from scratch, the mean of both; each alone, and the two baselines.

`bundle`: `both`, MODEL being the five networks of the bundled network's recipe; with --write head
and network go into the folder of the bundled network, which was trained on all images and is asked
alone: no image is left to validate them together.

`robust`: the bundled head on images of SPLITS' fold 0 with air added and rows cut away.

Features are kept in OUT/cache (`robust`: not), so that a second run takes a minute.
"""

import argparse
from pathlib import Path

import numpy as np

from nnunetv2_mip.classification.baselines import (
    height_features,
    image_height_mm,
    margin_features,
)
from nnunetv2_mip.classification.classifier import load_classifier
from nnunetv2_mip.classification.classifier_file import FILE_NAME, write_classifier
from nnunetv2_mip.classification.cross_validation import (
    OutOfFold,
    cross_validate,
    frozen_fit,
    scored_fit,
)
from nnunetv2_mip.classification.data import LabelledStudy, labelled_studies, studies_of
from nnunetv2_mip.classification.evaluation import describe, evaluate_out_of_fold
from nnunetv2_mip.classification.features import LESION_GROUPS, FeatureExtractor
from nnunetv2_mip.classification.network_training import EPOCHS
from nnunetv2_mip.classification.study_labels import StudyLabel
from nnunetv2_mip.classification.train import training_folds
from nnunetv2_mip.classification.trainer import ClassifierTrainer, TrainingOptions
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import write_json
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import bundled_model
from nnunetv2_mip.nnunet.paths import raw_dataset

# Fold whose images `robust` takes.
ROBUST_FOLD = 0


class Cohort:
    """Images of a data set with their folds, heights and features."""

    def __init__(self, args: argparse.Namespace):
        raw = raw_dataset(args.d)
        self.labelled: list[LabelledStudy] = labelled_studies(raw, 1)
        studies = studies_of(self.labelled)
        self.folds = training_folds(raw, studies, args.splits)
        kept = [n for n, study in enumerate(studies) if self.folds[study.case] in args.folds]
        self.validated_folds = args.folds
        # A fold without a network of its own is not validated, but trained on.
        self.validated = kept
        self.studies: list[StudyLabel] = studies
        self.heights = [image_height_mm(*item.levels()) for item in self.labelled]

    def bags(self, network: Path, fold: int, cache: Path) -> tuple[list, FeatureExtractor]:
        """Features of all images by the network of one fold."""
        predictor = MIPPredictor.from_model_folder(network, [fold], device="cpu")
        extractor = FeatureExtractor(predictor, cache / str(fold))
        return [extractor.features(*item.levels()) for item in self.labelled], extractor

    def cross_validate(self, fit) -> OutOfFold:
        """Out-of-fold results of the folds that have a network."""
        results = cross_validate(self.studies, self.folds, fit, set(self.validated_folds))
        return OutOfFold(*(values[self.validated] for values in vars(results).values()))

    def evaluate(self, results: OutOfFold):
        """Evaluation of the validated images."""
        return evaluate_out_of_fold(
            [self.studies[n] for n in self.validated],
            results,
            [self.heights[n] for n in self.validated],
        )


def table(args: argparse.Namespace) -> None:
    cohort = Cohort(args)
    features = {fold: cohort.bags(args.network, fold, args.o / "cache") for fold in args.folds}
    extractor = features[args.folds[0]][1]
    methods = baselines(cohort)
    methods["lesion probability"] = (
        lambda fold: features[fold][0],
        extractor.layout.columns(*LESION_GROUPS),
    )
    methods["frozen encoder"] = (lambda fold: features[fold][0], extractor.layout.columns())
    evaluate_methods(cohort, methods, args.o / "table.json")


def baselines(cohort: Cohort) -> dict:
    """Methods of `evaluate_methods` on the baseline features."""
    simple = {
        "height alone": [height_features(*item.levels()) for item in cohort.labelled],
        "margins": [margin_features(*item.levels()) for item in cohort.labelled],
    }
    return {
        name: (lambda _, own=bags: own, np.arange(bags[0].shape[-1]))
        for name, bags in simple.items()
    }


def stacked(args: argparse.Namespace) -> None:
    """Lesion probability by five networks, as `nnUNetv2_mip_classify train --fold_networks`."""
    evaluate_trainer(args, "stacked", "frozen")


def evaluate_methods(cohort: Cohort, methods: dict, target: Path) -> None:
    """Cross-validate heads, name → (fold → features, columns); print them, and write `target`."""
    report = {"folds": cohort.validated_folds, "images": len(cohort.validated)}
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, (bags, columns) in methods.items():
        results = cohort.cross_validate(frozen_fit(bags, cohort.studies, columns))
        evaluation = cohort.evaluate(results)
        report[name] = evaluation.to_dict()
        np.savez(target.parent / f"{name.replace(' ', '_')}.npz", **vars(results))
        print(describe(name, evaluation), flush=True)
        print(f"{name}: calibration error {evaluation.calibration_error:.3f}", flush=True)
        write_json(target, report)


def whole(args: argparse.Namespace) -> None:
    """Networks of their own, from scratch or fine-tuned, one for every fold."""
    how = "fine-tune" if args.fine_tune else "from-scratch"
    evaluate_trainer(args, how, how)


def both(args: argparse.Namespace) -> None:
    """As `nnUNetv2_mip_classify train --both --fold_networks`."""
    evaluate_trainer(args, "both", "both")


def evaluate_trainer(args: argparse.Namespace, name: str, how: str) -> ClassifierTrainer:
    """Cross-validate, print, and write `name`.json and the out-of-fold results."""
    cohort = Cohort(args)
    choices = TrainingOptions(
        how=how,
        fold_networks=how != "from-scratch",
        shown_mm=args.pixel_mm,
        epochs=args.epochs,
        cache=args.o / "cache",
        device="cpu",
    )
    trainer = ClassifierTrainer(cohort.labelled, args.network, choices, cohort.folds, args.folds)
    args.o.mkdir(parents=True, exist_ok=True)
    fits = {name: trainer.fit}
    if how == "both":
        # Each of the two alone, from the same networks.
        fits["stacked"] = frozen_fit(lambda _: trainer.bags()[0], cohort.studies, trainer.bags()[1])
        fits["from-scratch"] = scored_fit(trainer.out_of_fold_scores()[0], cohort.studies)
        for title, (bags, columns) in baselines(cohort).items():
            fits[title] = frozen_fit(bags, cohort.studies, columns)
    for title, fit in fits.items():
        results = cohort.cross_validate(fit)
        evaluation = cohort.evaluate(results)
        np.savez(args.o / f"{title}.npz", **vars(results))
        write_json(args.o / f"{title}.json", evaluation.to_dict())
        print(describe(title, evaluation))
        print(f"{title}: calibration error {evaluation.calibration_error:.3f}", flush=True)
    return trainer


def bundle(args: argparse.Namespace) -> None:
    """`both`, put onto the bundled network, which was trained on all images."""
    trainer = evaluate_trainer(args, "both", "both")
    if not args.write:
        return
    bundled = MIPPredictor.from_model_folder(args.bundled, device="cpu")
    write_classifier(args.bundled / FILE_NAME, *trainer.final_classifier(bundled, "."))
    size = (args.bundled / FILE_NAME).stat().st_size
    print(f"written: {args.bundled / FILE_NAME} ({size / 1e6:.2f} MB)")


def robust(args: argparse.Namespace) -> None:
    """Change of the probability with the margins and the extent of an image."""
    args.folds = [ROBUST_FOLD]
    cohort = Cohort(args)
    classifier = load_classifier(args.bundled, device="cpu")
    frames = {
        "60 rows of air above, 100 below": lambda x: np.pad(x, ((0, 0), (60, 100), (0, 0))),
        "40 columns of air at either side": lambda x: np.pad(x, ((0, 0), (0, 0), (40, 40))),
        "5 % cut from below": lambda x: x[:, : round(x.shape[1] * 0.95)],
        "10 % cut from below": lambda x: x[:, : round(x.shape[1] * 0.9)],
        "5 % cut from above": lambda x: x[:, round(x.shape[1] * 0.05) :],
        "mirrored": lambda x: x[:, :, ::-1].copy(),
    }
    step = max(1, len(cohort.validated) // args.images)
    moves: dict[str, list[float]] = {name: [] for name in frames}
    turned = dict.fromkeys(frames, 0)
    for n in cohort.validated[::step]:
        levels, pixel_mm = cohort.labelled[n].levels()
        plain = classifier.score(levels[0], pixel_mm)
        for name, frame in frames.items():
            other = classifier.score(frame(levels[0]), pixel_mm)
            moves[name].append(abs(other.probability - plain.probability))
            turned[name] += other.has_lesion != plain.has_lesion
    for name, values in moves.items():
        print(
            f"{name}: probability moves by {np.mean(values):.4f} on average, {max(values):.4f} at "
            f"most; {turned[name]} of {len(values)} decisions change"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=("table", "stacked", "whole", "both", "bundle", "robust"))
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument(
        "--splits", type=Path, required=True, help="the networks' splits_final.json"
    )
    parser.add_argument("--network", type=Path, help="model folder with a network for every fold")
    parser.add_argument(
        "--bundled", type=Path, help="bundle, robust: folder of the model that ships"
    )
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--images", type=int, default=24, help="robust: images of fold 0")
    parser.add_argument("--fine_tune", action="store_true", help="whole: from the fold's encoder")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="whole, both, bundle")
    parser.add_argument("--pixel_mm", type=float, help="whole, both, bundle: pixel size shown")
    parser.add_argument("--write", action="store_true", help="bundle: into the model's folder")
    parser.add_argument("-o", type=Path, default=Path("classification_out"), help="folder")
    args = parser.parse_args()
    args.bundled = args.bundled or bundled_model()
    if args.task != "robust" and args.network is None:
        raise MipError("--network MODEL: needed, with a network for every fold")
    tasks = (table, stacked, whole, both, bundle, robust)
    {task.__name__: task for task in tasks}[args.task](args)


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"classification.py: {error}") from None
