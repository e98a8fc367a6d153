"""Table of the scores that `recipes.py --scores` and `rivals.py --scores` keep.

    python benchmarks/dmiai/score_table.py benchmarks/dmiai/scores/FOLDER
        [--reference recipe] [--folds 0 1] [--recipes recipe noImpulse]

Means of the per-image Dice over out-of-fold patients with 95 % bootstrap intervals over patients;
differences to the reference are paired, image by image, on the folds that both have. Training is
minutes a fold.
"""

import argparse
from pathlib import Path

import recipe_scores as scores

from nnunetv2_mip.errors import MipError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of --scores")
    parser.add_argument("--reference", help="what the others are compared with; the first")
    parser.add_argument("--recipes", nargs="+", help="these alone")
    parser.add_argument("--folds", nargs="+", help="these alone")
    args = parser.parse_args()
    kept = scores.ScoreFolder(args.folder)
    rows = kept.rows()
    if not rows:
        raise MipError(f"{args.folder}: no scores; run recipes.py --scores {args.folder}")
    known = list(dict.fromkeys(row["recipe"] for row in rows))
    wanted = args.recipes or known
    reference = args.reference or wanted[0]
    for name in {*wanted, reference} - set(known):
        raise MipError(f"{args.folder}: no recipe {name}; there are {', '.join(known)}")
    rows = [row for row in rows if row["recipe"] in wanted]
    if args.folds:
        rows = [row for row in rows if row["fold"] in args.folds]
    print(scores.table(rows, reference, kept.notes()))


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"score_table.py: {error}") from None
