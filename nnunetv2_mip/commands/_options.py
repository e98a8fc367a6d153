"""Options that several commands share: models, data sets, scoring, devices, workers."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nnunetv2_mip.nnunet.model_folder import CHECKPOINT

if TYPE_CHECKING:
    from nnunetv2_mip.io.patients import PatientOptions


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """--allow_missing or --only_predicted, and --min_overlap."""
    incomplete = parser.add_mutually_exclusive_group()
    incomplete.add_argument(
        "--allow_missing",
        action="store_true",
        help="count a missing prediction as an empty one instead of stopping",
    )
    incomplete.add_argument(
        "--only_predicted",
        action="store_true",
        help="leave cases without a prediction out instead of stopping, and name them",
    )
    parser.add_argument(
        "--min_overlap",
        type=float,
        default=0.0,
        help="fraction of a lesion that must be overlapped to count as found; 0: any overlap",
    )


DEVICES = "cuda (cpu where there is none), cpu, mps"


def process_count(text: str) -> int:
    """The value of `-np`: a whole number, at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of processes (at least one process is needed)"
        )
    return int(text)


def device_name(text: str) -> str:
    """The value of `-device`, as PyTorch names devices; whether it is there is asked later."""
    if not re.fullmatch(r"(cpu|cuda|mps)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text}: unknown device; use cpu, cuda or mps")
    return text


def add_device_option(parser: argparse.ArgumentParser, default: str = "cuda") -> None:
    parser.add_argument("-device", type=device_name, default=default, help=DEVICES)


def add_checkpoint_option(parser: argparse._ActionsContainer) -> None:
    """-chk."""
    parser.add_argument("-chk", default=CHECKPOINT, metavar="FILE", help="checkpoint")


def add_results_options(parser: argparse._ActionsContainer) -> None:
    """-tr, -p, -c, -f, -chk: a model below nnUNet_results, its folds, their checkpoint."""
    parser.add_argument("-tr", default="nnUNetTrainerMIP", metavar="TRAINER", help="trainer")
    parser.add_argument("-p", default="nnUNetMIPPlans", metavar="PLANS", help="plans")
    parser.add_argument("-c", default="2d", metavar="CONFIG", help="configuration")
    parser.add_argument("-f", nargs="+", metavar="FOLD", help="folds to average (all there are)")
    add_checkpoint_option(parser)


def add_new_dataset_options(parser: argparse.ArgumentParser, default_name: str) -> None:
    """-d and --name of a data set to be written."""
    parser.add_argument("-d", required=True, type=int, metavar="ID", help="new data set id, 1-999")
    # Earlier versions called the name -n, which is a number in the other commands.
    parser.add_argument(
        "--name", "-n", metavar="NAME", help=f"name of the data set (else {default_name})"
    )


def add_processes_option(
    parser: argparse._ActionsContainer, use: str = "worker processes", default: int = 1
) -> None:
    """-np."""
    parser.add_argument("-np", type=process_count, default=default, metavar="N", help=use)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """-np and --dask."""
    group = parser.add_mutually_exclusive_group()
    add_processes_option(group)
    group.add_argument(
        "--dask",
        metavar="tcp://HOST:PORT",
        help="let the workers of this Dask scheduler do it; they need this package and the same "
        "folders (start them with NUMBA_NUM_THREADS=1 dask worker --nthreads 1)",
    )


def add_patient_options(parser: argparse.ArgumentParser) -> None:
    """--patients, --patient_regex, --assume_one_study_per_patient, --assume_one_patient."""
    group = parser.add_argument_group(
        "patients (whose studies stay together; else by TCIA's and BIDS's folders, PatientID of "
        "DICOM headers, or the names of the folders)"
    ).add_mutually_exclusive_group()
    group.add_argument(
        "--patients",
        metavar="CSV",
        type=Path,
        help="table with the columns case,patient; a case by its name or its path in the tree",
    )
    group.add_argument(
        "--patient_regex",
        metavar="REGEX",
        help="its first group, searched in the path of a study, is the patient",
    )
    for words, meaning in (
        ("one_study_per_patient", "every study is of another patient"),
        ("one_patient", "all studies are of one patient"),
    ):
        group.add_argument(
            f"--assume_{words}",
            dest="assume_patients",
            action="store_const",
            const=words,
            help=f"{meaning}, where no name tells",
        )


def patient_options(args: argparse.Namespace) -> "PatientOptions":
    """The options of `add_patient_options` as one record."""
    from nnunetv2_mip.io.patients import PatientOptions

    return PatientOptions(args.patient_regex, args.patients, args.assume_patients)
