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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cc3d
import numba
import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_mip.fusion import explain_kernels as kernels
from nnunetv2_mip.fusion.rules import UNSEEN_WEIGHT
from nnunetv2_mip.views.geometry import ViewGeometry


@dataclass(frozen=True)
class Explanation:
    """Weights of the model, for views that err (docs/fusion.md says how they were chosen).

    Attributes:
        in_views: share of the views that must call a voxel lesion before it is asked about.
        candidate: vote (rule `visibility` of `fusion`) from which a voxel may be lesion.
        start: vote from which it is at first.
        rays: weight of the views' log-likelihood. Below 1, since neighbouring rays err together.
        independent_views: more views than this err together, too: of n views each weighs
            √(independent_views / n) as much.
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
    candidate: float = 0.3
    start: float = 0.6
    rays: float = 0.35
    independent_views: float = 12
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
AGREEING_VIEWS = Explanation(
    shared_marks=0.0, rays=1.0, independent_views=math.inf, uptake=1.0, smooth=2.0, prior=0.75
)
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
    hull: np.ndarray | None,
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
        hull: (z, y, x) bool, the visual hull of the views; None where it is empty.
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
    if hull is not None and hull.any():
        voxels = _where(hull)
        problem = _Problem(voxels, marks, suv, ray_maxima, geometry, agreeing)
        if problem.share_explained() >= _CONSISTENT:
            return problem.solve(np.ones(len(voxels[0]), np.bool_))
    model = erring or Explanation()
    voxels, votes, in_hull = _candidates(marks, hull, suv, ray_maxima, geometry, model)
    if not len(votes):
        return np.zeros(geometry.grid.shape_zyx, np.bool_)
    problem = _Problem(voxels, marks, suv, ray_maxima, geometry, model)
    return problem.solve((votes >= model.start) | in_hull)


def _where(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    # Ten times as fast as nonzero of three axes.
    return np.unravel_index(np.flatnonzero(mask), mask.shape)


def _dealt(slices: np.ndarray) -> np.ndarray:
    """Slices in such an order that each thread's part of them comes from all over the body."""
    threads = numba.get_num_threads()
    return np.concatenate([slices[start::threads] for start in range(threads)])


def _by_slice(views: np.ndarray) -> np.ndarray:
    """(V, H, W) views, head first, to the kernels' (z, V, W), feet first."""
    return np.ascontiguousarray(views[:, ::-1].transpose(1, 0, 2), np.float32)


