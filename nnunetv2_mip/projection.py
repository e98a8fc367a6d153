"""Maximum intensity projection along rays at any angle, and its counterpart for masks.

`project` is the only projector of the package. It walks every ray once and takes the maximum of
bilinear samples for `LANES` slices z at the same time: the volume is stored with z contiguous, so
the four interpolation weights of a sample are shared by a whole piece of a column. Nothing is
rotated or resampled as a volume. Pieces of a column that cannot exceed what the ray already has
are skipped, which changes no value. One slab of `LANES` slices is projected on all views before
the next, so that it stays in the processor's cache.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from numba import njit, prange

from nnunetv2_mip.footprint import column_range
from nnunetv2_mip.geometry import ViewGeometry
from nnunetv2_mip.lanes import LANES, SAMPLES, raise_maximum, raise_maximum_and_winner
from nnunetv2_mip.surveys import survey_body

_CACHE_LINE = 64


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
    suv = np.ascontiguousarray(suv, np.float32)
    views = np.zeros(geometry.stack_shape, np.float32)
    depth_mm = np.full(geometry.stack_shape, np.nan, np.float32) if depth else None
    _, (_, (first_y, last_y), (first_x, last_x)) = survey_body(suv, np.float32(0))
    if last_y >= 0:
        # What is 0 wins nowhere: only the box around the rest is looked at.
        slabs, bounds = _slabs_with_bounds(suv[:, first_y : last_y + 1, first_x : last_x + 1])
        _project_kernel(
            slabs.reshape(len(slabs), -1),
            bounds,
            *_ray_frame(geometry, first_y, first_x),
            geometry.steps,
            np.float32(geometry.bin_mm),
            numba.get_num_threads(),
            views,
            depth_mm,
        )
    return Projection(views, depth_mm)


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
    # Ten times as fast as nonzero of three axes.
    marked = np.flatnonzero(np.ascontiguousarray(mask) != 0)
    zs, ys, xs = np.unravel_index(marked, mask.shape)
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
    return _to_rows(stack)


def detector_layout(views: np.ndarray) -> np.ndarray:
    """(V, H, W) views, head first, to the kernels' (V, W, z) with z contiguous and upwards."""
    return np.ascontiguousarray(views[:, ::-1].transpose(0, 2, 1))


def _to_rows(stack: np.ndarray) -> np.ndarray:
    """(V, W, z) to contiguous (V, H, W) with row 0 at the head."""
    return np.ascontiguousarray(stack.transpose(0, 2, 1)[:, ::-1])


def _require_shape(array: np.ndarray, geometry: ViewGeometry) -> None:
    if array.shape != geometry.grid.shape_zyx:
        raise ValueError(f"volume {array.shape} is not on the grid {geometry.grid.shape_zyx}")


def _ray_frame(geometry: ViewGeometry, first_y: int, first_x: int) -> tuple:
    """cos θ, sin θ, bin in voxels (x, y), and the centre in the slabs (x, y)."""
    angles = np.deg2rad(geometry.angles_deg)
    # Along the axes without rounding errors: 0° and 90° are then exact.
    cos, sin = (np.where(abs(f) < 1e-12, 0.0, f) for f in (np.cos(angles), np.sin(angles)))
    _, sy, sx = geometry.grid.spacing_zyx
    _, ny, nx = geometry.grid.shape_zyx
    # One zero column of padding on every side of the plane stands for "outside is 0".
    return (
        cos,
        sin,
        geometry.bin_mm / sx,
        geometry.bin_mm / sy,
        (nx - 1) / 2 - first_x + 1,
        (ny - 1) / 2 - first_y + 1,
    )


