"""Refinement of a fused mask by a reader's clicks on tumour and background.

- A tumour click outside of the mask grows a region: the component of the click above a level
  between the uptake of its surroundings and the peak beside it (contrast-oriented threshold,
  Schaefer et al., Eur. J. Nucl. Med. Mol. Imaging 35, 2008). Where that region would leak, far away
  or into something hotter, the level is raised until it does not.
- A background click removes the part of the mask that is connected to it and not hotter than it. A
  click at the hottest voxel of an organ removes the organ; a click at the rim of a lesion removes
  the rim.
- Where clicks of both kinds lie in one region, every voxel belongs to the click at the smaller
  geodesic distance (Criminisi et al., ECCV 2008). The distance is measured along paths inside the
  region, and a change of uptake on the path adds to it, so that the border lies in the valley of
  uptake between the clicks.

Every tumour click is therefore inside the mask and every background click outside. The mask is also
monotone: a further tumour click removes nothing, and a further background click adds nothing,
except for a click that replaces an earlier one in the same voxel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from nnunetv2_mip.io.clicks import Clicks, Voxel
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ClickModel:
    """Levels and distances of the refinement by clicks (chosen as docs/results/volumes.md says).

    Attributes:
        level: share of the contrast between surroundings and peak at which a lesion ends.
        surroundings_percentile: of the uptake within `reach_mm` of the click.
        peak_mm: distance from the click within which the peak is looked for.
        reach_mm: distance from the click at which a region counts as leaking.
        hottest: multiple of the peak above which the highest uptake of a region counts as leaking
            into something else.
        grow_mm: geodesic distance up to which a region is kept that leaks at every level.
        least_mm: distance from the click within which all voxels that are no fainter are marked.
        faint: share of its own uptake above which a click grows that is fainter than the level.
        hotter: multiple of its uptake up to which a background click removes voxels.
        removal_mm: geodesic distance up to which it does.
        detour_mm: length that a change of uptake by the factor e adds to a path.
    """

    level: float = 0.45
    surroundings_percentile: float = 25.0
    peak_mm: float = 6.0
    reach_mm: float = 60.0
    hottest: float = 1.5
    grow_mm: float = 50.0
    least_mm: float = 4.0
    faint: float = 0.9
    hotter: float = 1.1
    removal_mm: float = 50.0
    detour_mm: float = 20.0


# Levels that are tried until a region does not leak.
_LEVELS = 12
# Changes of uptake below this SUV are noise.
_FLOOR_SUV = 0.5
_HALF_NEIGHBOURHOOD = [
    (z, y, x) for z in (0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)
]


def with_clicks(
    mask: np.ndarray,
    suv: np.ndarray,
    clicks: Clicks,
    spacing_mm: tuple[float, float, float],
    model: ClickModel | None = None,
) -> np.ndarray:
    """Mask refined by the clicks of a reader.

    Args:
        mask: (z, y, x) uint8 of 0 and 1.
        suv: (z, y, x) on the same grid.
        clicks: voxels of these arrays.
        spacing_mm: voxel size (z, y, x).
        model: None takes the defaults.

    Returns:
        (z, y, x) uint8 of 0 and 1; all tumour clicks are 1, all background clicks are 0.
    """
    if not clicks:
        return mask
    image = _ClickedImage(suv, spacing_mm, model or ClickModel())
    inside = mask.astype(bool)
    out = inside.copy()
    for box, region in image.removed_regions(inside, clicks):
        out[box] &= ~region
    for click in clicks.tumour:
        # Inside the mask a click needs no region; it only protects its component from removal.
        if not inside[click]:
            box, region = image.grown_region(click, clicks.background)
            out[box] |= region
    return out.view(np.uint8)


class _ClickedImage:
    """SUV volume, with the regions that clicks add to a mask or remove from it."""

    def __init__(self, suv: np.ndarray, spacing_mm: Sequence[float], model: ClickModel):
        self.suv, self.spacing_mm, self.model = suv, spacing_mm, model

    def removed_regions(
        self, inside: np.ndarray, clicks: Clicks
    ) -> Iterable[tuple[Box, np.ndarray]]:
        """Regions that background clicks remove from a mask (z, y, x) bool: boxes, bool in them."""
        barriers = [click for click in clicks.background if inside[click]]
        if not barriers:
            return
        components = _components(inside)
        for barrier in barriers:
            # Voxels up to `removal_mm` away are removed. A tumour click nearer to one of them lies
            # within twice that distance.
            box, place = self._box(barrier, 2 * self.model.removal_mm)
            region = components[box] == components[barrier]
            found = self._geodesic_mm(region, box, [place], self.model.removal_mm)
            taken = found <= self.model.removal_mm
            seeds = _places(clicks.tumour, box, region)
            if seeds:
                taken &= found < self._geodesic_mm(region, box, seeds, self.model.removal_mm)
            limit = self.model.hotter * self.suv[barrier]
            like = _components(region & (self.suv[box] <= limit))
            yield box, taken & (like == like[place])

    def grown_region(self, click: Voxel, background: Sequence[Voxel]) -> tuple[Box, np.ndarray]:
        """Region that a tumour click adds: a box, and (z, y, x) bool in it."""
        model = self.model
        box, place = self._box(click, model.reach_mm)
        suv, own = self.suv[box], self.suv[click]
        distance = self._distance(suv.shape, place)
        near = distance <= model.reach_mm
        low = np.percentile(suv[near], model.surroundings_percentile)
        peak = suv[distance <= model.peak_mm].max()
        level = low + model.level * (peak - low)
        region = (distance <= model.least_mm) & (suv >= min(own, level))
        if own > low:
            levels = np.linspace(own, level, _LEVELS) if own >= level else [model.faint * own]
            region |= self._largest_without_leak(box, place, levels, distance, peak)
        barriers = _places(background, box, region)
        if barriers:
            theirs = self._geodesic_mm(region, box, barriers)
            region &= self._geodesic_mm(region, box, [place]) < theirs
        return box, region

    def _largest_without_leak(self, box, place, levels, distance, peak) -> np.ndarray:
        """Component of the click at the lowest of falling levels at which it does not leak."""
        suv, reach_mm = self.suv[box], self.model.reach_mm
        near = distance <= reach_mm
        rim = near & (distance > reach_mm - max(self.spacing_mm))
        kept = None
        for level in levels:
            labels = _components(near & (suv >= level))
            found = labels == labels[place]
            if (found & rim).any() or suv[found].max() > self.model.hottest * peak:
                break
            kept = found
        if kept is None:
            # The surroundings are as hot as the click, as in the middle of a large tumour.
            kept = self._geodesic_mm(found, box, [place], self.model.grow_mm) <= self.model.grow_mm
        return kept

    def _box(self, voxel: Voxel, reach_mm: float) -> tuple[Box, Voxel]:
        """Part of the image within `reach_mm` of a voxel, and index of the voxel in it."""
        reach = [int(np.ceil(reach_mm / mm)) for mm in self.spacing_mm]
        z, y, x = (
            slice(max(0, v - r), min(n, v + r + 1)) for v, r, n in zip(voxel, reach, self.suv.shape)
        )
        return (z, y, x), (voxel[0] - z.start, voxel[1] - y.start, voxel[2] - x.start)

    def _distance(self, shape: Sequence[int], place: Voxel) -> np.ndarray:
        """Distance (z, y, x) in mm from a voxel of a box, along a straight line."""
        axes = np.ogrid[tuple(slice(0, n) for n in shape)]
        squares = (((a - p) * mm) ** 2 for a, p, mm in zip(axes, place, self.spacing_mm))
        return np.sqrt(sum(squares))

    def _geodesic_mm(
        self, region: np.ndarray, box: Box, places: Sequence[Voxel], limit_mm: float = np.inf
    ) -> np.ndarray:
        """Geodesic distance (z, y, x) in mm inside `region` (bool) from the nearest of `places`.

        It is inf outside of the region and beyond the limit.
        """
        log_suv = np.log(np.maximum(self.suv[box], np.float32(_FLOOR_SUV)))
        count = np.count_nonzero(region)
        number = np.full(region.shape, -1, np.int32)
        number[region] = np.arange(count, dtype=np.int32)
        rows, columns, lengths = [], [], []
        for offset in _HALF_NEIGHBOURHOOD:
            pairs = list(zip(offset, region.shape))
            here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in pairs)
            there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in pairs)
            both = region[here] & region[there]
            rows.append(number[here][both])
            columns.append(number[there][both])
            step_mm = np.sqrt(sum((o * mm) ** 2 for o, mm in zip(offset, self.spacing_mm)))
            change = np.abs(log_suv[here][both] - log_suv[there][both])
            lengths.append(step_mm + self.model.detour_mm * change.astype(np.float64))
        edges = (np.concatenate(rows), np.concatenate(columns))
        graph = coo_array((np.concatenate(lengths), edges), (count, count)).tocsr()
        sources = [int(number[place]) for place in places]
        out = np.full(region.shape, np.inf)
        out[region] = dijkstra(
            graph, directed=False, indices=sources, min_only=True, limit=limit_mm
        )
        return out


def _components(mask: np.ndarray) -> np.ndarray:
    """Numbers (z, y, x) of the lesions of a mask (bool), 0 outside."""
    return cc3d.connected_components(mask, connectivity=LESION_CONNECTIVITY[3])


def _places(voxels: Sequence[Voxel], box: Box, region: np.ndarray) -> list[Voxel]:
    """Indices in the box of those voxels that lie in the region."""
    found = []
    for voxel in voxels:
        place = tuple(v - part.start for v, part in zip(voxel, box))
        if all(0 <= p < n for p, n in zip(place, region.shape)) and region[place]:
            found.append(place)
    return found
