"""Weights of the energy that the fusion rule `explain` minimises."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyWeights:
    """Weights for views with errors, as networks predict them (docs/results/fusion.md says why).

    Attributes:
        in_views: mean of the views' probabilities at a voxel from which it may be a candidate.
        candidate: vote (rule `visibility` of `fusion.fuse`) from which a voxel is a candidate, one
            that may become lesion.
        start: vote from which a candidate is in the mask at first.
        rays: weight of the views' log-likelihood. Below 1, since neighbouring rays have the same
            errors.
        independent_views: number of views whose errors are independent. Of n views, if more, each
            weighs √(independent_views / n) as much.
        shared_marks: share of a marked ray's energy that every voxel on it gets. One voxel is
            enough to explain a marked ray, so only the last one on it counts fully. Without this
            share the rim of large lesions is lost.
        uptake: weight of the uptake's log-likelihood.
        trust: exponent of Youden's index (Cancer 3, 1950) of the uptake, by which its weight is
            multiplied: how well the uptake separates a lesion from its surroundings.
        smooth: energy of a voxel all of whose neighbours are of the other kind.
        prior: energy in favour of a candidate.
        hidden_below: a hit counts as hidden where the candidates on a ray stay below this share of
            its maximum.
        neighbourhood_mm: standard deviation of the window of the uptake's moments.
        spread: least standard deviation of the uptake as a share of the mean.
        rounds: most rounds of estimating rates and moments, and lowering the energy.
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


# Weights for views that agree with one mask. They count fully, and most voxels of their hull are
# lesion.
CONSISTENT_VIEWS = EnergyWeights(
    shared_marks=0.0, rays=1.0, independent_views=math.inf, uptake=1.0, smooth=2.0, prior=0.75
)
