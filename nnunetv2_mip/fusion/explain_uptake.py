"""Evidence of the uptake for the fusion rule `explain`: SUV against that in and outside a mask."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cc3d
import numba
import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_mip.fusion import explain_kernels as kernels
from nnunetv2_mip.fusion.explain_weights import EnergyWeights

# Largest log-likelihood ratio of one voxel.
_MAX_LOG_RATIO = 4.0
# Steps to a neighbour within which a voxel counts as beside the mask.
_SHELL = 3


@dataclass(frozen=True)
class _Group:
    """Candidates that hang together, and a box with their surroundings.

    Attributes:
        numbers: of the candidates.
        low, high: (3,) first voxel of the box (z, y, x), and the one behind its last.
    """

    numbers: np.ndarray
    low: np.ndarray
    high: np.ndarray


class UptakeEvidence:
    """Log-likelihood ratio of the SUV of candidates, inside against outside of a mask.

    Args:
        suv: (z, y, x) float32.
        state: (z, y, x) uint8 state of the voxels (see `explain_kernels`), not 0 at candidates; it
            is read again at each call of `of`.
        voxels: indices z, y, x of the candidates, each (N,).
        spacing_mm: voxel size (z, y, x).
        weights: `neighbourhood_mm`, `spread` and `trust` are used.
    """

    def __init__(
        self,
        suv: np.ndarray,
        state: np.ndarray,
        voxels: tuple[np.ndarray, ...],
        spacing_mm: tuple[float, float, float],
        weights: EnergyWeights,
    ):
        self.suv, self.state, self.weights = suv, state, weights
        self.places = np.stack(voxels, axis=1).astype(np.int32)
        self.groups = _groups(state, voxels, spacing_mm, weights.neighbourhood_mm)
        # Moments are collected in cells of half a neighbourhood, then smoothed.
        self.cell = np.array(
            [max(1, round(weights.neighbourhood_mm / 2 / step)) for step in spacing_mm]
        )
        self.sigma = weights.neighbourhood_mm / (self.cell * np.array(spacing_mm))

    def of(self, inside: np.ndarray) -> np.ndarray:
        """Evidence (N,) float32 for the mask `inside` (N,) bool, scaled by its reliability.

        It is 0 in groups of candidates without any voxel of the mask, and where the uptake does
        not separate inside from outside.
        """
        evidence = np.zeros(len(self.places), np.float32)

        def fill(group: _Group) -> None:
            if inside[group.numbers].any():
                evidence[group.numbers] = self._of_group(group)

        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            list(pool.map(fill, self.groups))
        return evidence

    def _of_group(self, group: _Group) -> np.ndarray | float:
        sums = np.zeros((2, 3, *(-(-(group.high - group.low) // self.cell))))
        kernels.collect_moments(self.suv, self.state, group.low, group.high, self.cell, sums)
        sums = gaussian_filter(sums, (0, 0, *self.sigma), mode="constant", truncate=2.5)
        within, beside = kernels.inside_and_beside(self.state, group.low, group.high, _SHELL)
        if not len(beside):
            return 0.0
        sensitivity = (self._log_ratios(within, group.low, sums) > 0).mean()
        specificity = (self._log_ratios(beside, group.low, sums) < 0).mean()
        trust = max(0.0, sensitivity + specificity - 1) ** self.weights.trust
        return trust * self._log_ratios(self.places[group.numbers], group.low, sums)

    def _log_ratios(self, places: np.ndarray, low: np.ndarray, sums: np.ndarray) -> np.ndarray:
        found = np.empty(len(places), np.float32)
        kernels.uptake_log_ratios(
            places, self.suv, low, self.cell, sums, self.weights.spread, _MAX_LOG_RATIO, found
        )
        return found


def _groups(
    state: np.ndarray,
    voxels: tuple[np.ndarray, ...],
    spacing_mm: tuple[float, float, float],
    neighbourhood_mm: float,
) -> list[_Group]:
    """Connected groups of candidates, with boxes that reach two neighbourhoods beyond them."""
    reach = [math.ceil(2 * neighbourhood_mm / step) for step in spacing_mm]
    corner = [axis.min() for axis in voxels]
    box = tuple(slice(low, axis.max() + 1) for low, axis in zip(corner, voxels))
    labels = cc3d.connected_components(state[box], connectivity=26, binary_image=True)
    label = labels[tuple(axis - low for low, axis in zip(corner, voxels))]
    order = np.argsort(label, kind="stable")
    ends = np.flatnonzero(np.diff(label[order])) + 1
    groups = []
    for numbers in np.split(order, ends):
        low, high = [], []
        for axis, indices in enumerate(voxels):
            low.append(max(0, int(indices[numbers].min()) - reach[axis]))
            high.append(min(state.shape[axis], int(indices[numbers].max()) + reach[axis] + 1))
        groups.append(_Group(numbers, np.array(low), np.array(high)))
    # The largest first, so that threads that take them in turn end together.
    return sorted(groups, key=lambda group: -math.prod(group.high - group.low))
