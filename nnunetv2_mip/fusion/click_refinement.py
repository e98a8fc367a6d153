"""Clicks and a fused mask: tumour clicks are seeds, background clicks are barriers.

- A tumour click that the mask misses grows a region: what hangs together with it above a level
  between the uptake around and the peak beside the click, as readers outline lesions
  (contrast-oriented, Schaefer et al., Eur. J. Nucl. Med. Mol. Imaging 35, 2008). Where that region
  would leak, far away or into something hotter, the level is raised until it does not.
- A background click takes the part of the mask that hangs together with it and is not hotter than
  it. Clicked at its hottest, an organ goes as a whole; clicked at its rim, a lesion loses the rim.
- Where clicks of both kinds lie in one region, every voxel goes to the click that is nearer along
  paths inside the region, on which a change of uptake is a detour (geodesic distance, as in
  Criminisi et al., ECCV 2008): the border lies in the valley of uptake between them.

So every tumour click is inside and every background click outside, by construction. And the mask is
monotone: a further tumour click takes nothing away, a further background click adds nothing (but
for a click that replaces an earlier one in the same voxel).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from nnunetv2_mip.io.clicks import Clicks, Voxel

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class ClickModel:
    """How far a click speaks (docs/results.md says how this was chosen).

    Attributes:
        level: share of the contrast between surroundings and peak at which a lesion ends.
        surroundings_percentile: of the uptake within `reach_mm` of the click.
        peak_mm: the peak is looked for within this distance of the click.
        reach_mm: a region that comes this far from its click leaks.
        hottest: a region that holds more than this multiple of the peak leaks too: into something
            else that is hotter.
        grow_mm: geodesic length of the part of a region that is taken when it leaks at every level.
        least_mm: within this distance a click speaks for all that is no fainter.
        faint: a click fainter than the level that its peak asks for grows above this share of
            its own uptake.
        hotter: a background click takes what has up to this multiple of its uptake.
        removal_mm: geodesic distance up to which it does.
        detour_mm: length that a change of uptake by the factor e is worth.
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


_LEVELS = 12
# Changes of uptake below this are noise.
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
    """A mask with what its reader clicked.

    Args:
        mask: (z, y, x) uint8 of 0 and 1.
        suv: (z, y, x) on the same grid.
        clicks: voxels of these arrays.
        spacing_mm: (z, y, x).
        model: None takes the defaults.

    Returns:
        (z, y, x) uint8 of 0 and 1; all tumour clicks are 1, all background clicks are 0.
    """
    if not clicks:
        return mask
    image = _Image(suv, spacing_mm, model or ClickModel())
    inside = mask.astype(bool)
    out = inside.copy()
    for box, region in image.removed(inside, clicks):
        out[box] &= ~region
    for click in clicks.tumour:
        # What is marked already needs no seed; the click protects it, and that is enough.
        if not inside[click]:
            box, region = image.grown(click, clicks.background)
            out[box] |= region
    return out.view(np.uint8)


class _Image:
    """The uptake, and what a click means in it."""

    def __init__(self, suv: np.ndarray, spacing_mm: Sequence[float], model: ClickModel):
        self.suv, self.spacing_mm, self.model = suv, spacing_mm, model

    def removed(self, inside: np.ndarray, clicks: Clicks) -> Iterable[tuple[Box, np.ndarray]]:
        """What background clicks take from a mask (z, y, x) bool, box by box."""
        barriers = [click for click in clicks.background if inside[click]]
        if not barriers:
            return
        components = cc3d.connected_components(inside, connectivity=18)
        for barrier in barriers:
            # A tumour click that is nearer to something than this one, which is within
            # `removal_mm` of it, lies within twice that.
            box, place = self._box(barrier, 2 * self.model.removal_mm)
            region = components[box] == components[barrier]
            found = self._reached(region, box, [place], self.model.removal_mm)
            taken = found <= self.model.removal_mm
            seeds = _places(clicks.tumour, box, region)
            if seeds:
                taken &= found < self._reached(region, box, seeds, self.model.removal_mm)
            limit = self.model.hotter * self.suv[barrier]
            like = cc3d.connected_components(region & (self.suv[box] <= limit), connectivity=18)
            yield box, taken & (like == like[place])

    def grown(self, click: Voxel, background: Sequence[Voxel]) -> tuple[Box, np.ndarray]:
        """A box, and in it the region (bool) that a tumour click stands for."""
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
            region |= self._largest_that_holds(box, place, levels, distance, peak)
        barriers = _places(background, box, region)
        if barriers:
            theirs = self._reached(region, box, barriers)
            region &= self._reached(region, box, [place]) < theirs
        return box, region

    def _largest_that_holds(self, box, place, levels, distance, peak) -> np.ndarray:
        """The component of the click at the lowest of falling levels at which it does not leak."""
        suv, reach_mm = self.suv[box], self.model.reach_mm
        near = distance <= reach_mm
        rim = near & (distance > reach_mm - max(self.spacing_mm))
        held = None
        for level in levels:
            labels = cc3d.connected_components(near & (suv >= level), connectivity=18)
            found = labels == labels[place]
            if (found & rim).any() or suv[found].max() > self.model.hottest * peak:
                break
            held = found
        if held is None:
            # As hot as the click all around, as in the middle of a large tumour.
            held = self._reached(found, box, [place], self.model.grow_mm) <= self.model.grow_mm
        return held

    def _box(self, voxel: Voxel, reach_mm: float) -> tuple[Box, Voxel]:
        """The part of the image within reach of a voxel, and the place of the voxel in it."""
        reach = [int(np.ceil(reach_mm / mm)) for mm in self.spacing_mm]
        box = tuple(
            slice(max(0, v - r), min(n, v + r + 1)) for v, r, n in zip(voxel, reach, self.suv.shape)
        )
        return box, tuple(v - part.start for v, part in zip(voxel, box))

    def _distance(self, shape: Sequence[int], place: Voxel) -> np.ndarray:
        """(z, y, x) straight distance from a place in mm."""
        axes = np.ogrid[tuple(slice(0, n) for n in shape)]
        squares = (((a - p) * mm) ** 2 for a, p, mm in zip(axes, place, self.spacing_mm))
        return np.sqrt(sum(squares))

    def _reached(
        self, region: np.ndarray, box: Box, places: Sequence[Voxel], limit_mm: float = np.inf
    ) -> np.ndarray:
        """(z, y, x) shortest way in mm inside `region` from the nearest place.

        inf outside of the region, and beyond the limit.
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


def _places(voxels: Sequence[Voxel], box: Box, region: np.ndarray) -> list[Voxel]:
    """Those of the voxels that lie in the region, as places in its box."""
    found = []
    for voxel in voxels:
        place = tuple(v - part.start for v, part in zip(voxel, box))
        if all(0 <= p < n for p, n in zip(place, region.shape)) and region[place]:
            found.append(place)
    return found
