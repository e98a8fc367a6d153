"""The mask that best explains the views: what every fusion of views is compared with here.

A voxel-wise vote looks at each voxel alone. `explain` asks of a whole mask how well its own
projections agree with the views, and looks for the mask that agrees best:

- A ray is marked (a view calls its pixel lesion) or not, and hit by the mask (any hit) or not. How
  often a view marks what is hit, and what is missed, is estimated from the views themselves, view
  by view, in turn with the mask (expectation maximisation, Dempster et al., J. R. Stat. Soc. B 39,
  1977; STAPLE, Warfield et al., IEEE TMI 23, 2004, does so for readers of one image). A view that
  is drawn too wide then tells little by its marks and much by its silence; an empty one nothing.
  Hits that lie hidden behind something hotter have a rate of their own.
- The uptake speaks as far as it can be trusted: inside and outside of the mask, in the
  neighbourhood, the SUV has a mean and a spread; a voxel's log-likelihood ratio is evidence. Where
  a tumour is no hotter than what lies about it, the ratio is 0 and the views alone decide.
- Neighbours are rather of one kind (a Potts prior).

The energy is lowered voxel by voxel (iterated conditional modes, Besag, J. R. Stat. Soc. B 48,
1986), the boldest flips first. Views that agree with each other perfectly (drawn from one mask) are
recognised by their visual hull, which then hits every marked ray: the answer stays inside it.
"""

import math
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

from nnunetv2_mip import explanation_kernels as kernels
from nnunetv2_mip.fusion_rules import UNSEEN_WEIGHT
from nnunetv2_mip.geometry import ViewGeometry
from nnunetv2_mip.projection import detector_layout


@dataclass(frozen=True)
class Explanation:
    """Weights of the model, for views that err (docs/fusion.md says how they were chosen).

    Attributes:
        in_views: share of the views that must call a voxel lesion before it is asked about.
        candidate: vote (rule `visibility` of `fusion`) from which a voxel may be lesion.
        start: vote from which it is at first.
        rays: weight of the views' log-likelihood. Below 1, since neighbouring rays err together.
        shared_marks: a marked ray needs one voxel, and only the last on it counts; this share of a
            mark speaks for every voxel on its ray, as silence speaks against every one. Without it
            the rim of large lesions is worn away.
        uptake: weight of the uptake's log-likelihood.
        trust: exponent of Youden's index (Cancer 3, 1950) of the uptake, by which its weight is
            multiplied: how well it tells a lesion from what lies about it.
        smooth: energy of a voxel all of whose neighbours are of the other kind.
        prior: energy in favour of a candidate.
        hidden_below: a hit is hidden where the candidates on a ray stay below this share of its
            maximum.
        neighbourhood_mm: standard deviation of the window of the uptake's moments.
        spread: least standard deviation of the uptake as a share of the mean.
        rounds: of estimating rates and moments, and lowering the energy.
    """

    in_views: float = 0.2
    candidate: float = 0.2
    start: float = 0.6
    rays: float = 0.35
    shared_marks: float = 0.05
    uptake: float = 0.5
    trust: float = 2.0
    smooth: float = 1.0
    prior: float = 0.0
    hidden_below: float = 0.7
    neighbourhood_mm: float = 8.0
    spread: float = 0.1
    rounds: int = 5


# Views that agree perfectly count fully, and most voxels of their hull are lesion.
AGREEING_VIEWS = Explanation(shared_marks=0.0, rays=1.0, uptake=1.0, smooth=2.0, prior=0.75)
# A lower energy by less than this is left alone, sweep by sweep.
_LEAST = (1.5, 0.5, 0.0, 0.0)
# Rates are drawn from at least this many rays of 50 % (hits) and 10 % (misses), and kept from 0, 1.
_PRIOR_RAYS = 5.0
_PRIOR_RATES = np.array([0.8, 0.5, 0.5, 0.2, 0.1])
_RATE_MARGIN = 0.002
_MOST_UPTAKE = 4.0
_SHELL = 3
# Rounds end when fewer than this share of the candidates flip.
_FEW = 0.005
# The hull explains the views when it hits this share of the marked rays.
_CONSISTENT = 0.99


def explain(
    views: np.ndarray,
    hull: np.ndarray,
    suv: np.ndarray | None,
    suv_views: np.ndarray | None,
    geometry: ViewGeometry,
    erring: Explanation | None = None,
    agreeing: Explanation = AGREEING_VIEWS,
) -> np.ndarray:
    """The mask that explains the views best.

    Without the SUV no hit counts as hidden, and the views decide alone.

    Args:
        views: (V, H, W) float32, probability that a pixel is lesion.
        hull: (z, y, x) bool, the visual hull of the views.
        suv: (z, y, x) float32, or None.
        suv_views: (V, H, W) float32 its projections, or None.
        geometry: of the views.
        erring: weights for views that contradict each other; None takes the defaults.
        agreeing: weights for views that agree perfectly.

    Returns:
        (z, y, x) bool.
    """
    marks = _by_slice(views)
    ray_maxima = np.zeros_like(marks) if suv is None else _by_slice(suv_views)
    voxels = _where(hull)
    if len(voxels[0]):
        problem = _Problem(voxels, marks, suv, ray_maxima, geometry, agreeing)
        if problem.share_explained() >= _CONSISTENT:
            return problem.solve(np.ones(len(voxels[0]), np.bool_))
    model = erring or Explanation()
    voxels, votes = _candidates(views, marks, hull, suv, ray_maxima, geometry, model)
    if not len(votes):
        return np.zeros(hull.shape, np.bool_)
    problem = _Problem(voxels, marks, suv, ray_maxima, geometry, model)
    return problem.solve((votes >= model.start) | hull[voxels])


