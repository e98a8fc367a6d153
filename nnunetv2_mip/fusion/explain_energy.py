"""Energy of a mask under the views, and its minimisation, for the fusion rule `explain`."""

import math

import numba
import numpy as np

from nnunetv2_mip.fusion import explain_kernels as kernels
from nnunetv2_mip.fusion.explain_uptake import UptakeEvidence
from nnunetv2_mip.fusion.explain_weights import EnergyWeights
from nnunetv2_mip.views.geometry import ViewGeometry

# Thresholds of the sweeps of the first round: a voxel flips where that lowers the energy by more.
# Later rounds have the last two.
_THRESHOLDS = (1.5, 0.5, 0.0, 0.0)
# Prior of the rates of marked rays, by kind of ray, worth so many rays; rates stay away from 0, 1.
_PRIOR_RAYS = 5.0
_PRIOR_RATES = np.array([0.8, 0.5, 0.5, 0.2, 0.1])
_RATE_MARGIN = 0.002
# Rounds end when fewer than this share of the candidates flip.
_MIN_FLIPS = 0.005


class MaskEnergy:
    """Energy of masks that consist of candidates, for given views.

    A ray is a pixel of a view. Arrays of rays are (z, V, W), see `views.geometry`.

    Args:
        voxels: indices z, y, x of the candidates, each (N,), sorted by slice.
        marks: (z, V, W) float32, probabilities of the views.
        suv: (z, y, x) float32, or None.
        ray_maxima: (z, V, W) float32, projections of the SUV, 0 without SUV.
        geometry: of the views.
        weights: of the terms of the energy.
    """

    def __init__(
        self,
        voxels: tuple[np.ndarray, ...],
        marks: np.ndarray,
        suv: np.ndarray | None,
        ray_maxima: np.ndarray,
        geometry: ViewGeometry,
        weights: EnergyWeights,
    ):
        self.marks, self.ray_maxima, self.weights = marks, ray_maxima, weights
        self.zs, self.ys, self.xs = voxels
        self.spacing_mm = geometry.grid.spacing_zyx
        shape = geometry.grid.shape_zyx
        # Candidates of slice z: from starts[z] to before starts[z + 1].
        self.starts = np.searchsorted(self.zs, np.arange(shape[0] + 1))
        self.slices = _interleaved(np.flatnonzero(np.diff(self.starts)))
        self.parities = [
            _interleaved(np.sort(self.slices[self.slices % 2 == odd])) for odd in range(2)
        ]
        self._find_rays(
            np.zeros(len(self.zs), np.float32) if suv is None else suv[voxels], geometry
        )
        self.kinds = np.empty(marks.shape, np.uint8)
        self.hit_cost = np.empty(marks.shape, np.float32)
        self.voxel_cost = np.empty((marks.shape[0], 2, *marks.shape[1:]), np.float32)
        self.counts = np.zeros(marks.shape, np.int32)
        self._count(np.ones(len(self.zs), np.bool_))
        self.most_on_ray = int(self.counts.max())
        self.state = np.zeros(shape, np.uint8)
        self.flat = np.ravel_multi_index(voxels, shape)
        self.state.ravel()[self.flat] = kernels.OUTSIDE
        self.uptake = None
        if suv is not None:
            self.uptake = UptakeEvidence(suv, self.state, voxels, self.spacing_mm, weights)

    def _find_rays(self, values: np.ndarray, geometry: ViewGeometry) -> None:
        """Detector columns of the candidates, and highest SUV of the candidates on each ray."""
        _, sy, sx = self.spacing_mm
        _, ny, nx = geometry.grid.shape_zyx
        self.first = np.empty((len(self.zs), geometry.views), np.int16)
        self.last = np.empty_like(self.first)
        kernels.footprints(
            self.ys,
            self.xs,
            np.deg2rad(geometry.angles_deg),
            sy / geometry.bin_mm,
            sx / geometry.bin_mm,
            ny,
            nx,
            geometry.columns,
            self.first,
            self.last,
        )
        self.highest = np.full(self.marks.shape, -1, np.float32)
        kernels.highest_candidates(
            self.slices, self.starts, values, self.first, self.last, self.highest
        )
        self.span = np.empty((*self.marks.shape[:2], 2), np.int16)
        kernels.spans(self.slices, self.starts, self.first, self.last, self.span)

    def share_of_marks_hit(self) -> float:
        """Share of the marked rays on which any candidate lies."""
        marked = self.marks >= 0.5
        hit = np.count_nonzero(marked & (self.highest >= 0))
        return int(hit) / max(1, int(np.count_nonzero(marked)))

    def minimise(self, inside: np.ndarray) -> np.ndarray:
        """Mask (z, y, x) bool of low energy.

        Args:
            inside: (N,) bool, candidates that are in the mask at first.
        """
        state = self.state.ravel()
        state[self.flat] = np.where(inside, kernels.INSIDE, kernels.OUTSIDE)
        self._count(inside)
        for number in range(self.weights.rounds):
            if not inside.any():
                break
            flips = self._lower_energy(inside, _THRESHOLDS if number == 0 else _THRESHOLDS[-2:])
            inside = state[self.flat] == kernels.INSIDE
            if flips < _MIN_FLIPS * len(self.zs):
                break
        mask = np.zeros(self.state.shape, np.bool_)
        mask.ravel()[self.flat] = inside
        return mask

    def _lower_energy(self, inside: np.ndarray, thresholds: tuple[float, ...]) -> int:
        """One round: estimate rates and moments for the mask (N,) bool, then flip voxels.

        Returns:
            The number of flips.
        """
        shares = self._shares()
        self._estimate_ray_costs(shares)
        evidence: np.ndarray = np.zeros(len(self.zs), np.float32)
        if self.uptake is not None:
            evidence = self.weights.uptake * self.uptake.of(inside)
        unary = (-evidence - self.weights.prior).astype(np.float32)
        order = np.empty(len(self.zs), np.int64)
        kernels.least_likely_first(self.slices, self.starts, evidence, order)
        return self._sweep(order, unary, shares, thresholds)

    def _sweep(
        self,
        order: np.ndarray,
        unary: np.ndarray,
        shares: np.ndarray,
        thresholds: tuple[float, ...],
    ) -> int:
        """Sweeps over all candidates, one a threshold; returns the number of flips."""
        neighbour_weights = self._neighbour_weights()
        gains = np.full(len(self.starts) - 1, np.inf, np.float32)
        changed = np.zeros(len(gains), np.int64)
        flips = 0
        for threshold in thresholds:
            before = flips
            for slices in self.parities:
                kernels.sweep(
                    slices,
                    self.starts,
                    self.zs,
                    self.ys,
                    self.xs,
                    order,
                    self.first,
                    self.last,
                    unary,
                    self.hit_cost,
                    shares,
                    neighbour_weights,
                    threshold,
                    gains,
                    self.state,
                    self.counts,
                    self.voxel_cost,
                    changed,
                )
                flips += int(changed[slices].sum())
                # Neighbours of flipped voxels may now gain by a flip.
                moved = slices[changed[slices] > 0]
                gains[np.maximum(moved - 1, 0)] = np.inf
                gains[np.minimum(moved + 1, len(gains) - 1)] = np.inf
            if flips == before and threshold == 0:
                break
        return flips

    def _count(self, inside: np.ndarray) -> None:
        """Count the voxels of the mask `inside` (N,) bool on every ray."""
        self.counts[:] = 0
        kernels.count_inside(self.slices, self.starts, inside, self.first, self.last, self.counts)

    def _neighbour_weights(self) -> np.ndarray:
        """Weights (3, 3, 3) of the 26 neighbours, by their inverse squared distance."""
        offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1)
        squares = ((offsets * np.array(self.spacing_mm)) ** 2).sum(-1)
        weights = np.where(squares > 0, 1 / np.maximum(squares, 1e-12), 0)
        return (self.weights.smooth * weights / weights.sum()).astype(np.float32)

    def _shares(self) -> np.ndarray:
        """Share (2, n) of a ray's energy that a voxel gets with 0, 1, ... other voxels on the ray.

        First row: rays on which a hit lowers the energy. One voxel is enough there, others get
        `shared_marks`. Second row: rays on which a hit raises it. The n-th voxel gets 1/n. If only
        the removal of the last voxel lowered the energy, no voxel would be removed first.
        """
        ranks = np.arange(1, self.most_on_ray + 1, dtype=np.float32)
        shares = np.stack([self.weights.shared_marks / ranks, 1 / ranks]).astype(np.float32)
        shares[0, 0] = 1
        return shares

    def _estimate_ray_costs(self, shares: np.ndarray) -> None:
        """Estimate the rates of marks, and from them the energy of a hit on every ray."""
        by_slice = np.zeros((2, *self.marks.shape[:2], kernels.KINDS))
        kernels.agreement(
            self.slices,
            self.span,
            self.marks,
            self.counts,
            self.highest,
            np.float32(self.weights.hidden_below),
            self.ray_maxima,
            self.kinds,
            *by_slice,
        )
        when_marked, when_not = self._log_ratios(*by_slice.sum(axis=1))
        kernels.ray_costs(
            self.slices,
            self.span,
            self.marks,
            self.counts,
            self.highest,
            self.kinds,
            when_marked.astype(np.float32),
            when_not.astype(np.float32),
            shares,
            self.hit_cost,
            self.voxel_cost,
        )

    def _log_ratios(self, rays: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood ratios (V, KINDS), missed against hit, of a marked and an unmarked ray.

        Args:
            rays: (V, KINDS) number of rays of each kind.
            marked: (V, KINDS) number of marked rays among them.
        """
        # One rate of hidden rays for all views, since a single view has too few of them.
        rays[:, kernels.HIDDEN] = rays[:, kernels.HIDDEN].sum()
        marked[:, kernels.HIDDEN] = marked[:, kernels.HIDDEN].sum()
        rates = (marked + _PRIOR_RAYS * _PRIOR_RATES) / (rays + _PRIOR_RAYS)
        rates = np.clip(rates, _RATE_MARGIN, 1 - _RATE_MARGIN)
        # Kind that a ray of each kind would have if it were hit, and if it were missed.
        if_hit = rates[:, [kernels.INNER, kernels.EDGE, kernels.HIDDEN, kernels.EDGE, kernels.EDGE]]
        if_missed = rates[:, [kernels.NEAR] * 4 + [kernels.FAR]]
        # A view that marks hit rays no more often than missed ones carries no information.
        informative = if_hit > if_missed
        repeated = max(1.0, self.marks.shape[1] / self.weights.independent_views)
        weight = self.weights.rays / math.sqrt(repeated)
        when_marked = np.where(informative, weight * np.log(if_missed / if_hit), 0)
        when_not = np.where(informative, weight * np.log((1 - if_missed) / (1 - if_hit)), 0)
        return when_marked, when_not


def _interleaved(slices: np.ndarray) -> np.ndarray:
    """Slices in an order that gives each thread a share from all over the body."""
    threads = numba.get_num_threads()
    return np.concatenate([slices[start::threads] for start in range(threads)])
