"""Maximum intensity projection along rays at any angle, and its counterpart for masks.

`project` is the only projector of the package. It does not rotate or resample the volume. A ray is
the maximum of bilinear samples, taken for a slab of `LANES` slices z at the same time. A slab is
stored with z contiguous, so that the four weights of a sample serve a whole column of voxels. It is
worked through tile by tile, each on all views before the next, so that its voxels stay in the
processor's fastest memory. The hottest tiles come first; tiles and columns that cannot exceed the
maximum of a ray so far are skipped, which changes no value.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np

from nnunetv2_mip.views import simd
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.projection_kernels import (
    TILE,
    bound_slab,
    fill_slab,
    mark_footprints,
    project_slab,
)
from nnunetv2_mip.views.simd import LANES

_CACHE_LINE_BYTES = 64


@dataclass(frozen=True)
class Projection:
    """SUV views of one volume.

    Attributes:
        suv: (V, H, W) float32, maximum along each ray.
        depth_mm: (V, H, W) float32, position of the maximum along the ray direction d in mm from
            the rotation centre (NaN where the ray meets nothing above 0), or None.
    """

    suv: np.ndarray
    depth_mm: np.ndarray | None


def project(suv: np.ndarray, geometry: ViewGeometry, depth: bool = False) -> Projection:
    """Maximum intensity projections of a volume at all angles of `geometry`.

    Samples lie at every `bin_mm` along the ray and are interpolated bilinearly in the plane.
    Outside the volume is 0.

    Args:
        suv: (z, y, x) float32 ≥ 0, canonical axes, on the grid of `geometry`.
        geometry: angles, bins and grid.
        depth: also return the depth of the maximum. Of equal samples the one nearest to the
            rotation centre counts, of two such the one before it.

    Raises:
        ValueError: `suv` is not on the grid.
    """
    _require_shape(suv, geometry)
    suv = np.ascontiguousarray(suv, np.float32)
    views = np.zeros(geometry.stack_shape, np.float32)
    depth_mm = np.full(geometry.stack_shape, np.nan, np.float32) if depth else None
    slab = _Slab.for_plane(suv.shape[1:])
    rays = np.empty((2 if depth else 1, geometry.views, geometry.columns, LANES), np.float32)
    frame = _ray_frame(geometry)
    threads = numba.get_num_threads()
    llvm, plain = (None, True) if simd.needs_plain_form() else (True, None)
    # With fewer views than threads a view is cut into stripes of columns.
    stripes = math.ceil(2 * threads / geometry.views)
    for first_z in range(0, len(suv), LANES):
        tiles, order = slab.fill(suv[first_z : first_z + LANES])
        project_slab(
            slab.voxels.reshape(-1),
            slab.bounds,
            tiles,
            order,
            *frame,
            geometry.steps,
            np.float32(geometry.bin_mm),
            threads,
            stripes,
            first_z,
            rays,
            views,
            depth_mm,
            llvm,
            plain,
        )
    return Projection(views, depth_mm)


def project_mask(mask: np.ndarray, geometry: ViewGeometry) -> np.ndarray:
    """Any-hit projection of a mask: a pixel is 1 when its ray passes through a mask voxel.

    It is exact: made from the footprint of each voxel on the detector, not from samples along the
    ray, so that no voxel is missed. The time grows with the mask only.

    Args:
        mask: (z, y, x), non-zero is mask, on the grid of `geometry`.
        geometry: angles, bins and grid.

    Returns:
        (V, H, W) uint8 of 0 and 1.

    Raises:
        ValueError: `mask` is not on the grid.
    """
    _require_shape(mask, geometry)
    stack = np.zeros((geometry.views, geometry.columns, geometry.rows), np.uint8)
    # flatnonzero is ten times as fast as nonzero of three axes.
    marked = np.flatnonzero(np.ascontiguousarray(mask) != 0)
    zs, ys, xs = np.unravel_index(marked, mask.shape)
    if len(zs):
        _, sy, sx = geometry.grid.spacing_zyx
        _, ny, nx = geometry.grid.shape_zyx
        mark_footprints(
            zs,
            (ys - (ny - 1) / 2) * sy,
            (xs - (nx - 1) / 2) * sx,
            np.deg2rad(geometry.angles_deg),
            sy,
            sx,
            geometry.bin_mm,
            stack,
        )
    return _to_rows(stack)


def detector_layout(views: np.ndarray) -> np.ndarray:
    """Views (V, H, W) in the kernels' order (V, W, z), contiguous (see `views.geometry`)."""
    return np.ascontiguousarray(views[:, ::-1].transpose(0, 2, 1))


def _to_rows(stack: np.ndarray) -> np.ndarray:
    """Stack (V, W, z) in the order (V, H, W), contiguous, row 0 at the head."""
    return np.ascontiguousarray(stack.transpose(0, 2, 1)[:, ::-1])


def _require_shape(array: np.ndarray, geometry: ViewGeometry) -> None:
    if array.shape != geometry.grid.shape_zyx:
        raise ValueError(f"volume {array.shape} is not on the grid {geometry.grid.shape_zyx}")


def _ray_frame(
    geometry: ViewGeometry,
) -> tuple[np.ndarray, np.ndarray, float, float, float, float]:
    """cos θ, sin θ, bin in voxels (x, y), and rotation centre in a slab (x, y)."""
    angles = np.deg2rad(geometry.angles_deg)
    # Without rounding errors along the axes: 0° and 90° are then exact.
    cos, sin = (np.where(abs(f) < 1e-12, 0.0, f) for f in (np.cos(angles), np.sin(angles)))
    _, sy, sx = geometry.grid.spacing_zyx
    _, ny, nx = geometry.grid.shape_zyx
    return (
        cos,
        sin,
        geometry.bin_mm / sx,
        geometry.bin_mm / sy,
        (nx - 1) / 2 + 1,
        (ny - 1) / 2 + 1,
    )


@dataclass(frozen=True)
class _Slab:
    """`LANES` slices in the order (y, x, z), and upper bounds of the samples in them.

    Attributes:
        voxels: (y + 2, x + 2, LANES) float32, with a border of zeros.
        own: (y + 2, x + 2), maximum of every column of voxels.
        bounds: (y + 2, x + 2), maximum of a column and its neighbours at y + 1, x + 1 and both.
    """

    voxels: np.ndarray
    own: np.ndarray
    bounds: np.ndarray

    @classmethod
    def for_plane(cls, plane: tuple[int, int]) -> "_Slab":
        shape = (plane[0] + 2, plane[1] + 2)
        size = math.prod(shape) * LANES
        # Columns of voxels start at a cache line; across two lines they would cost twice.
        raw = np.zeros(size + _CACHE_LINE_BYTES // 4, np.float32)
        first = -(raw.ctypes.data // 4) % (_CACHE_LINE_BYTES // 4)
        return cls(
            raw[first : first + size].reshape(*shape, LANES),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )

    def fill(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill the slab with up to `LANES` slices (z, y, x).

        Returns:
            tiles: (rows, columns) maximum of the bounds in every tile.
            order: indices of the tiles from the hottest to the coldest.
        """
        tiles = np.zeros([math.ceil(n / TILE) for n in self.bounds.shape], np.float32)
        fill_slab(slices, self.voxels, self.own)
        bound_slab(self.own, self.bounds, tiles)
        return tiles, np.argsort(-tiles.reshape(-1))
