"""Composition of a model's error, from out-of-fold probabilities that `recipes.py` left.

    python benchmarks/dmiai/error_anatomy.py -d 10 -i recipes_out/recipe [--threshold 0.15]
        [-o FILE.md]

Prints three tables over the images with and without lesions of one kind of copy (clean):

- what the mean per-image Dice would be with one sort of error taken away, or with the threshold
  that suits each image best; and without a network, if every lesion were known to within four
  pixels and cut out at a level of the image (what outlines owe to the uptake);
- lesions (8-connected regions of the truth) by area and by height in the body: how many are touched
  by the prediction, and which share of all missed pixels lies in them;
- predicted regions that touch no lesion, by height and by side.

Height is measured on the body (levels above the background) from its top row, 0, to its bottom
row, 1; images of the DM-i-AI data begin at the head and end at the thighs. A place is that of a
region's centre. Middle is the middle third of the body's columns.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cc3d
import numpy as np
import recipe_scores as scores
from scipy import ndimage

from nnunetv2_mip.conventions import BODY_LEVEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.nnunet.paths import raw_dataset

# Upper ends of classes of area, cm² in the plane of projection.
AREAS_CM2 = (1, 3, 10, 30, np.inf)
# Upper ends of classes of height.
HEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0)
# Pixels to either side of the true outline.
OUTLINE_PX = (1, 2, 3)
THRESHOLDS = np.linspace(0.02, 0.98, 49)
# How far around a true lesion a level may mark, pixels; levels to try.
REACH_PX = 4
LEVELS = range(5, 255, 5)


@dataclass(frozen=True)
class Region:
    """A lesion, or a predicted region without one.

    Attributes:
        pixels: its area.
        missed: pixels of it that were not predicted (0 for a predicted region).
        height, side: of its centre, 0 to 1 over the body's rows and columns.
    """

    pixels: int
    missed: int
    height: float
    side: float


def body_box(levels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the largest region above the background."""
    labels = cc3d.connected_components((levels > BODY_LEVEL).astype(np.uint8), connectivity=8)
    if not labels.any():
        return slice(0, levels.shape[0]), slice(0, levels.shape[1])
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    return ndimage.find_objects((labels == largest).astype(np.uint8))[0]


def regions(
    mask: np.ndarray, other: np.ndarray, levels: np.ndarray
) -> tuple[list[Region], list[Region]]:
    """The 8-connected regions of `mask` that touch `other`, and those that do not; all (H, W)."""
    labels = cc3d.connected_components(mask.astype(np.uint8), connectivity=8)
    box = body_box(levels)
    touching, alone = [], []
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        own = labels[where] == number
        hit = int((own & other[where]).sum())
        rows, columns = np.nonzero(own)
        centre = (rows.mean() + where[0].start, columns.mean() + where[1].start)
        height, side = (
            float(np.clip((c - part.start) / max(1, part.stop - part.start), 0, 1))
            for c, part in zip(centre, box)
        )
        found = Region(int(own.sum()), int(own.sum()) - hit, height, side)
        (touching if hit else alone).append(found)
    return touching, alone


