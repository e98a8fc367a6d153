"""Features of the regions of a fused mask: size, shape, uptake, place and agreement of the views.

In 3D a physiological structure differs from a lesion by what one view does not show: a ureter is
thin and goes on along the body, a kidney has a partner on the other side, the flank of a bladder
has something hotter beside it, and an overlap of two organs is marked from one side and not from
another.
"""

from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np
from scipy import ndimage

from nnunetv2_mip.fusion.surroundings import SURROUNDINGS_MM, smoothed, surroundings_suv
from nnunetv2_mip.lesions.components import LESION_CONNECTIVITY
from nnunetv2_mip.views.geometry import ViewGeometry

# Columns of the features; logarithms are natural.
FEATURES = (
    "log_volume_ml",
    "log_suv_max",
    "log_contrast",
    "log_elongation",
    "log_flatness",
    "along_body",
    "log_hotter_beside",
    "partner_uptake",
    "goes_on_longer_mm",
    "goes_on_shorter_mm",
    "probability_peak",
    "probability_weighted",
    "probability_least_view",
    "probability_spread",
    "visibility",
    "probability_mean",
    "lateral",
    "front_to_back",
    "height",
    "log_height_mm",
    "log_other_volume_ml",
    "log_regions",
    "uptake_spread",
)
# Distance within which something hotter is looked for.
BESIDE_MM = 12.0
# How far along the body, and around the axis, a structure is followed.
FOLLOWED_MM, FOLLOWED_RADIUS_MM = 40.0, 10.0
# How far from the mirrored place a partner may lie along z, y and x.
PARTNER_MM = (10.0, 8.0, 12.0)
BODY_SUV, TRUNK_SUV = 0.2, 0.3
# A view sees a region when a voxel has this share of the maximum of its ray.
SEEN = 0.8
UNSEEN_WEIGHT = 0.02
# Voxels of a region that are looked up in the views.
MOST_VOXELS = 4000
LEAST = 0.1


@dataclass(frozen=True)
class RegionContext:
    """Study with the probabilities of its views, for fusion and the features of regions.

    Attributes:
        suv: (z, y, x) float32.
        views: (V, H, W) float32, lesion probability on the pixels of `geometry`.
        suv_views: (V, H, W) float32, maxima of the rays.
        geometry: of the views.
    """

    suv: np.ndarray
    views: np.ndarray
    suv_views: np.ndarray
    geometry: ViewGeometry

    @cached_property
    def spacing(self) -> np.ndarray:
        """Voxel size (z, y, x), mm."""
        return np.array(self.geometry.grid.spacing_zyx, float)

    @cached_property
    def smooth(self) -> np.ndarray:
        """SUV without the noise of single voxels."""
        return smoothed(self.suv, self.spacing)

    @cached_property
    def trunk(self) -> tuple[int, int]:
        """First and last slice with uptake."""
        used = np.flatnonzero(self.suv.max(axis=(1, 2)) > TRUNK_SUV)
        return (int(used[0]), int(used[-1])) if len(used) else (0, len(self.suv) - 1)

    def body(self, z: int) -> tuple[float, float, float, float]:
        """Body in slice z: first and last row, column of the middle, half the width, in voxels."""
        _, ny, nx = self.suv.shape
        inside = self.suv[z] > BODY_SUV
        rows = np.flatnonzero(inside.sum(1) > 1)
        columns = np.flatnonzero(inside.sum(0) > 1)
        if not len(rows) or not len(columns):
            return 0.0, float(ny - 1), (nx - 1) / 2, nx / 2
        weight = inside.sum(0).astype(float)
        middle = float((weight * np.arange(nx)).sum() / weight.sum())
        width = max((columns[-1] - columns[0]) / 2, 1.0)
        return float(rows[0]), float(rows[-1]), middle, width


