"""`nnUNetv2_mip_merge_datasets`: several converted data sets to one."""

import argparse
from collections.abc import Sequence

from nnunetv2_mip.commands._cli import new_parser, run_command


def build_parser() -> argparse.ArgumentParser:
    parser = new_parser(
        "nnUNetv2_mip_merge_datasets",
        "Merge converted data sets of views, to train on all of them together. The first one's "
        "folds stay: its patients are validated. The cases of the others are in the training part "
        "of every fold. Window, pixels and angles of inference are the first one's. Files are hard "
        "links where the file system has them, else copies.",
    )
    parser.add_argument(
        "-d", required=True, type=int, nargs="+", metavar="ID", help="data sets, the main one first"
    )
    parser.add_argument("-o", required=True, type=int, metavar="ID", help="new data set id, 1-999")
    parser.add_argument(
        "--name", "-n", metavar="NAME", help="name of the new data set (else Merged)"
    )
    parser.add_argument(
        "--sources",
        nargs="+",
        metavar="NAME",
        help="what the cases of each data set are called, in the order of -d, for trainers that "
        "draw some kinds of cases more often (else by converter: dmiai, autopet)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    from nnunetv2_mip.commands._summary import print_conversion
    from nnunetv2_mip.dataset_conversion.merge import DEFAULT_NAME, merge_datasets

    result = merge_datasets(args.d, args.o, args.name or DEFAULT_NAME, args.sources)
    first, *others = result.summary["settings"]["datasets"]
    print(
        f"folds, window, pixels and angles: those of {first}; in the training part of every fold: "
        f"{', '.join(others)}"
    )
    print_conversion(result, args.o)


def main(argv: Sequence[str] | None = None) -> None:
    run_command(build_parser(), run, argv)
