"""Command `nnUNetv2_mip_study`: quality and cost by number of views, against 3D networks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_mip.commands._cli import new_parser, run_command
from nnunetv2_mip.commands._dicom_options import add_dicom_options, dicom_options
from nnunetv2_mip.commands._options import (
    add_checkpoint_option,
    add_device_option,
    add_patient_options,
    patient_options,
)
from nnunetv2_mip.errors import MipError

VIEWS = (1, 2, 4, 8, 16, 32, 48)


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_study",
        "Quality and cost of trained networks by number of views, on studies they have not seen: "
        "MIP models at every number of --views, and 3D models (of data sets of "
        "nnUNetv2_mip_convert_stage2 --no_cue) beside them. Run again to go on with a stopped "
        "study, or to add networks and views; what is there is not repeated.",
        epilog="Energy is an estimate by codecarbon (pip install '.[study]'), without network.",
    )
    cohort = parser.add_mutually_exclusive_group(required=True)
    cohort.add_argument("-i", metavar="TREE", help="studies with truth that no model has seen")
    cohort.add_argument(
        "-d",
        type=int,
        metavar="ID",
        help="data set of volumes (nnUNetv2_mip_convert_stage2): the validation studies of -f",
    )
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="model folders, NAME= may be left out; the others are compared with the first that "
        "OUT ever had",
    )
    parser.add_argument(
        "--views",
        nargs="+",
        type=int,
        default=list(VIEWS),
        metavar="N",
        help="numbers of views of the MIP models",
    )
    parser.add_argument("-o", required=True, metavar="OUT", help="folder of the study")
    add_patient_options(parser)
    parser.add_argument("-f", metavar="FOLD", help="fold of the models (all there are; with -d: 0)")
    add_checkpoint_option(parser)
    add_device_option(parser)
    add_dicom_options(parser)
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring")
    parser.add_argument(
        "--reference_views",
        type=int,
        default=48,
        metavar="N",
        help="views onto which all 3D masks are projected to be compared in 2D",
    )
    parser.add_argument(
        "--training_iterations",
        type=int,
        default=0,
        metavar="N",
        help="also measure so many iterations of training of every model: cost of an epoch",
    )
    parser.add_argument("--no_energy", action="store_true", help="no estimate of energy")
    return parser


def run(args: argparse.Namespace) -> None:
    for option, values, least in (
        ("--views", args.views, 1),
        ("--reference_views", [args.reference_views], 1),
        ("--training_iterations", [args.training_iterations], 0),
    ):
        for value in values:
            if value < least:
                raise MipError(f"{option} {value}: at least {least} is needed")
    # With -d the studies are those of one fold; with -i all folds of a model may be used.
    dataset_fold = None
    if args.d is not None:
        dataset_fold = _fold_number("0" if args.f is None else args.f)
    fold = _fold(args.f) if dataset_fold is None else dataset_fold

    import sys

    from tqdm import tqdm

    from nnunetv2_mip.efficiency.experiment import EfficiencyStudy, RunOptions
    from nnunetv2_mip.efficiency.inputs import (
        check_unseen,
        read_models,
        studies_of_dataset,
        studies_of_tree,
    )
    from nnunetv2_mip.efficiency.plots import write_plots
    from nnunetv2_mip.efficiency.tables import markdown, write_tables
    from nnunetv2_mip.files import check_output
    from nnunetv2_mip.io.patients import PatientOptions
    from nnunetv2_mip.nnunet.paths import raw_dataset

    check_output(args.o)
    options_of_patients = patient_options(args)
    dicom = dicom_options(args)
    models = read_models(args.models, None if fold is None else [fold], args.chk)
    if dataset_fold is not None:
        if options_of_patients != PatientOptions():
            raise MipError("a data set names its patients itself: leave them out with -d")
        dicom.require_dicom(f"data set {args.d}")
        studies = studies_of_dataset(raw_dataset(args.d), dataset_fold)
    else:
        studies, grouping = studies_of_tree(args.i, options_of_patients, dicom)
        if grouping.line:
            print(f"patients: {grouping.line}")
        for line in (*grouping.warnings, grouping.question):
            if line:
                print(f"warning: {line}", file=sys.stderr)
    for line in check_unseen(models, studies):
        print(f"warning: {line}", file=sys.stderr)
    options = RunOptions(
        not args.disable_tta, args.reference_views, args.device, not args.no_energy
    )
    study = EfficiencyStudy(Path(args.o), studies, options)
    study.add_models(models)
    tasks = study.open_tasks(models, args.views, args.training_iterations)
    total = sum(1 if task.iterations else len(task.studies) for task in tasks)
    with tqdm(total=total, unit="study", disable=not total or None) as bar:

        def done(task, name: str) -> None:
            what = "training" if task.iterations else f"{task.views or '3D'}"
            bar.set_description(f"{task.model.name} {what}", refresh=False)
            bar.update()

        study.run(tasks, done)
    report = write_tables(args.o)
    pictures = write_plots(report["rows"], args.o)
    print(markdown(report["rows"]))
    for row in report["rows"]:
        if row["energy_missing"] and not args.no_energy:
            print(f"no energy: {row['energy_missing']}")
            break
    print(f"{args.o}: study.csv, study.json, cases.csv, tables.md, {pictures[0].name}, …")


def _fold(text: str | None) -> int | str | None:
    """Fold of -f: a number, `all`, or None (all folds)."""
    return text if text is None or text == "all" else _fold_number(text)


def _fold_number(text: str) -> int:
    if text.isdigit():
        return int(text)
    raise MipError(f"-f {text}: choose a fold by its number (or all, with -i)")


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
