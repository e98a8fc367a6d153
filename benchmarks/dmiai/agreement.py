"""Agreement of independent trainings: their masks against each other and against the truth.

    python benchmarks/dmiai/agreement.py -d 10 recipes_out/recipe recipes_out/again [...]
        [-o FILE.md]

Takes folders of recipes that `recipes.py` left, with out-of-fold probabilities, and judges the
images with lesions that all of them have. Each recipe is cut at the threshold (in steps of 0.05)
that suits these images best on average, and so is the mean of all probabilities. Where trainings
agree with each other far better than with the truth, averaging more of them can hardly help: the
remaining errors are common to all networks trained on these patients, or the images do not contain
the information.

Prints the mean per-image Dice of every recipe with the truth and with the others, and the share
of missed and of false pixels that is the same in all of them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import recipe_scores as scores

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.nnunet.paths import raw_dataset

THRESHOLDS = np.arange(1, 20) / 20


def best_masks(
    probabilities: Sequence[np.ndarray], truths: Sequence[np.ndarray]
) -> tuple[float, list[np.ndarray]]:
    """The threshold of the best mean per-image Dice, and the masks (H, W) that it gives."""

    def cut(threshold: float) -> list[np.ndarray]:
        return [probability >= threshold for probability in probabilities]

    def mean_dice(threshold: float) -> float:
        return float(np.mean([dice(m, t) for m, t in zip(cut(threshold), truths)]))

    threshold = float(max(THRESHOLDS, key=mean_dice))
    return threshold, cut(threshold)


def shared_errors(
    masks: Sequence[Sequence[np.ndarray]], truths: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Which share of a recipe's missed, and of its false pixels, is so in all (mean of recipes).

    Args:
        masks: of each recipe, one (H, W) an image.
        truths: (H, W), an image each.

    Returns:
        shares in [0, 1]; NaN where no recipe errs so.
    """
    shares = []
    for wrong_value in (False, True):
        # Missed: not marked within the truth. False: marked outside of it.
        wrong = [
            [(mask == wrong_value) & (truth != wrong_value) for mask, truth in zip(own, truths)]
            for own in masks
        ]
        together = sum(int(np.logical_and.reduce(image).sum()) for image in zip(*wrong))
        each = [sum(int(image.sum()) for image in own) for own in wrong]
        shares.append(float(np.mean([together / n for n in each if n])) if any(each) else np.nan)
    return shares[0], shares[1]


def report(names: Sequence[str], probabilities: Sequence, truths: Sequence[np.ndarray]) -> str:
    """Markdown; `probabilities` of each recipe, one (H, W) an image."""
    cut = [best_masks(own, truths) for own in probabilities]
    masks = [own for _, own in cut]
    head = ["recipe", "threshold", "Dice with the truth", *(f"with {name}" for name in names)]
    lines = [
        f"{len(truths)} images with lesions.",
        "",
        scores.table_line(head),
        "|---" * len(head) + "|",
    ]
    for number, (name, (threshold, own)) in enumerate(zip(names, cut)):
        others = [
            "" if k == number else f"{_agreement(own, other):.3f}" for k, other in enumerate(masks)
        ]
        with_truth = f"{_mean_dice(own, truths):.3f}"
        lines.append(scores.table_line([name, f"{threshold:.2f}", with_truth, *others]))
    mean = [np.mean(image, axis=0) for image in zip(*probabilities)]
    threshold, own = best_masks(mean, truths)
    cells = ["mean of all", f"{threshold:.2f}", f"{_mean_dice(own, truths):.3f}"]
    lines.append(scores.table_line([*cells, *("" for _ in names)]))
    shares = shared_errors(masks, truths)
    for kind, share in zip(("misses", "marks in vain"), shares):
        said = "none" if np.isnan(share) else f"{share:.0%} in all recipes"
        lines += ["", f"Pixels that a recipe {kind}: {said}."]
    return "\n".join(lines)


def _mean_dice(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    return float(np.mean([dice(mask, other) for mask, other in zip(masks, others)]))


def _agreement(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Mean Dice of two recipes; an image that neither marks is one they agree on."""
    pairs = list(zip(masks, others))
    values = [dice(a, b) if b.any() else float(not a.any()) for a, b in pairs]
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("recipes", type=Path, nargs="+", help="recipes' folders of recipes.py")
    parser.add_argument("--copy", default="clean", choices=scores.COPIES)
    parser.add_argument("-o", type=Path, help="Markdown file for the table")
    args = parser.parse_args()
    if len(args.recipes) < 2:
        raise MipError("one recipe cannot agree with others: name two or more folders")
    raw = raw_dataset(args.d)
    folders = [recipe / "probabilities" / args.copy for recipe in args.recipes]
    for folder in folders:
        if not any(folder.glob("*.npz")):
            raise MipError(f"{folder}: no predictions; run recipes.py")
    cases = set.intersection(*({path.stem for path in f.glob("*.npz")} for f in folders))
    images = [image for image in scores.images_of(raw, sorted(cases)) if image.truth.any()]
    if not images:
        raise MipError(
            f"{folders[0]} and the others share no image with lesions: predict the same folds"
        )
    probabilities = [
        [scores.load_probability(folder / f"{image.case}.npz") for image in images]
        for folder in folders
    ]
    names = [recipe.resolve().name for recipe in args.recipes]
    text = report(names, probabilities, [image.truth for image in images])
    print(text)
    if args.o:
        scores.write_text(args.o, text + "\n")


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"agreement.py: {error}") from None