def _where(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    # Ten times as fast as nonzero of three axes.
    return np.unravel_index(np.flatnonzero(mask), mask.shape)


def _by_slice(views: np.ndarray) -> np.ndarray:
    """(V, H, W) views, head first, to the kernels' (z, V, W), feet first."""
    return np.ascontiguousarray(views[:, ::-1].transpose(1, 0, 2), np.float32)


def _candidates(views, marks, hull, suv, ray_maxima, geometry, model):
    """The voxels that may be lesion, and what the views say of each of them alone."""
    _, sy, sx = geometry.grid.spacing_zyx
    steps = (np.deg2rad(geometry.angles_deg), sy / geometry.bin_mm, sx / geometry.bin_mm)
    columns = detector_layout(views)
    edges = np.arange(0, columns.shape[2], kernels.BLOCK)
    asked = hull.copy()
    kernels.often_marked(
        columns, np.maximum.reduceat(columns, edges, axis=2), *steps, model.in_views, asked
    )
    voxels = _where(asked)
    values = np.zeros(len(voxels[0]), np.float32) if suv is None else suv[voxels]
    votes = np.empty_like(values)
    kernels.weighted_votes(
        *voxels, values, marks, ray_maxima, *steps, hull.shape, UNSEEN_WEIGHT, votes
    )
    keep = (votes >= model.candidate) | hull[voxels]
    return tuple(axis[keep] for axis in voxels), votes[keep]


class _Problem:
    """Candidates, their rays, and what the views say of them."""

    def __init__(self, zyx, marks, suv, ray_maxima, geometry, model):
        self.marks, self.suv, self.ray_maxima, self.model = marks, suv, ray_maxima, model
        self.zs, self.ys, self.xs = zyx
        self.spacing = geometry.grid.spacing_zyx
        _, sy, sx = self.spacing
        shape = geometry.grid.shape_zyx
        # Sorted by slice.
        self.starts = np.searchsorted(self.zs, np.arange(shape[0] + 1))
        self.first = np.empty((len(self.zs), marks.shape[1]), np.int16)
        self.last = np.empty_like(self.first)
        kernels.shadows(
            self.ys,
            self.xs,
            np.deg2rad(geometry.angles_deg),
            sy / geometry.bin_mm,
            sx / geometry.bin_mm,
            shape[1],
            shape[2],
            marks.shape[2],
            self.first,
            self.last,
        )
        self.reach = np.full(marks.shape, -1, np.float32)
        values = np.zeros(len(self.zs), np.float32) if suv is None else suv[zyx]
        kernels.highest_candidates(self.starts, values, self.first, self.last, self.reach)
        self.counts = np.zeros(marks.shape, np.int32)
        self.state = np.zeros(shape, np.uint8)
        self.state[zyx] = kernels.OUTSIDE
        self.boxes = self._boxes()

    def share_explained(self) -> float:
        """The share of the marked rays that some candidate lies on."""
        marked = self.marks >= 0.5
        return np.count_nonzero(marked & (self.reach >= 0)) / max(1, np.count_nonzero(marked))

    def solve(self, inside: np.ndarray) -> np.ndarray:
        """The mask (z, y, x) bool that is found from `inside` (N), what is in it at first."""
        zyx = (self.zs, self.ys, self.xs)
        self.state[zyx] = np.where(inside, kernels.INSIDE, kernels.OUTSIDE)
        weights = self._neighbour_weights()
        kernels.count_inside(self.starts, inside, self.first, self.last, self.counts)
        for number in range(self.model.rounds):
            now = self.state[zyx] == kernels.INSIDE
            if not now.any():
                break
            cost = self._costs()
            evidence = self.model.uptake * self._uptake(now)
            unary = (-evidence - self.model.prior).astype(np.float32)
            # The least likely voxels first.
            order = np.lexsort((evidence, self.zs))
            flips = 0
            for least in _LEAST if number == 0 else _LEAST[-2:]:
                changed = 0
                for parity in range(2):
                    changed += kernels.sweep(
                        self.starts,
                        self.zs,
                        self.ys,
                        self.xs,
                        order,
                        self.first,
                        self.last,
                        unary,
                        cost,
                        weights,
                        least,
                        np.float32(self.model.shared_marks),
                        parity,
                        self.state,
                        self.counts,
                    )
                flips += changed
                if changed == 0 and least == 0:
                    break
            if flips < _FEW * len(self.zs):
                break
        return self.state == kernels.INSIDE

    def _neighbour_weights(self) -> np.ndarray:
        """(3, 3, 3): the 26 neighbours by their inverse squared distance."""
        offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1)
        squares = ((offsets * np.array(self.spacing)) ** 2).sum(-1)
        weights = np.where(squares > 0, 1 / np.maximum(squares, 1e-12), 0)
        return (self.model.smooth * weights / weights.sum()).astype(np.float32)

    def _costs(self) -> np.ndarray:
        """(z, V, W): what it costs that the mask hits a ray instead of missing it."""
        hidden_below = np.float32(self.model.hidden_below)
        rays, marked = np.empty((2, self.marks.shape[1], kernels.KINDS))
        place = (self.marks, self.counts, self.reach, hidden_below, self.ray_maxima)
        kernels.agreement(*place, rays, marked)
        # Too few rays of one view are hidden: one rate for all views.
        rays[:, kernels.HIDDEN] = rays[:, kernels.HIDDEN].sum()
        marked[:, kernels.HIDDEN] = marked[:, kernels.HIDDEN].sum()
        rates = (marked + _PRIOR_RAYS * _PRIOR_RATES) / (rays + _PRIOR_RAYS)
        rates = np.clip(rates, _RATE_MARGIN, 1 - _RATE_MARGIN)
        # What a ray of each kind would be if it were hit, and if it were missed.
        if_hit = rates[:, [kernels.INNER, kernels.EDGE, kernels.HIDDEN, kernels.EDGE, kernels.EDGE]]
        if_missed = rates[:, [kernels.NEAR] * 4 + [kernels.FAR]]
        # A view that marks no more of what is hit than of what is not tells nothing.
        telling = if_hit > if_missed
        when_marked = np.where(telling, self.model.rays * np.log(if_missed / if_hit), 0)
        when_not = np.where(telling, self.model.rays * np.log((1 - if_missed) / (1 - if_hit)), 0)
        cost = np.zeros(self.marks.shape, np.float32)
        kernels.costs(
            *place,
            when_marked.astype(np.float32),
            when_not.astype(np.float32),
            cost,
        )
        return cost

    def _boxes(self) -> list[tuple]:
        """For every group of candidates: their numbers, and a box with what lies about them."""
        reach = [math.ceil(2 * self.model.neighbourhood_mm / step) for step in self.spacing]
        places = (self.zs, self.ys, self.xs)
        corner = [place.min() for place in places]
        box = tuple(slice(low, place.max() + 1) for low, place in zip(corner, places))
        groups = cc3d.connected_components(self.state[box], connectivity=26, binary_image=True)
        group = groups[tuple(place - low for low, place in zip(corner, places))]
        order = np.argsort(group, kind="stable")
        ends = np.flatnonzero(np.diff(group[order])) + 1
        boxes = []
        for numbers in np.split(order, ends):
            low, high = [], []
            for axis, place in enumerate(places):
                low.append(max(0, int(place[numbers].min()) - reach[axis]))
                high.append(
                    min(self.state.shape[axis], int(place[numbers].max()) + reach[axis] + 1)
                )
            boxes.append((numbers, np.array(low), np.array(high)))
        return boxes

    def _uptake(self, inside: np.ndarray) -> np.ndarray:
        """(N) log-likelihood ratio of the candidates' SUV, as far as it tells in from out."""
        evidence = np.zeros(len(self.zs), np.float32)
        if self.suv is None:
            return evidence
        cell = np.array(
            [max(1, round(self.model.neighbourhood_mm / 2 / step)) for step in self.spacing]
        )
        sigma = self.model.neighbourhood_mm / (cell * np.array(self.spacing))
        for numbers, low, high in self.boxes:
            if not inside[numbers].any():
                continue
            sums = np.zeros((2, 3, *(-(-(high - low) // cell))))
            kernels.collect_moments(self.suv, self.state, low, high, cell, sums)
            sums = gaussian_filter(sums, (0, 0, *sigma), mode="constant", truncate=2.5)

            def ask(zs, ys, xs, low=low, sums=sums):
                found = np.empty(len(zs), np.float32)
                kernels.uptake_evidence(
                    zs, ys, xs, self.suv, low, cell, sums, self.model.spread, _MOST_UPTAKE, found
                )
                return found

            found = ask(self.zs[numbers], self.ys[numbers], self.xs[numbers])
            box = tuple(slice(a, b) for a, b in zip(low, high))
            mask = self.state[box] == kernels.INSIDE
            around = binary_dilation(mask, iterations=_SHELL) & ~mask
            beside = ask(*(axis + corner for axis, corner in zip(np.nonzero(around), low)))
            within = ask(*(axis + corner for axis, corner in zip(np.nonzero(mask), low)))
            if not len(beside):
                continue
            youden = (within > 0).mean() + (beside < 0).mean() - 1
            evidence[numbers] = max(0.0, youden) ** self.model.trust * found
        return evidence
