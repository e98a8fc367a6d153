"""Fusion rule `explain`: the mask whose own projections agree best with the views.

The other rules decide each voxel alone. This one evaluates a whole mask by an energy of three
parts, and looks for the mask of lowest energy:

- Views. A ray is marked (the view calls its pixel lesion) or not, and hit by the mask (any hit) or
  not. The rates at which a view marks hit rays and missed rays are estimated from the views
  themselves, view by view, in turn with the mask (expectation maximisation, Dempster et al., J. R.
  Stat. Soc. B 39, 1977; STAPLE, Warfield et al., IEEE TMI 23, 2004, does so for readers of one
  image). In a view that marks too much, marks then weigh little and unmarked rays much; an empty
  view weighs nothing. Hits that are hidden behind something hotter have a rate of their own.
- Uptake. Inside and outside of the mask, in the neighbourhood, the SUV has a mean and a spread; the
  log-likelihood ratio of a voxel is evidence. Where a tumour is no hotter than its surroundings the
  ratio is 0 and the views alone decide.
- Neighbours are more often of one kind (a Potts prior).

The energy is lowered voxel by voxel (iterated conditional modes, Besag, J. R. Stat. Soc. B 48,
1986), flips of the largest gain first. Views that agree with each other perfectly, drawn from one
mask, are recognised by their visual hull, which then hits every marked ray. The result then stays
inside the hull.
"""

import numpy as np

from nnunetv2_mip.fusion.explain_candidates import find_candidates, indices_of
from nnunetv2_mip.fusion.explain_energy import MaskEnergy
from nnunetv2_mip.fusion.explain_weights import CONSISTENT_VIEWS, EnergyWeights
from nnunetv2_mip.views.geometry import ViewGeometry

# Views are consistent when their hull hits this share of the marked rays.
_CONSISTENT = 0.99


def explain(
    views: np.ndarray,
    hull: np.ndarray | None,
    suv: np.ndarray | None,
    suv_views: np.ndarray | None,
    geometry: ViewGeometry,
    inconsistent: EnergyWeights | None = None,
    consistent: EnergyWeights = CONSISTENT_VIEWS,
) -> np.ndarray:
    """Mask (z, y, x) bool that explains the views best.

    Without the SUV no hit counts as hidden, and the views decide alone.

    Args:
        views: (V, H, W) float32, probability that a pixel is lesion.
        hull: (z, y, x) bool, visual hull of the views; None where it is empty.
        suv: (z, y, x) float32, or None.
        suv_views: (V, H, W) float32 its projections, or None.
        geometry: of the views.
        inconsistent: weights for views that contradict each other; None takes the defaults.
        consistent: weights for views that agree perfectly.
    """
    marks = slice_layout(views)
    ray_maxima = np.zeros_like(marks)
    if suv is not None and suv_views is not None:
        ray_maxima = slice_layout(suv_views)
    if hull is not None and hull.any():
        voxels = indices_of(hull)
        energy = MaskEnergy(voxels, marks, suv, ray_maxima, geometry, consistent)
        if energy.share_of_marks_hit() >= _CONSISTENT:
            return energy.minimise(np.ones(len(voxels[0]), np.bool_))
    weights = inconsistent or EnergyWeights()
    found = find_candidates(marks, hull, suv, ray_maxima, geometry, weights)
    if not len(found.votes):
        return np.zeros(geometry.grid.shape_zyx, np.bool_)
    energy = MaskEnergy(found.voxels, marks, suv, ray_maxima, geometry, weights)
    return energy.minimise((found.votes >= weights.start) | found.in_hull)


def slice_layout(views: np.ndarray) -> np.ndarray:
    """Views (V, H, W) in the kernels' order (z, V, W), contiguous (see `views.geometry`)."""
    return np.ascontiguousarray(views[:, ::-1].transpose(1, 0, 2), np.float32)
