"""The options that say who does the work."""

import argparse


def process_count(text: str) -> int:
    """The value of `-np`: a whole number, at least one."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of processes (at least one process is needed)"
        )
    return int(text)


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
