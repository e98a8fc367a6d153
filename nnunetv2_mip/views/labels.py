"""Label views of a study, with occlusion: projected, visible and ignore.

A lesion behind something hotter leaves no trace in a MIP. A network cannot learn to find it there.
There are three kinds of label:

- `projected`: every pixel whose ray passes through a lesion (any hit).
- `visible`: the occlusion correction of "MIP-Based Tumor Segmentation" (arXiv 2510.09326). A
  lesion that is visible in at least 75 % of its pixels keeps its whole projection. Of any other
  lesion only those visible fragments stay that are at least 25 mm large and have a mean gradient
  above 0.15. The paper states these numbers without units; the units here are those of
  `settings.OcclusionSettings`.
- `ignore`: as `visible`, but the other pixels of the projection get nnU-Net's ignore label (2)
  instead of background.

A pixel of a lesion is visible when the ray's maximum lies within the lesion's depth range along
this ray (the centres of its voxels, and half a voxel diagonal before and behind). Only the samples
of the ray in this range are needed, so the time grows with the lesions, not with the volume.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnunetv2_mip.lesions.components import lesion_centres_mm, lesion_voxels
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.label_kernels import VISIBLE, label_lesions
from nnunetv2_mip.views.settings import LABEL_MODES, OcclusionSettings


@dataclass(frozen=True)
class Lesion:
    """Measurements of one connected lesion, and its visibility in the views.

    Attributes:
        volume_ml, suv_max: of its voxels.
        centre_mm: mean position (x, y, z), physical LPS mm.
        visible_share: for every view the visible share of its pixels, 0 to 1.
        labelled: for every view whether it has any pixel of the label `visible`.
    """

    volume_ml: float
    suv_max: float
    centre_mm: tuple[float, float, float]
    visible_share: tuple[float, ...]
    labelled: tuple[bool, ...]


@dataclass(frozen=True)
class LabelViews:
    """Label views of a study, and its lesions.

    Attributes:
        stack: (V, H, W) uint8: 0 no lesion, 1 visible lesion, 2 occluded lesion.
        lesions: in the order of their first voxel (from the feet, front and right).
    """

    stack: np.ndarray
    lesions: tuple[Lesion, ...]

    def label(self, mode: str) -> np.ndarray:
        """Label views (V, H, W) uint8 of one of `LABEL_MODES`."""
        if mode == "projected":
            return (self.stack != 0).astype(np.uint8)
        if mode == "visible":
            return (self.stack == VISIBLE).astype(np.uint8)
        if mode == "ignore":
            return self.stack
        raise ValueError(f"unknown label mode {mode!r}; choose from {', '.join(LABEL_MODES)}")

    @property
    def in_no_view(self) -> list[int]:
        """Numbers (from 1) of the lesions without any pixel of the label `visible`."""
        return [n for n, lesion in enumerate(self.lesions, start=1) if not any(lesion.labelled)]

    def table(self, geometry: ViewGeometry) -> dict:
        """Content of the lesion file of a case (JSON); views are numbered from 0."""
        return {
            "format_version": 1,
            "angles_deg": list(geometry.angles_deg),
            "lesions": [
                {
                    "lesion": number,
                    "volume_ml": round(lesion.volume_ml, 4),
                    "suv_max": round(lesion.suv_max, 3),
                    "centre_mm": [round(value, 2) for value in lesion.centre_mm],
                    "seen_in": [
                        view for view, any_pixel in enumerate(lesion.labelled) if any_pixel
                    ],
                    "visible_share": [round(share, 4) for share in lesion.visible_share],
                }
                for number, lesion in enumerate(self.lesions, start=1)
            ],
            "seen_in_no_view": self.in_no_view,
        }


def label_views(
    seg: np.ndarray,
    suv: np.ndarray,
    suv_views: np.ndarray,
    geometry: ViewGeometry,
    window_suv: float,
    settings: OcclusionSettings | None = None,
) -> LabelViews:
    """Label views of a lesion mask.

    Args:
        seg: (z, y, x), non-zero is lesion.
        suv: (z, y, x) SUV on the same grid.
        suv_views: (V, H, W) SUV of its views, from `projection.project`.
        geometry: of these views.
        window_suv: SUV of the full intensity scale, for the gradient.
        settings: criteria of visibility; None takes the defaults.

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
    # A sample may lie a voxel diagonal beside the lesion's box, and needs its neighbours there.
    reach = 1.5 * math.hypot(sy, sx) + geometry.bin_mm
    margin = (math.ceil(reach / sy) + 2, math.ceil(reach / sx) + 2)
    crops, boxes = _crops(np.asarray(suv), zyx, starts, margin)
    shape = (geometry.views, len(starts) - 1)
    shares, labelled = np.zeros(shape, np.float64), np.zeros(shape, np.bool_)
    label_lesions(
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
        labelled,
        stack,
    )
    centres = lesion_centres_mm(zyx, starts, geometry.grid)
    x_mm, y_mm, z_mm = centres.T.tolist()
    lesions = [
        Lesion(
            volume_ml=float(last - first) * geometry.grid.voxel_ml,
            suv_max=float(suv[tuple(zyx[first:last].T)].max()),
            centre_mm=(x_mm[index], y_mm[index], z_mm[index]),
            visible_share=tuple(shares[:, index].tolist()),
            labelled=tuple(labelled[:, index].tolist()),
        )
        for index, (first, last) in enumerate(pairwise(starts))
    ]
    return LabelViews(stack, tuple(lesions))


def _crops(
    suv: np.ndarray, zyx: np.ndarray, starts: np.ndarray, margin: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """SUV in a box around every lesion, in the order (y, x, z), one after the other.

    Args:
        suv: (z, y, x).
        zyx, starts: voxels of the lesions, see `lesion_voxels`.
        margin: voxels along y and x that a box has beside its lesion; 0 beyond the volume.

    Returns:
        crops: all values of all boxes, float32.
        boxes: (L, 7) int64: index of the first value in `crops`, corner y, x, z, size y, x, z.
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
