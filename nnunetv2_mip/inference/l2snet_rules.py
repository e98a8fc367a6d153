"""Rules of L2SNet that combine a 3D probability with the cue of the 2D stage.

Source: arXiv 2309.05446 and its published description. The rules mark single voxels where they
doubt: a lesion of which one voxel is marked counts as found in the autoPET metrics, so that its
whole volume leaves the false negative volume, while the Dice hardly changes. They serve that
metric; a physician is shown dots. Off unless asked for (`--combine l2snet`).
"""

import cc3d
import numpy as np

HIGH, LOW, CUE = 0.9, 0.5, 0.5
# Voxels: below both nothing is edited.
LEAST_HIGH, LEAST_LOW = 50, 150
FEWEST_HIGH = 20
MOST_LOW_TO_HIGH = 2.25
FAINT, FAINTEST, LARGE_CUE = 0.10, 1e-5, 35


def combine_l2snet(
    probability: np.ndarray, cue: np.ndarray, large_cue: int = LARGE_CUE
) -> np.ndarray:
    """Mask of a 3D probability, edited by the cue.

    Components are 18-connected. Nothing is edited where the largest confident component
    (probability above 0.9) has fewer than 50 voxels and the largest likely one (above 0.5) fewer
    than 150. Otherwise a likely component with fewer than 20 confident voxels, or without cue,
    becomes its peak voxel; one more than 2.25 times its confident part becomes that part. A cue
    component in which nothing is marked adds its peak voxel, if that has more than 0.10, or if the
    component has more than `large_cue` voxels and its peak at least 1e-5.

    Args:
        probability: (z, y, x) of the 3D network.
        cue: (z, y, x) of the views.
        large_cue: see above.

    Returns:
        (z, y, x) uint8 of 0 and 1.
    """
    high, low = probability > HIGH, probability > LOW
    cue_regions = cc3d.connected_components(cue > CUE, connectivity=18)
    if _largest(high) < LEAST_HIGH and _largest(low) < LEAST_LOW:
        return low.astype(np.uint8)
    mask = np.zeros(probability.shape, np.uint8)
    for box, inside in _components(low):
        confident = inside & high[box]
        if confident.sum() < FEWEST_HIGH or not (cue_regions[box][inside] > 0).any():
            mask[box][_peak(probability[box], inside)] = 1
        elif inside.sum() > MOST_LOW_TO_HIGH * confident.sum():
            mask[box][confident] = 1
        else:
            mask[box][inside] = 1
    for box, inside in _components(cue_regions > 0):
        if mask[box][inside].any():
            continue
        peak = _peak(probability[box], inside)
        highest = probability[box][peak]
        if highest > FAINT or (inside.sum() > large_cue and highest >= FAINTEST):
            mask[box][peak] = 1
    return mask


def _components(mask: np.ndarray) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """Bounding box of every component, and its mask in the box."""
    labels = cc3d.connected_components(mask, connectivity=18)
    boxes = cc3d.statistics(labels)["bounding_boxes"][1:]
    return [(box, labels[box] == number) for number, box in enumerate(boxes, start=1)]


def _largest(mask: np.ndarray) -> int:
    labels = cc3d.connected_components(mask, connectivity=18)
    return int(cc3d.statistics(labels)["voxel_counts"][1:].max(initial=0))


def _peak(values: np.ndarray, inside: np.ndarray) -> tuple[int, ...]:
    """Index of the highest value within a component."""
    place = np.where(inside, values, -np.inf).argmax()
    return tuple(int(i) for i in np.unravel_index(place, values.shape))
