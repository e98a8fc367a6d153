"""Maximum intensity projection along rays at any angle, and its counterpart for masks.

`project` is the only projector of the package. It walks every ray once and takes the maximum of
bilinear samples for all heights z at the same time: the volume is stored with z contiguous, so
the four interpolation weights of a sample are shared by a whole column of voxels. Nothing is
rotated or resampled as a volume. Blocks of a column that cannot exceed what the ray already has
are skipped, which changes no value.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from nnunetv2_mip.footprint import column_range
from nnunetv2_mip.geometry import ViewGeometry

# Voxels of a column that are bounded, and skipped, together.
BLOCK = 16
# After so many samples of a block its bound is brought up to date: finding the lowest of its voxels
# costs as much as a sample.
LOOK_UP_EVERY = 8
NO_WINNER = -1


@dataclass(frozen=True)
class Projection:
    """The views of one volume.

    Attributes:
        suv: (V, H, W) float32, the maximum along each ray.
        depth_mm: (V, H, W) float32, position of the winning sample along the ray direction d in
            mm from the rotation centre (NaN where the ray meets nothing above 0), or None.
    """

    suv: np.ndarray
    depth_mm: np.ndarray | None


def project(suv: np.ndarray, geometry: ViewGeometry, depth: bool = False) -> Projection:
    """Project a volume on all angles of `geometry`.

    Args:
        suv: (z, y, x) float32 ≥ 0, canonical axes, on the grid of `geometry`.
        geometry: angles, bins and grid.
        depth: also return the depth of the winner. Of equal samples the one nearest to the
            rotation centre wins.

    Samples lie at every `bin_mm` along the ray, interpolated bilinearly in the plane; outside the
    volume is 0.
    """
    _require_shape(suv, geometry)
    columns, bounds = _columns_with_bounds(np.asarray(suv, np.float32))
    views = np.empty((geometry.views, geometry.columns, columns.shape[2]), np.float32)
    winners = np.empty(views.shape if depth else (1, 1, 1), np.int16)
    _project_kernel(columns, bounds, *_ray_frame(geometry), geometry.steps, views, winners, depth)
    rows = geometry.rows
    depth_mm = None
    if depth:
        index = _to_rows(winners, rows)
        depth_mm = (index - np.float32((geometry.steps - 1) / 2)) * np.float32(geometry.bin_mm)
        depth_mm[index == NO_WINNER] = np.nan
    return Projection(_to_rows(views, rows), depth_mm)


def project_mask(mask: np.ndarray, geometry: ViewGeometry) -> np.ndarray:
    """Any-hit projection of a mask: a pixel is 1 when its ray passes through a mask voxel.

    Exact, from the footprint of each voxel (its square shadow on the detector) instead of samples
    along the ray, so that no voxel of a lesion is ever missed; the cost grows with the mask only.

    Args:
        mask: (z, y, x), non-zero is mask.

    Returns:
        (V, H, W) uint8 of 0 and 1.
    """
    _require_shape(mask, geometry)
    stack = np.zeros((geometry.views, geometry.columns, geometry.rows), np.uint8)
    zs, ys, xs = np.nonzero(mask)
    if len(zs):
        _, sy, sx = geometry.grid.spacing_zyx
        _, ny, nx = geometry.grid.shape_zyx
        _footprint_kernel(
            zs,
            (ys - (ny - 1) / 2) * sy,
            (xs - (nx - 1) / 2) * sx,
            np.deg2rad(geometry.angles_deg),
            sy,
            sx,
            geometry.bin_mm,
            stack,
        )
    return _to_rows(stack, geometry.rows)


def detector_layout(views: np.ndarray) -> np.ndarray:
    """(V, H, W) views, head first, to the kernels' (V, W, z) with z contiguous and upwards."""
    return np.ascontiguousarray(views[:, ::-1].transpose(0, 2, 1))


def _to_rows(stack: np.ndarray, rows: int) -> np.ndarray:
    """(V, W, z ≥ rows) to contiguous (V, H, W) with row 0 at the head."""
    return np.ascontiguousarray(stack[:, :, :rows].transpose(0, 2, 1)[:, ::-1])


def _require_shape(array: np.ndarray, geometry: ViewGeometry) -> None:
    if array.shape != geometry.grid.shape_zyx:
        raise ValueError(f"volume {array.shape} is not on the grid {geometry.grid.shape_zyx}")


def _ray_frame(geometry: ViewGeometry) -> tuple:
    """cos θ, sin θ, bin in voxels (x, y), and the centre in the padded column array (x, y)."""
    angles = np.deg2rad(geometry.angles_deg)
    _, sy, sx = geometry.grid.spacing_zyx
    _, ny, nx = geometry.grid.shape_zyx
    # One zero column of padding on every side of the plane stands for "outside is 0".
    return (
        np.cos(angles),
        np.sin(angles),
        geometry.bin_mm / sx,
        geometry.bin_mm / sy,
        (nx - 1) / 2 + 1,
        (ny - 1) / 2 + 1,
    )


