"""Filter of salt-and-pepper noise; a view without noise stays exactly as it is.

A pixel counts as an impulse when it is at one end of the scale (0 or 255) and far from the median
of its neighbourhood; a saturated tumour is at the end too, but so are its neighbours. Only a view
with many of them is filtered, and only those pixels change (a switching median filter, as Wang and
Zhang, IEEE Trans. Circuits Syst. II 46 (1999) describe).
"""

import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX

# An impulse differs from the median of its 3 x 3 neighbourhood by more levels than this.
FAR_LEVELS = 40
# Noise is taken for present from this share of impulses among all pixels.
NOISY_SHARE = 0.01
# Neighbouring impulses hide each other: what one pass uncovers the next one removes.
PASSES = 3
# Exchanges (smaller, larger) after which the fifth of nine values is their median.
_MEDIAN_OF_NINE = (
    (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3),
    (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)  # fmt: skip


def impulses(levels: np.ndarray) -> np.ndarray:
    """Isolated pixels of a view (H, W) at 0 or 255; bool (H, W)."""
    return _impulses(levels, _median(levels))


def impulse_share(levels: np.ndarray) -> float:
    """Share of the pixels of a view that are impulses, 0 to 1."""
    return float(impulses(levels).mean())


def without_impulses(levels: np.ndarray) -> np.ndarray:
    """A view (H, W) uint8 with its impulses replaced by the median around them.

    Returns:
        the same array where fewer than 1 % of the pixels are impulses; a new one otherwise. (Of the
        432 clean DM-i-AI images none has more than 0.11 %; with 7 to 11 % noise none has fewer than
        4 %.)
    """
    median = _median(levels)
    found = _impulses(levels, median)
    if found.mean() < NOISY_SHARE:
        return levels
    cleaned = np.where(found, median, levels)
    for _ in range(PASSES - 1):
        median = _median(cleaned)
        cleaned = np.where(_impulses(cleaned, median), median, cleaned)
    return cleaned


def _median(levels: np.ndarray) -> np.ndarray:
    """The median of 3 x 3 pixels, at the border of the repeated edge, (H, W) uint8.

    By the 19 exchanges of Devillard's `opt_med9` (Fast median search, 1998) on whole arrays: exact,
    and ten times as fast as a rank filter.
    """
    padded = np.pad(levels, 1, mode="edge")
    rows, columns = levels.shape
    nine = [padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
    for low, high in _MEDIAN_OF_NINE:
        smaller = np.minimum(nine[low], nine[high])
        nine[high] = np.maximum(nine[low], nine[high])
        nine[low] = smaller
    return nine[4]


def _impulses(levels: np.ndarray, median: np.ndarray) -> np.ndarray:
    at_end = (levels == 0) | (levels == LEVEL_MAX)
    return at_end & (np.maximum(levels, median) - np.minimum(levels, median) > FAR_LEVELS)