def corrected(mask: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """The prediction with one sort of error taken away, name → (H, W) mask."""
    lesions = cc3d.connected_components(truth.astype(np.uint8), connectivity=8)
    predicted = cc3d.connected_components(mask.astype(np.uint8), connectivity=8)
    touched = np.isin(lesions, np.unique(lesions[mask & truth])) & truth
    right = np.isin(predicted, np.unique(predicted[mask & truth])) & mask
    missed, wrong = truth & ~touched, mask & ~right
    from_outline = np.where(
        truth, ndimage.distance_transform_edt(truth), ndimage.distance_transform_edt(~truth)
    )
    along = {
        f"right within {n} pixel{'s' * (n > 1)} of a true outline": np.where(
            from_outline <= n, truth, mask
        )
        for n in OUTLINE_PX
    }
    return {
        "as it is": mask,
        "without regions that touch no lesion": right,
        "with the lesions that were not touched": mask | missed,
        "both: wrong in the outlines alone": right | missed,
        "with exact outlines of what was found": touched | wrong,
        **along,
    }


def best_dice(probability: np.ndarray, truth: np.ndarray) -> float:
    """Dice (H, W) at the threshold that suits this image best."""
    return max(dice(probability >= threshold, truth) for threshold in THRESHOLDS)


def cut_by_level(levels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Dice of all pixels above a level near the true lesions: whether outlines follow the uptake.

    Near: within `REACH_PX` pixels. All are (H, W).

    Returns:
        at the level that suits the image best, and at those that suit each lesion (8-connected
        region) best.
    """
    lesions = cc3d.connected_components(truth.astype(np.uint8), connectivity=8)
    distance, nearest = ndimage.distance_transform_edt(~truth, return_indices=True)
    owner = np.where(distance <= REACH_PX, lesions[tuple(nearest)], 0)
    each = np.zeros_like(truth)
    for number, where in enumerate(ndimage.find_objects(owner), start=1):
        near, true = owner[where] == number, lesions[where] == number
        cuts = [near & (levels[where] >= level) for level in LEVELS]
        each[where] |= max(cuts, key=lambda cut, true=true: dice(cut, true))
    one = max(dice((owner > 0) & (levels >= level), truth) for level in LEVELS)
    return one, dice(each, truth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-d", type=int, required=True, help="data set id in nnUNet_raw")
    parser.add_argument("-i", type=Path, required=True, help="a recipe's folder of recipes.py")
    parser.add_argument("--copy", default="clean", choices=scores.COPIES)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--min_component_px", type=int, default=0)
    parser.add_argument("-o", type=Path, help="Markdown file for the tables")
    args = parser.parse_args()
    raw = raw_dataset(args.d)
    folder = args.i / "probabilities" / args.copy
    found = sorted(path.stem for path in folder.glob("*.npz"))
    if not found:
        raise MipError(f"{folder}: no predictions; run recipes.py")
    config = InferenceConfig(threshold=args.threshold, min_component_px=args.min_component_px)
    cases, best = [], []
    for image in scores.images_of(raw, found):
        probability = scores.load_probability(folder / f"{image.case}.npz")
        cases.append((image, mask_of_view(probability, config).astype(bool)))
        if image.truth.any():
            best.append(best_dice(probability, image.truth))
    pixel_mm = read_json(raw / "dataset.json")["mip"]["pixel_mm"] or 2.0
    text = report(cases, pixel_mm, best)
    print(text)
    if args.o:
        scores.write_text(args.o, text + "\n")


def report(cases: list, pixel_mm: float, best: Sequence[float]) -> str:
    """Markdown of (`recipe_scores.Image`, mask (H, W) bool) pairs.

    `best`: of the images with lesions, the Dice at the threshold that suits each.
    """
    corrections, patients = {}, [pair for pair in cases if pair[0].truth.any()]
    for image, mask in patients:
        for name, better in corrected(mask, image.truth).items():
            corrections.setdefault(name, []).append(dice(better, image.truth))
    lines = [
        f"{len(patients)} images with lesions, {len(cases) - len(patients)} without.",
        "",
        "| prediction | mean per-image Dice |",
        "|---|---|",
    ]
    corrections["at the threshold that suits each image best"] = best
    by_level = [cut_by_level(image.levels, image.truth) for image, _ in patients]
    near = f"no network: what is bright enough within {REACH_PX} pixels of a true lesion"
    for what, values in zip(("image", "lesion"), zip(*by_level)):
        corrections[f"{near}, at the level that suits each {what} best"] = values
    lines += [f"| {name} | {np.mean(values):.3f} |" for name, values in corrections.items()]

    lesions, false = [], []
    for image, mask in cases:
        touched, alone = regions(image.truth, mask, image.levels)
        lesions += [(region, True) for region in touched] + [(region, False) for region in alone]
        false += [
            (region, image.truth.any()) for region in regions(mask, image.truth, image.levels)[1]
        ]
    area = pixel_mm**2 / 100
    lines += ["", "| lesions | number | touched | pixels found | share of all missed pixels |"]
    lines += ["|---" * 5 + "|"]
    for low, high in _classes(AREAS_CM2):
        name = f"above {low:g} cm²" if np.isinf(high) else f"{low:g}–{high:g} cm²"
        here = [pair for pair in lesions if low < pair[0].pixels * area <= high]
        lines.append(_lesion_line(name, here, lesions))
    for low, high in _classes(HEIGHTS):
        here = [pair for pair in lesions if _within(pair[0].height, low, high)]
        lines.append(_lesion_line(f"height {low:.1f}–{high:.1f}", here, lesions))

    lines += ["", "| regions that touch no lesion | number | pixels | in images without lesions |"]
    lines += ["|---" * 4 + "|"]
    for low, high in _classes(HEIGHTS):
        for side, wanted in (("middle", True), ("sides", False)):
            here = [
                pair
                for pair in false
                if _within(pair[0].height, low, high) and (1 / 3 <= pair[0].side <= 2 / 3) == wanted
            ]
            pixels = sum(region.pixels for region, _ in here)
            controls = sum(not has_lesion for _, has_lesion in here)
            lines.append(
                f"| height {low:.1f}–{high:.1f}, {side} | {len(here)} | {pixels} | {controls} |"
            )
    return "\n".join(lines)


def _classes(ends: tuple) -> list[tuple[float, float]]:
    return list(zip((0.0, *ends[:-1]), ends))


def _within(value: float, low: float, high: float) -> bool:
    return low < value <= high or (low == 0 and value == 0)


def _lesion_line(name: str, here: list, all_lesions: list) -> str:
    pixels, missed = (
        sum(getattr(region, key) for region, _ in here) for key in ("pixels", "missed")
    )
    everything = sum(region.missed for region, _ in all_lesions)
    touched = sum(hit for _, hit in here)
    return (
        f"| {name} | {len(here)} | {touched}{_percent(touched, len(here))} | "
        f"{_percent(pixels - missed, pixels).strip(' ()') or '–'} | "
        f"{_percent(missed, everything).strip(' ()') or '–'} |"
    )


def _percent(part: int, whole: int) -> str:
    return f" ({100 * part / whole:.0f} %)" if whole else ""


if __name__ == "__main__":
    try:
        main()
    except MipError as error:
        raise SystemExit(f"error_anatomy.py: {error}") from None
