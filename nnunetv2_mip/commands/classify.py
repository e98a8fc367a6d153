"""`nnUNetv2_mip_classify`: the probability of every study that it shows lesions."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import add_debug_option, new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import add_checkpoint_option, add_device_option
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.wording import counted

# Limits of --pixel_mm: finer images do not fit into memory, coarser ones have too few pixels.
PIXELS_MM = (1.0, 16.0)


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_classify",
        "Healthy or with lesions: a probability for every study, from its views. For research, "
        "not for diagnosis.",
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="train | predict")
    for part in (_add_predict(tasks), _add_train(tasks)):
        # Left out it must not undo a --debug before the part's name.
        add_debug_option(part, argparse.SUPPRESS)
    return parser


def _add_predict(tasks) -> argparse.ArgumentParser:
    predict = tasks.add_parser(
        "predict",
        help="score studies",
        description="Score studies: a table with case, probability, whether it reaches the "
        "classifier's threshold, the number of views, and the weight of every view.",
    )
    predict.add_argument(
        "-i",
        required=True,
        metavar="INPUT",
        help="PNG (one view), folder of PNGs, stack of views, SUV volume, folder of them, autoPET "
        "tree, or folder with DICOM PET",
    )
    predict.add_argument("-o", required=True, type=Path, metavar="SCORES.csv", help="the table")
    predict.add_argument(
        "-m",
        metavar="MODEL",
        help="classifier (file, or folder that holds classifier.npz); without it the one that "
        "comes along",
    )
    predict.add_argument(
        "--network", metavar="FOLDER", help="its segmentation model, where that was moved"
    )
    add_device_option(predict)
    add_dicom_options(predict)
    return predict


def _add_train(tasks) -> argparse.ArgumentParser:
    train = tasks.add_parser(
        "train",
        help="train a classifier on a data set",
        description="Train a classifier on a raw data set of this package, by default a head on "
        "the frozen encoder of a segmentation model: minutes on a CPU. Writes classifier.npz, "
        "metrics.json and out_of_fold.csv.",
        epilog="The scores are cross-validated, but those of a head on a segmentation model that "
        "was trained on the same patients come out too good. Name it with --fold_networks where "
        "it has a network for every fold, judge on other patients, or train --from_scratch.",
    )
    train.add_argument("-d", required=True, type=int, metavar="ID", help="data set in nnUNet_raw")
    train.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="new folder")
    train.add_argument(
        "--network", metavar="FOLDER", help="segmentation model (without it the bundled one)"
    )
    train.add_argument("-f", metavar="FOLD", help="which of its networks (the first there is)")
    add_checkpoint_option(train)
    how = train.add_mutually_exclusive_group()
    train.set_defaults(how="frozen")
    how.add_argument(
        "--fine_tune",
        dest="how",
        action="store_const",
        const="fine-tune",
        help="train the encoder on too",
    )
    how.add_argument(
        "--from_scratch",
        dest="how",
        action="store_const",
        const="from-scratch",
        help="a small network of its own; --network prepares its images",
    )
    how.add_argument(
        "--both",
        dest="how",
        action="store_const",
        const="both",
        help="a head on the frozen encoder and a small network of its own: the mean of both",
    )
    train.add_argument(
        "--fold_networks",
        action="store_true",
        help="the model has a network for every fold: a head on the lesion probability that each "
        "study gets from the network that never saw it (with --fine_tune: fold K goes on from "
        "network K); splits are then those of its training",
    )
    train.add_argument(
        "--splits",
        type=Path,
        metavar="FILE",
        help="nnU-Net's splits (the data set's own; with --fold_networks those of the model's)",
    )
    train.add_argument(
        "--no_evaluation", action="store_true", help="only the classifier, no cross-validation"
    )
    train.add_argument(
        "--penalty",
        type=float,
        metavar="X",
        help="how strongly the head's weights are held small (0.001)",
    )
    train.add_argument(
        "--pixel_mm",
        type=float,
        metavar="MM",
        help="pixel size that a network of its own is shown (4; --fine_tune: that of --network)",
    )
    train.add_argument("--epochs", type=int, metavar="N", help="of a network of its own (44)")
    train.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keep the frozen features here between runs"
    )
    add_device_option(train)
    return train


def run(args: argparse.Namespace) -> None:
    if args.task == "predict":
        run_predict(args)
    else:
        run_train(args)


def run_predict(args: argparse.Namespace) -> None:
    from nnunetv2_mip.classification.classifier import load_classifier
    from nnunetv2_mip.classification.classifier_file import find_classifier
    from nnunetv2_mip.classification.data import find_studies_to_score, views_of_job
    from nnunetv2_mip.classification.score_table import ScoreRow, write_scores
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.progress import PredictionBar

    if args.o.suffix.lower() != ".csv":
        raise MipError(f"{args.o}: the scores are a table; give a name that ends in .csv")
    check_output(args.o)
    find_classifier(args.m)
    jobs = find_studies_to_score(args.i, args.o, dicom_options(args))
    rows = []
    with PredictionBar(len(jobs), "study") as bar:
        bar.say("loading the model")
        classifier = load_classifier(args.m, args.network, args.device)
        bar.say("reading")
        for job in jobs:

            def warn(line: str, job=job) -> None:
                bar.warn(f"{job.source}: {line}")

            try:
                score = classifier.score(*views_of_job(job, classifier.predictor, warn), bar)
            except MipError as error:
                prefix = "" if str(job.source) in str(error) else f"{job.source}: "
                raise MipError(f"{prefix}{error}") from None
            rows.append(ScoreRow(job.case, score))
            bar.case_done()
    write_scores(args.o, rows)
    if max(len(row.score.weights) for row in rows) > classifier.about.get("views", 1) == 1:
        print(
            "warning: this classifier was trained on single images: all views of a study count "
            "alike, and its probability is not calibrated for studies of several",
            file=sys.stderr,
        )
    found = sum(row.score.has_lesion for row in rows)
    print(
        f"{args.o}: {counted(len(rows), 'study')}, {found} called with lesions "
        f"(probability {classifier.threshold:.2f} or above)"
    )


def run_train(args: argparse.Namespace) -> None:
    from nnunetv2_mip.classification.classifier_file import FILE_NAME
    from nnunetv2_mip.classification.data import labelled_studies, studies_of
    from nnunetv2_mip.classification.study_labels import require_both_classes
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.inference.config import InferenceConfig
    from nnunetv2_mip.nnunet.model_folder import bundled_model, image_model_folder
    from nnunetv2_mip.nnunet.paths import raw_dataset

    if args.o.exists() and (not args.o.is_dir() or any(args.o.iterdir())):
        raise MipError(f"{args.o}: exists; choose another -o or remove it")
    if args.epochs is not None and args.epochs < 1:
        raise MipError(f"--epochs {args.epochs}: must be 1 or more")
    low, high = PIXELS_MM
    if args.pixel_mm is not None and not low <= args.pixel_mm <= high:
        raise MipError(f"--pixel_mm {args.pixel_mm:g}: must be between {low:g} and {high:g}")
    if args.how == "frozen" and (args.epochs is not None or args.pixel_mm is not None):
        raise MipError(
            "--epochs, --pixel_mm: are of a network of its own; add --both, --from_scratch or "
            "--fine_tune"
        )
    if args.penalty is not None and not args.penalty > 0:
        raise MipError(f"--penalty {args.penalty}: must be above 0")
    check_output(args.o / FILE_NAME)
    raw = raw_dataset(args.d)
    network = Path(args.network) if args.network else image_model_folder(bundled_model())
    if not (network / "plans.json").is_file():
        raise MipError(f"{network}: no such segmentation model; check --network")
    if args.fold_networks and not (network / "fold_0").is_dir():
        raise MipError(
            f"{network}: has no fold_0; --fold_networks needs a model with a network for every "
            "fold: name one with --network"
        )
    labelled = labelled_studies(raw, len(InferenceConfig.load(network).channels))
    require_both_classes(studies_of(labelled))
    from nnunetv2_mip.classification.network_training import EPOCHS
    from nnunetv2_mip.classification.train import train_classifier
    from nnunetv2_mip.classification.trainer import TrainingOptions

    report = train_classifier(
        raw,
        labelled,
        network,
        args.o,
        TrainingOptions(
            fold=args.f,
            checkpoint=args.chk,
            how=args.how,
            fold_networks=args.fold_networks,
            splits=args.splits,
            evaluate=not args.no_evaluation,
            penalty=args.penalty,
            shown_mm=args.pixel_mm,
            epochs=args.epochs or EPOCHS,
            cache=args.cache,
            device=args.device,
        ),
    )
    print(report)
    print(f"written: {args.o / FILE_NAME}")
    print(f"next: nnUNetv2_mip_classify predict -i STUDIES -o scores.csv -m {args.o}")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