def _slabs_with_bounds(volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z, y, x) to slabs (S, y + 2, x + 2, LANES) with a border of zeros, z contiguous.

    Returns:
        The slabs, and for every slab and place the maximum of it and its neighbours at y + 1,
        x + 1 and both: what no sample between the four can exceed.
    """
    nz, ny, nx = volume.shape
    shape = (math.ceil(nz / LANES), ny + 2, nx + 2, LANES)
    # Columns that lie across cache lines cost twice.
    raw = np.zeros(math.prod(shape) + _CACHE_LINE // 4, np.float32)
    first = -(raw.ctypes.data // 4) % (_CACHE_LINE // 4)
    slabs = raw[first : first + math.prod(shape)].reshape(shape)
    own = np.zeros(shape[:3], np.float32)
    bounds = np.zeros(shape[:3], np.float32)
    _fill_slabs(volume, slabs, own)
    _bound_slabs(own, bounds)
    return slabs, bounds


@njit(parallel=True, cache=True)
def _fill_slabs(volume, slabs, own):
    nz, ny, nx = volume.shape
    for job in prange(len(slabs) * ny):
        slab, y = job // ny, job % ny
        low, high = slab * LANES, min(nz, (slab + 1) * LANES)
        for x in range(nx):
            highest = np.float32(0)
            for number in range(high - low):
                value = volume[low + number, y, x]
                slabs[slab, y + 1, x + 1, number] = value
                highest = max(highest, value)
            own[slab, y + 1, x + 1] = highest


@njit(parallel=True, cache=True)
def _bound_slabs(own, bounds):
    n_slabs, ny, nx = own.shape
    for job in prange(n_slabs * (ny - 1)):
        slab, y = job // (ny - 1), job % (ny - 1)
        for x in range(nx - 1):
            here = max(own[slab, y, x], own[slab, y, x + 1])
            bounds[slab, y, x] = max(here, own[slab, y + 1, x], own[slab, y + 1, x + 1])


@njit(parallel=True, cache=True, error_model="numpy")
def _project_kernel(
    slabs,
    bounds,
    cos,
    sin,
    bin_x,
    bin_y,
    centre_x,
    centre_y,
    steps,
    bin_mm,
    threads,
    views,
    depth_mm,
):
    """Fill views (V, H, W) with ray maxima and, if it is not None, depth_mm with their places.

    numba compiles one kernel for either.
    """
    n_views, rows, width = views.shape
    n_slabs, ny, nx = bounds.shape
    middle = (steps - 1) * 0.5
    line = np.uint64(nx * LANES)
    for hand in prange(threads):
        best = np.empty(LANES, np.float32)
        winner = np.empty(LANES, np.float32)
        place = np.empty(steps, np.uint32)
        fxs = np.empty(steps, np.float32)
        fys = np.empty(steps, np.float32)
        bound = np.empty(steps, np.float32)
        # The samples to take next.
        places = np.zeros(SAMPLES, np.uint64)
        near_xs = np.zeros(SAMPLES, np.float32)
        near_ys = np.zeros(SAMPLES, np.float32)
        ts = np.zeros(SAMPLES, np.float32)
        # All threads work on views of the same slab, which the cache they share can hold.
        for job in range(hand, n_slabs * n_views, threads):
            slab, view = job // n_views, job % n_views
            voxels, bound_at = slabs[slab], bounds[slab].reshape(-1)
            slices = min(LANES, rows - slab * LANES)
            for column in range(width):
                u = column - (width - 1) * 0.5
                at_x, along_x = u * cos[view] * bin_x + centre_x, -sin[view] * bin_x
                at_y, along_y = u * sin[view] * bin_y + centre_y, cos[view] * bin_y
                enter, leave = _inside(at_x, along_x, nx - 1, -middle, middle)
                enter, leave = _inside(at_y, along_y, ny - 1, enter, leave)
                first = max(0, math.ceil(enter + middle))
                last = min(steps - 1, math.floor(leave + middle))
                # Counted from 0: of such loops it is known that no index is negative.
                count = max(0, last - first + 1)
                for index in range(count):
                    t = first + index - middle
                    x = at_x + t * along_x
                    y = at_y + t * along_y
                    x0 = min(max(np.floor(x), 0.0), nx - 2.0)
                    y0 = min(max(np.floor(y), 0.0), ny - 2.0)
                    fxs[index] = np.float32(x - x0)
                    fys[index] = np.float32(y - y0)
                    place[index] = np.uint32(y0 * nx + x0)
                for index in range(count):
                    bound[index] = bound_at[place[index]]
                best[:] = np.float32(0)
                winner[:] = np.float32(0)
                reached = np.float32(0)
                waiting = 0
                # From end to end: neighbouring steps share voxels, and memory is read ahead.
                for index in range(count):
                    # The samples are rounded: leave the bound a little room above.
                    if bound[index] * np.float32(1.000001) > reached:
                        places[waiting] = np.uint64(place[index]) * np.uint64(LANES)
                        near_xs[waiting], near_ys[waiting] = fxs[index], fys[index]
                        ts[waiting] = np.float32(first + index - middle)
                        waiting += 1
                    if waiting == SAMPLES or (waiting and index == count - 1):
                        for free in range(waiting, SAMPLES):
                            places[free] = places[0]
                            near_xs[free], near_ys[free] = near_xs[0], near_ys[0]
                            ts[free] = ts[0]
                        waiting = 0
                        if depth_mm is None:
                            reached = raise_maximum(voxels, line, places, near_xs, near_ys, best)
                        else:
                            reached = raise_maximum_and_winner(
                                voxels, line, places, near_xs, near_ys, best, ts, winner
                            )
                head = rows - 1 - slab * LANES
                for z in range(slices):
                    views[view, head - z, column] = best[z]
                if depth_mm is not None:
                    for z in range(slices):
                        if best[z] > 0:
                            depth_mm[view, head - z, column] = winner[z] * bin_mm


@njit(cache=True)
def _inside(at, along, size, enter, leave):
    """Narrow [enter, leave] to those t with 0 ≤ at + along · t ≤ size (empty: enter > leave)."""
    if abs(along) < 1e-12:
        return (enter, leave) if 0 <= at <= size else (1.0, 0.0)
    a, b = -at / along, (size - at) / along
    # A rounding error outside is inside; the sample there has no weight beyond the border.
    return max(enter, min(a, b) - 1e-9), min(leave, max(a, b) + 1e-9)


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