def region_features(mask: np.ndarray, context: RegionContext) -> tuple[np.ndarray, np.ndarray]:
    """Regions of a mask and their features.

    Args:
        mask: (z, y, x), non-zero is lesion.
        context: of the study.

    Returns:
        regions (z, y, x), numbers from 1 (18-connected), and features (regions, `FEATURES`)
        float32.
    """
    regions = cc3d.connected_components(
        np.ascontiguousarray(mask != 0), connectivity=LESION_CONNECTIVITY[3]
    )
    count = int(regions.max(initial=0))
    found = np.zeros((count, len(FEATURES)), np.float32)
    if not count:
        return regions, found
    sizes_ml = np.bincount(regions.ravel())[1:] * np.prod(context.spacing) / 1000
    for number, box in enumerate(ndimage.find_objects(regions)):
        row = _features_of(regions, number + 1, box, context)
        others = float(sizes_ml.sum() - sizes_ml[number])
        row |= {
            "log_volume_ml": np.log(sizes_ml[number]),
            "log_other_volume_ml": np.log1p(max(others, 0.0)),
            "log_regions": np.log(count),
        }
        found[number] = [row[name] for name in FEATURES]
    return regions, found


def _features_of(
    regions: np.ndarray, number: int, box: tuple[slice, ...], context: RegionContext
) -> dict[str, float]:
    """Features of one region that do not depend on the others' sizes."""
    spacing, suv = context.spacing, context.suv
    margin = np.ceil((SURROUNDINGS_MM[1] + 7) / spacing).astype(int)
    low = [max(part.start - step, 0) for part, step in zip(box, margin)]
    high = [min(part.stop + step, size) for part, step, size in zip(box, margin, suv.shape)]
    near = tuple(slice(first, last) for first, last in zip(low, high))
    inside = regions[near] == number
    free = (regions[near] == 0) | inside
    smooth, raw = context.smooth[near], suv[near]
    distance = ndimage.distance_transform_edt(~inside, sampling=spacing)
    surroundings = surroundings_suv(smooth, raw, distance, ~free)
    beside = smooth[(distance > 0) & (distance <= BESIDE_MM) & free]
    values = smooth[inside]
    peak, middle = float(values.max()), float(np.percentile(values, 60))
    voxels = np.argwhere(inside) + low
    lengths, along = _shape(voxels * spacing, spacing)
    ends = _goes_on(voxels, surroundings + 0.5 * (middle - surroundings), context)
    centre = voxels.mean(0)
    first_row, last_row, column, half_width = context.body(int(round(centre[0])))
    first_slice, last_slice = context.trunk
    return {
        "log_suv_max": np.log(max(peak, LEAST)),
        "log_contrast": np.log(max(peak, LEAST) / max(surroundings, LEAST)),
        "log_elongation": np.log(lengths[2] / lengths[1]),
        "log_flatness": np.log(lengths[1] / lengths[0]),
        "along_body": along,
        "log_hotter_beside": np.log(max(float(beside.max(initial=0)), LEAST) / max(peak, LEAST)),
        "partner_uptake": min(_partner(voxels, column, context) / max(peak, LEAST), 2.0),
        "goes_on_longer_mm": max(ends),
        "goes_on_shorter_mm": min(ends),
        **_agreement(voxels, context),
        "lateral": abs(centre[2] - column) / half_width,
        "front_to_back": (centre[1] - first_row) / max(last_row - first_row, 1.0),
        "height": (centre[0] - first_slice) / max(last_slice - first_slice, 1),
        "log_height_mm": np.log((box[0].stop - box[0].start) * spacing[0]),
        "uptake_spread": float(values.std() / max(values.mean(), 1e-3)),
    }


def _shape(places_mm: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, float]:
    """Standard deviations along the principal axes, ascending, and |z| of the longest axis."""
    own = np.diag(spacing**2 / 12)
    spread = np.cov(places_mm.T) if len(places_mm) > 3 else np.zeros((3, 3))
    squares, axes = np.linalg.eigh(spread + own)
    return np.sqrt(squares), float(abs(axes[0, 2]))


