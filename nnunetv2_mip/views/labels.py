"""Labels that know what a view can see: projected, visible and ignore.

A lesion that lies behind something hotter has no trace in a MIP; calling its projection "lesion"
asks a network for what is not in the image. Three answers:

- `projected`: every pixel whose ray passes through a lesion (any hit).
- `visible`: the occlusion correction of "MIP-Based Tumor Segmentation" (arXiv 2510.09326). A
  lesion that wins the ray in at least 75 % of its pixels keeps its whole projection. Of any other
  only those visible fragments stay that are at least 25 mm large and have a mean gradient above
  0.15. The paper states these numbers without units; ours are in `view_settings.OcclusionSettings`.
- `ignore`: as `visible`, but the other pixels of the projection get nnU-Net's ignore label (2)
  instead of being called background: they are neither.

A pixel of a lesion is visible when the ray's maximum lies within the lesion's depth range along
this ray (the centres of its voxels, and half a voxel diagonal before and behind). That needs the
ray's samples inside this range only, not the depth of the winner: the cost grows with the lesions.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnunetv2_mip.lesions.components import lesion_centres_mm, lesion_voxels
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.label_kernels import VISIBLE, see_lesions
from nnunetv2_mip.views.settings import LABEL_MODES, OcclusionSettings


@dataclass(frozen=True)
class Lesion:
    """One connected lesion and how the views see it.

    Attributes:
        volume_ml, suv_max: of its voxels.
        centre_mm: mean position (x, y, z), physical LPS mm.
        visible_share: for every view the visible share of its pixels, 0 to 1.
        seen: for every view whether any of its pixels is labelled in the mode `visible`.
    """

    volume_ml: float
    suv_max: float
    centre_mm: tuple[float, float, float]
    visible_share: tuple[float, ...]
    seen: tuple[bool, ...]


@dataclass(frozen=True)
class LabelViews:
    """The lesions of a study in its views.

    Attributes:
        stack: (V, H, W) uint8: 0 no lesion, 1 visible lesion, 2 occluded lesion.
        lesions: in the order of their first voxel (from the feet, front and right).
    """

    stack: np.ndarray
    lesions: tuple[Lesion, ...]

    def label(self, mode: str) -> np.ndarray:
        """(V, H, W) uint8: the label views of one of `LABEL_MODES`."""
        if mode == "projected":
            return (self.stack != 0).astype(np.uint8)
        if mode == "visible":
            return (self.stack == VISIBLE).astype(np.uint8)
        if mode == "ignore":
            return self.stack
        raise ValueError(f"unknown label mode {mode!r}; choose from {', '.join(LABEL_MODES)}")

    @property
    def unseen(self) -> list[int]:
        """Numbers (from 1) of the lesions that are seen in no view."""
        return [n for n, lesion in enumerate(self.lesions, start=1) if not any(lesion.seen)]

    def table(self, geometry: ViewGeometry) -> dict:
        """What the lesion file of a case holds (JSON); views are numbered from 0."""
        return {
            "format_version": 1,
            "angles_deg": list(geometry.angles_deg),
            "lesions": [
                {
                    "lesion": number,
                    "volume_ml": round(lesion.volume_ml, 4),
                    "suv_max": round(lesion.suv_max, 3),
                    "centre_mm": [round(value, 2) for value in lesion.centre_mm],
                    "seen_in": [view for view, seen in enumerate(lesion.seen) if seen],
                    "visible_share": [round(share, 4) for share in lesion.visible_share],
                }
                for number, lesion in enumerate(self.lesions, start=1)
            ],
            "seen_in_no_view": self.unseen,
        }


def label_views(
    seg: np.ndarray,
    suv: np.ndarray,
    suv_views: np.ndarray,
    geometry: ViewGeometry,
    window_suv: float,
    settings: OcclusionSettings | None = None,
) -> LabelViews:
    """Find the lesions of a mask in the views of its study.

    Args:
        seg: (z, y, x), non-zero is lesion.
        suv: (z, y, x) SUV on the same grid.
        suv_views: (V, H, W) its views (`projection.project`).
        geometry: of these views.
        window_suv: SUV at which a MIP is displayed brightest, for the gradient.
        settings: see `view_settings.OcclusionSettings`.

    Raises:
        ValueError: arrays that do not belong together.
    """
    settings = settings or OcclusionSettings()
    if not seg.shape == suv.shape == geometry.grid.shape_zyx:
        raise ValueError(f"mask {seg.shape} and SUV {suv.shape} are not on the geometry's grid")
    if suv_views.shape != geometry.stack_shape:
        raise ValueError(f"views {suv_views.shape} are not {geometry.stack_shape}")
    stack = np.zeros(geometry.stack_shape, np.uint8)
    zyx, starts = lesion_voxels(seg)
    if len(starts) == 1:
        return LabelViews(stack, ())
    _, sy, sx = geometry.grid.spacing_zyx
    _, ny, nx = geometry.grid.shape_zyx
    # A sample may lie a voxel diagonal beside the lesion's box, and is interpolated.
    reach = 1.5 * math.hypot(sy, sx) + geometry.bin_mm
    margin = (math.ceil(reach / sy) + 2, math.ceil(reach / sx) + 2)
    crops, boxes = _crops(np.asarray(suv), zyx, starts, margin)
    shape = (geometry.views, len(starts) - 1)
    shares, seen = np.zeros(shape, np.float64), np.zeros(shape, np.bool_)
    see_lesions(
        zyx[:, 0],
        (zyx[:, 1] - (ny - 1) / 2) * sy,
        (zyx[:, 2] - (nx - 1) / 2) * sx,
        starts,
        crops,
        boxes,
        np.deg2rad(geometry.angles_deg),
        (sy, sx, geometry.bin_mm, (ny - 1) / 2, (nx - 1) / 2),
        geometry.steps,
        np.asarray(suv_views, np.float32),
        np.float32(1 / window_suv),
        settings.visible_share,
        settings.fragment_mm / math.sqrt(geometry.pixel_mm[0] * geometry.pixel_mm[1]),
        settings.gradient,
        shares,
        seen,
        stack,
    )
    centres = lesion_centres_mm(zyx, starts, geometry.grid)
    lesions = []
    for index, (first, last) in enumerate(pairwise(starts)):
        lesions.append(
            Lesion(
                volume_ml=float(last - first) * geometry.grid.voxel_ml,
                suv_max=float(suv[tuple(zyx[first:last].T)].max()),
                centre_mm=tuple(float(value) for value in centres[index]),
                visible_share=tuple(shares[:, index].tolist()),
                seen=tuple(seen[:, index].tolist()),
            )
        )
    return LabelViews(stack, tuple(lesions))


def _crops(
    suv: np.ndarray, zyx: np.ndarray, starts: np.ndarray, margin: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """SUV around every lesion as (y, x, z) with z contiguous, one after the other.

    Returns:
        The values, and a row a lesion: place of its first value, y, x, z of its corner, and its
        size along y, x, z.
    """
    pieces, boxes, place = [], [], 0
    for first, last in pairwise(starts):
        low, high = zyx[first:last].min(0), zyx[first:last].max(0) + 1
        (y0, x0), (y1, x1) = low[1:] - margin, high[1:] + margin
        inside_y = slice(max(y0, 0), min(y1, suv.shape[1]))
        inside_x = slice(max(x0, 0), min(x1, suv.shape[2]))
        piece = np.zeros((y1 - y0, x1 - x0, high[0] - low[0]), np.float32)
        piece[
            inside_y.start - y0 : inside_y.stop - y0, inside_x.start - x0 : inside_x.stop - x0
        ] = suv[low[0] : high[0], inside_y, inside_x].transpose(1, 2, 0)
        pieces.append(piece.reshape(-1))
        boxes.append((place, y0, x0, low[0], *piece.shape))
        place += piece.size
    return np.concatenate(pieces), np.array(boxes, np.int64)