@njit(parallel=True, cache=True)
def _columns_with_bounds(volume):
    """(z, y, x) to zero-padded columns (y + 2, x + 2, z) and the maximum of each block of z."""
    nz, ny, nx = volume.shape
    blocks = (nz + BLOCK - 1) // BLOCK
    columns = np.zeros((ny + 2, nx + 2, blocks * BLOCK), np.float32)
    bounds = np.zeros((ny + 2, nx + 2, blocks), np.float32)
    for y in prange(ny):
        for z in range(nz):
            for x in range(nx):
                columns[y + 1, x + 1, z] = volume[z, y, x]
        for x in range(nx):
            for block in range(blocks):
                highest = np.float32(0)
                for z in range(block * BLOCK, (block + 1) * BLOCK):
                    highest = max(highest, columns[y + 1, x + 1, z])
                bounds[y + 1, x + 1, block] = highest
    return columns, bounds


# No NaN and no infinity comes in, and the sign of zero does not matter: the compiler may then take
# maxima of many voxels at once. Sums are not reordered.
_FINITE = {"nnan", "ninf", "nsz"}


@njit(parallel=True, cache=True, error_model="numpy", fastmath=_FINITE)
def _project_kernel(
    columns, bounds, cos, sin, bin_x, bin_y, centre_x, centre_y, steps, views, winners, depth
):
    """Fill views (V, W, z) with ray maxima and, if asked, winners with the winning step.

    Steps run outwards from the centre of rotation: the body comes first, so most later blocks are
    bounded by what the ray has already met. Indices of inner loops are unsigned, which spares the
    test for negative indices that would keep the loops from being vectorised.
    """
    n_views, width, _ = views.shape
    ny, nx, blocks = bounds.shape
    for ray in prange(n_views * width):
        view = ray // width
        best = views[view, ray % width]
        best[:] = np.float32(0)
        index = winners[view if depth else 0, ray % width if depth else 0]
        if depth:
            index[:] = NO_WINNER
        # What every voxel of a block has reached, a little behind the truth, and the number of
        # samples since it was looked up.
        reached = np.zeros(blocks, np.float32)
        since = np.zeros(blocks, np.uint8)
        may_win = np.zeros(blocks, np.uint8)
        u = ray % width - (width - 1) * 0.5
        for count in range(steps):
            if count % 2 == 0:
                step = steps // 2 + count // 2
            else:
                step = steps // 2 - 1 - count // 2
            t = step - (steps - 1) * 0.5
            x = (u * cos[view] - t * sin[view]) * bin_x + centre_x
            y = (u * sin[view] + t * cos[view]) * bin_y + centre_y
            # Positions a rounding error beside a voxel are on it: 0° and 90° are then exact.
            if abs(x - round(x)) < 1e-9:
                x = float(round(x))
            if abs(y - round(y)) < 1e-9:
                y = float(round(y))
            x0 = math.floor(x)
            y0 = math.floor(y)
            if x0 < 0 or y0 < 0 or x0 >= nx - 1 or y0 >= ny - 1:
                continue
            fx = np.float32(x - x0)
            fy = np.float32(y - y0)
            w00 = (1 - fx) * (1 - fy)
            w01 = fx * (1 - fy)
            w10 = (1 - fx) * fy
            w11 = fx * fy
            b00 = bounds[y0, x0]
            b01 = bounds[y0, x0 + 1]
            b10 = bounds[y0 + 1, x0]
            b11 = bounds[y0 + 1, x0 + 1]
            for number in range(blocks):
                block = np.uint64(number)
                bound = w00 * b00[block] + w01 * b01[block] + w10 * b10[block] + w11 * b11[block]
                # The bound is rounded too: leave it a little room above.
                may_win[block] = bound * np.float32(1.000001) > reached[block]
            c00 = columns[y0, x0]
            c01 = columns[y0, x0 + 1]
            c10 = columns[y0 + 1, x0]
            c11 = columns[y0 + 1, x0 + 1]
            for number in range(blocks):
                block = np.uint64(number)
                if not may_win[block]:
                    continue
                start = np.uint64(number * BLOCK)
                if depth:
                    for offset in range(BLOCK):
                        z = start + np.uint64(offset)
                        value = w00 * c00[z] + w01 * c01[z] + w10 * c10[z] + w11 * c11[z]
                        wins = value > best[z]
                        index[z] = np.int16(step) if wins else index[z]
                        best[z] = value if wins else best[z]
                else:
                    for offset in range(BLOCK):
                        z = start + np.uint64(offset)
                        value = w00 * c00[z] + w01 * c01[z] + w10 * c10[z] + w11 * c11[z]
                        best[z] = value if value > best[z] else best[z]
                since[block] += np.uint8(1)
                if since[block] >= LOOK_UP_EVERY:
                    since[block] = np.uint8(0)
                    lowest = np.float32(3.4e38)
                    for offset in range(BLOCK):
                        lowest = min(lowest, best[start + np.uint64(offset)])
                    reached[block] = lowest


@njit(parallel=True, cache=True)
def _footprint_kernel(zs, y_mm, x_mm, angles, sy, sx, bin_mm, stack):
    """Mark, in every view, the detector columns whose ray crosses a voxel's square."""
    n_views, width, _ = stack.shape
    middle = (width - 1) * 0.5
    for view in prange(n_views):
        cos = math.cos(angles[view])
        sin = math.sin(angles[view])
        half = (sx * abs(cos) + sy * abs(sin)) / 2 / bin_mm
        for voxel in range(len(zs)):
            u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
            first, last = column_range(u, half)
            for column in range(max(0, first), min(width - 1, last) + 1):
                stack[view, column, zs[voxel]] = 1