def _goes_on(voxels: np.ndarray, level: float, context: RegionContext) -> list[float]:
    """Lengths (above, below) over which uptake above `level` goes on beyond a region, mm."""
    smooth, (dz, dy, dx) = context.smooth, context.spacing
    steps = int(round(FOLLOWED_MM / dz))
    reach_y, reach_x = max(FOLLOWED_RADIUS_MM / dy, 1.0), max(FOLLOWED_RADIUS_MM / dx, 1.0)
    found = []
    for end, step in ((voxels[:, 0].max(), 1), (voxels[:, 0].min(), -1)):
        _, y, x = voxels[voxels[:, 0] == end].mean(0)
        followed = 0
        for away in range(1, steps + 1):
            z = end + step * away
            if not 0 <= z < len(smooth):
                break
            top, left = int(max(y - reach_y, 0)), int(max(x - reach_x, 0))
            window = smooth[z, top : int(y + reach_y) + 1, left : int(x + reach_x) + 1]
            if not window.size or window.max() < level:
                break
            row, column = np.unravel_index(window.argmax(), window.shape)
            y, x = top + row, left + column
            followed += 1
        found.append(followed * dz)
    return found


def _partner(voxels: np.ndarray, middle: float, context: RegionContext) -> float:
    """Uptake (90th percentile) of the region's mirror image on the other side of the body."""
    smooth = context.smooth
    there = voxels[:: max(1, len(voxels) // MOST_VOXELS)].copy()
    there[:, 2] = np.round(2 * middle - there[:, 2]).astype(int)
    there = there[(there[:, 2] >= 0) & (there[:, 2] < smooth.shape[2])]
    if not len(there):
        return 0.0
    away = [int(length / step) for length, step in zip(PARTNER_MM, context.spacing)]
    last = np.array(smooth.shape) - 1
    best = 0.0
    for dz in (-away[0], 0, away[0]):
        for dy in (-away[1], 0, away[1]):
            for dx in (-away[2], 0, away[2]):
                z, y, x = np.clip(there + (dz, dy, dx), 0, last).T
                best = max(best, float(np.percentile(smooth[z, y, x], 90)))
    return best


def _agreement(voxels: np.ndarray, context: RegionContext) -> dict[str, float]:
    """Features of the agreement of the views on a region, and of how well they see it."""
    geometry = context.geometry
    _, ny, nx = context.suv.shape
    _, dy, dx = context.spacing
    _, rows, columns = context.views.shape
    voxels = voxels[:: max(1, len(voxels) // MOST_VOXELS)]
    angles = np.deg2rad(geometry.angles_deg)[:, None]
    across = (voxels[:, 2] - (nx - 1) / 2) * dx * np.cos(angles)
    across = across + (voxels[:, 1] - (ny - 1) / 2) * dy * np.sin(angles)
    column = np.round(across / geometry.bin_mm + (columns - 1) / 2).astype(int)
    column = np.clip(column, 0, columns - 1)
    view, row = np.arange(len(angles))[:, None], rows - 1 - voxels[:, 0][None]
    marked = context.views[view, row, column]
    ray = np.maximum(context.suv_views[view, row, column], 1e-3)
    seen = np.minimum(context.suv[tuple(voxels.T)][None] / ray, 1)
    weight = seen**2 + UNSEEN_WEIGHT
    peaks = marked.max(1)
    looking = seen.max(1) > SEEN
    return {
        "probability_peak": float(peaks.mean()),
        "probability_weighted": float((marked * weight).sum() / weight.sum()),
        "probability_least_view": float(peaks[looking].min() if looking.any() else peaks.min()),
        "probability_spread": float(((marked * weight).sum(1) / weight.sum(1)).std()),
        "visibility": float(seen.max(1).mean()),
        "probability_mean": float(marked.mean()),
    }
