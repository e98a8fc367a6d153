"""Options that several commands share: scoring, devices, workers."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunetv2_mip.io.patients import PatientOptions


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """--allow-missing or --only-predicted, and --min-overlap."""
    incomplete = parser.add_mutually_exclusive_group()
    incomplete.add_argument(
        "--allow-missing",
        action="store_true",
        help="count a missing prediction as an empty one instead of stopping",
    )
    incomplete.add_argument(
        "--only-predicted",
        action="store_true",
        help="leave cases without a prediction out instead of stopping, and name them",
    )
    parser.add_argument(
        "--min-overlap",
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


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """-np and --dask."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-np", type=process_count, default=1, metavar="N", help="worker processes")
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
        "--patient-regex",
        metavar="REGEX",
        help="its first group, searched in the path of a study, is the patient",
    )
    for words, meaning in (
        ("one_study_per_patient", "every study is of another patient"),
        ("one_patient", "all studies are of one patient"),
    ):
        option = f"--assume_{words}"
        group.add_argument(
            option,
            option.replace("_", "-"),
            dest="assume_patients",
            action="store_const",
            const=words,
            help=f"{meaning}, where no name tells",
        )


def patient_options(args: argparse.Namespace) -> "PatientOptions":
    """The options of `add_patient_options` as one record."""
    from nnunetv2_mip.io.patients import PatientOptions

    return PatientOptions(args.patient_regex, args.patients, args.assume_patients)
