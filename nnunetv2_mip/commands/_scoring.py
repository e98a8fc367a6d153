"""The options that say how predictions are scored."""

import argparse


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
