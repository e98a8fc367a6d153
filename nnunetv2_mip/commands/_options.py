"""Options that several commands share: scoring, devices, workers."""

import argparse
import re


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