def _candidates(marks, hull, suv, ray_maxima, geometry, model):
    """The voxels that may be lesion, what the views say of each alone, whether the hull has it."""
    shape = geometry.grid.shape_zyx
    _, sy, sx = geometry.grid.spacing_zyx
    steps = (np.deg2rad(geometry.angles_deg), sy / geometry.bin_mm, sx / geometry.bin_mm)
    # Whole blocks of slices, and only those in which enough views mark anything.
    padded = -(-shape[0] // kernels.BLOCK) * kernels.BLOCK
    highest = np.zeros((padded, len(steps[0])), np.float32)
    highest[: shape[0]] = marks.max(axis=2)
    highest = highest.reshape(-1, kernels.BLOCK, len(steps[0])).max(axis=1)
    blocks = np.flatnonzero(highest.sum(axis=1) >= model.in_views * len(steps[0]))
    slices = np.add.outer(blocks * kernels.BLOCK, np.arange(kernels.BLOCK)).ravel()
    blocked = np.zeros((len(slices), *marks.shape[1:]), np.float32)
    blocked[slices < shape[0]] = marks[slices[slices < shape[0]]]
    blocked = blocked.reshape(-1, kernels.BLOCK, *marks.shape[1:])
    # A block's shadow is as wide as its diagonal across the ray.
    across = np.abs(np.cos(steps[0])) * steps[2] + np.abs(np.sin(steps[0])) * steps[1]
    reaches = np.ceil(across * (kernels.BLOCK - 1)).astype(np.int64) + 2
    widest = np.empty((len(blocks), *marks.shape[1:]), np.float32)
    kernels.widest_maxima(blocked.max(axis=1), reaches, widest)
    asked = np.zeros((len(slices), *shape[1:]), np.bool_)
    columns = np.ascontiguousarray(blocked.transpose(0, 2, 3, 1))
    kernels.often_marked(columns, widest, reaches, *steps, model.in_views, asked)
    zs, ys, xs = _where(asked)
    voxels = (slices[zs], ys, xs)
    values = np.zeros(len(zs), np.float32) if suv is None else suv[voxels]
    votes = np.empty_like(values)
    kernels.weighted_votes(*voxels, values, marks, ray_maxima, *steps, shape, UNSEEN_WEIGHT, votes)
    in_hull = np.zeros(len(zs), np.bool_) if hull is None else hull[voxels]
    keep = (votes >= model.candidate) | in_hull
    return tuple(axis[keep] for axis in voxels), votes[keep], in_hull[keep]


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
        self.values = np.zeros(len(self.zs), np.float32) if suv is None else suv[zyx]
        self.slices = _dealt(np.flatnonzero(np.diff(self.starts)))
        self.parities = [_dealt(np.sort(self.slices[self.slices % 2 == odd])) for odd in range(2)]
        self.reach = np.full(marks.shape, -1, np.float32)
        kernels.highest_candidates(
            self.slices, self.starts, self.values, self.first, self.last, self.reach
        )
        self.span = np.empty((*marks.shape[:2], 2), np.int16)
        kernels.spans(self.slices, self.starts, self.first, self.last, self.span)
        self.kinds = np.empty(marks.shape, np.uint8)
        self.cost = np.empty(marks.shape, np.float32)
        self.worth = np.empty((marks.shape[0], 2, *marks.shape[1:]), np.float32)
        self.counts = np.zeros(marks.shape, np.int32)
        self._count(np.ones(len(self.zs), np.bool_))
        self.most_on_ray = int(self.counts.max())
        self.state = np.zeros(shape, np.uint8)
        self.flat = np.ravel_multi_index(zyx, shape)
        self.state.ravel()[self.flat] = kernels.OUTSIDE
        self.boxes = self._boxes()

    def share_explained(self) -> float:
        """The share of the marked rays that some candidate lies on."""
        marked = self.marks >= 0.5
        return np.count_nonzero(marked & (self.reach >= 0)) / max(1, np.count_nonzero(marked))

    def solve(self, inside: np.ndarray) -> np.ndarray:
        """The mask (z, y, x) bool that is found from `inside` (N), what is in it at first."""
        state = self.state.ravel()
        state[self.flat] = np.where(inside, kernels.INSIDE, kernels.OUTSIDE)
        self._count(inside)
        for number in range(self.model.rounds):
            if not inside.any():
                break
            flips = self._lower_energy(inside, _LEAST if number == 0 else _LEAST[-2:])
            inside = state[self.flat] == kernels.INSIDE
            if flips < _FEW * len(self.zs):
                break
        mask = np.zeros(self.state.shape, np.bool_)
        mask.ravel()[self.flat] = inside
        return mask

    def _lower_energy(self, inside: np.ndarray, thresholds: tuple[float, ...]) -> int:
        """Estimate what the mask (N) bool says of views and uptake, and flip; number of flips."""
        shares = self._shares()
        self._weigh_rays(shares)
        evidence = self.model.uptake * self._uptake(inside)
        unary = (-evidence - self.model.prior).astype(np.float32)
        order = np.empty(len(self.zs), np.int64)
        kernels.least_likely_first(self.slices, self.starts, evidence, order)
        weights = self._neighbour_weights()
        gains = np.full(len(self.starts) - 1, np.inf, np.float32)
        changed = np.zeros(len(gains), np.int64)
        flips = 0
        for least in thresholds:
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
                    self.cost,
                    shares,
                    weights,
                    least,
                    gains,
                    self.state,
                    self.counts,
                    self.worth,
                    changed,
                )
                flips += int(changed[slices].sum())
                # Neighbours of what has flipped may want to flip too.
                moved = slices[changed[slices] > 0]
                gains[np.maximum(moved - 1, 0)] = np.inf
                gains[np.minimum(moved + 1, len(gains) - 1)] = np.inf
            if flips == before and least == 0:
                break
        return flips

    def _count(self, inside: np.ndarray) -> None:
        """Count the voxels of the mask `inside` (N) on every ray."""
        self.counts[:] = 0
        kernels.count_inside(self.slices, self.starts, inside, self.first, self.last, self.counts)

    def _neighbour_weights(self) -> np.ndarray:
        """(3, 3, 3): the 26 neighbours by their inverse squared distance."""
        offsets = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1)
        squares = ((offsets * np.array(self.spacing)) ** 2).sum(-1)
        weights = np.where(squares > 0, 1 / np.maximum(squares, 1e-12), 0)
        return (self.model.smooth * weights / weights.sum()).astype(np.float32)

    def _shares(self) -> np.ndarray:
        """(2, n): the part of a ray's energy that a voxel bears with 0, 1, ... others on it."""
        # A marked ray needs one voxel; others on it are worth little. One that is not marked speaks
        # against every voxel on it: the n-th costs 1/n (were only the last to go of use, none would
        # be the first).
        ranks = np.arange(1, self.most_on_ray + 1, dtype=np.float32)
        shares = np.stack([self.model.shared_marks / ranks, 1 / ranks]).astype(np.float32)
        shares[0, 0] = 1
        return shares

    def _weigh_rays(self, shares: np.ndarray) -> None:
        """Estimate rates, and from them what it costs that the mask hits a ray or misses it."""
        hidden_below = np.float32(self.model.hidden_below)
        by_slice = np.zeros((2, *self.marks.shape[:2], kernels.KINDS))
        kernels.agreement(
            self.slices,
            self.span,
            self.marks,
            self.counts,
            self.reach,
            hidden_below,
            self.ray_maxima,
            self.kinds,
            *by_slice,
        )
        rays, marked = by_slice.sum(axis=1)
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
        repeated = max(1.0, self.marks.shape[1] / self.model.independent_views)
        weight = self.model.rays / math.sqrt(repeated)
        when_marked = np.where(telling, weight * np.log(if_missed / if_hit), 0)
        when_not = np.where(telling, weight * np.log((1 - if_missed) / (1 - if_hit)), 0)
        kernels.costs(
            self.slices,
            self.span,
            self.marks,
            self.counts,
            self.reach,
            self.kinds,
            when_marked.astype(np.float32),
            when_not.astype(np.float32),
            shares,
            self.cost,
            self.worth,
        )

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
        # The largest first: threads that take them in turn end together.
        return sorted(boxes, key=lambda box: -math.prod(box[2] - box[1]))

    def _uptake(self, inside: np.ndarray) -> np.ndarray:
        """(N) log-likelihood ratio of the candidates' SUV, as far as it tells in from out."""
        evidence = np.zeros(len(self.zs), np.float32)
        if self.suv is None:
            return evidence
        cell = np.array(
            [max(1, round(self.model.neighbourhood_mm / 2 / step)) for step in self.spacing]
        )
        sigma = self.model.neighbourhood_mm / (cell * np.array(self.spacing))

        def ask(places, low, sums):
            found = np.empty(len(places), np.float32)
            kernels.uptake_evidence(
                places, self.suv, low, cell, sums, self.model.spread, _MOST_UPTAKE, found
            )
            return found

        def weigh(box):
            numbers, low, high = box
            if not inside[numbers].any():
                return
            sums = np.zeros((2, 3, *(-(-(high - low) // cell))))
            kernels.collect_moments(self.suv, self.state, low, high, cell, sums)
            sums = gaussian_filter(sums, (0, 0, *sigma), mode="constant", truncate=2.5)
            within, beside = kernels.inside_and_beside(self.state, low, high, _SHELL)
            if not len(beside):
                return
            places = np.stack([axis[numbers] for axis in (self.zs, self.ys, self.xs)], axis=1)
            youden = (ask(within, low, sums) > 0).mean() + (ask(beside, low, sums) < 0).mean() - 1
            trust = max(0.0, youden) ** self.model.trust
            evidence[numbers] = trust * ask(places.astype(np.int32), low, sums)

        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            list(pool.map(weigh, self.boxes))
        return evidence
