"""Maximum intensity projection along rays at any angle, and its counterpart for masks.

`project` is the only projector of the package. Nothing is rotated or resampled as a volume: a ray
takes the maximum of bilinear samples for `LANES` slices z at the same time. A slab of so many
slices is stored with z contiguous, so that the four weights of a sample are shared by a whole
column. It is walked tile by tile, each on all views before the next, so that its voxels stay in
the processor's fastest memory; the hottest tiles come first, and what cannot exceed what a ray
already has is skipped, tile by tile and column by column, which changes no value.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from numba import njit, prange

from nnunetv2_mip.views import simd, simd_plain
from nnunetv2_mip.views.footprint import column_range
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.simd import LANES, SAMPLES

_CACHE_LINE = 64
# Edge of the squares of columns that are projected on all views before the next, in voxels.
TILE = 32


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
            rotation centre wins, of two such the one before it.

    Samples lie at every `bin_mm` along the ray, interpolated bilinearly in the plane; outside the
    volume is 0.
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
        _project_kernel(
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


def _ray_frame(geometry: ViewGeometry) -> tuple:
    """cos θ, sin θ, bin in voxels (x, y), and the centre in a slab (x, y)."""
    angles = np.deg2rad(geometry.angles_deg)
    # Along the axes without rounding errors: 0° and 90° are then exact.
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
    """`LANES` slices with z contiguous, and what no sample in them can exceed.

    Attributes:
        voxels: (y + 2, x + 2, LANES); a border of zeros stands for "outside is 0".
        own: (y + 2, x + 2), the maximum of every column.
        bounds: (y + 2, x + 2), the maximum of a column and its neighbours at y + 1, x + 1 and both.
    """

    voxels: np.ndarray
    own: np.ndarray
    bounds: np.ndarray

    @classmethod
    def for_plane(cls, plane: tuple[int, int]) -> "_Slab":
        shape = (plane[0] + 2, plane[1] + 2)
        size = math.prod(shape) * LANES
        # Columns that lie across cache lines cost twice.
        raw = np.zeros(size + _CACHE_LINE // 4, np.float32)
        first = -(raw.ctypes.data // 4) % (_CACHE_LINE // 4)
        return cls(
            raw[first : first + size].reshape(*shape, LANES),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )

    def fill(self, slices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take up to `LANES` slices (z, y, x).

        Returns:
            The maximum of the bounds of every tile (rows, columns), and the tiles from the hottest
            to the coldest.
        """
        tiles = np.zeros([math.ceil(n / TILE) for n in self.bounds.shape], np.float32)
        _fill_slab(slices, self.voxels, self.own)
        _bound_slab(self.own, self.bounds, tiles)
        return tiles, np.argsort(-tiles.reshape(-1))


@njit(parallel=True, cache=True)
def _fill_slab(slices, voxels, own):
    nz, ny, nx = slices.shape
    for y in prange(ny):
        for x in range(nx):
            highest = np.float32(0)
            for number in range(LANES):
                # The last slice stands in for those beyond it: zeros would hide what a ray has.
                value = slices[min(number, nz - 1), y, x]
                voxels[y + 1, x + 1, number] = value
                highest = max(highest, value)
            own[y + 1, x + 1] = highest


@njit(cache=True)
def _bound_slab(own, bounds, tiles):
    ny, nx = own.shape
    for y in range(ny - 1):
        for x in range(nx - 1):
            bound = max(max(own[y, x], own[y, x + 1]), max(own[y + 1, x], own[y + 1, x + 1]))
            bounds[y, x] = bound
            tiles[y // TILE, x // TILE] = max(tiles[y // TILE, x // TILE], bound)


@njit(parallel=True, cache=True, error_model="numpy")
def _project_kernel(
    voxels,
    bounds,
    tiles,
    order,
    cos,
    sin,
    bin_x,
    bin_y,
    centre_x,
    centre_y,
    steps,
    bin_mm,
    threads,
    stripes,
    first_z,
    rays,
    views,
    depth_mm,
    llvm,
    plain,
):
    """Fill the rows of a slab in views (V, H, W): ray maxima and, if it is not None, their depth.

    `rays` (1 or 2, V, W, LANES) is room for the maxima and the places of the winners. numba
    compiles one kernel for either.
    """
    n_views, rows, width = views.shape
    ny, nx = bounds.shape
    bound_at = bounds.reshape(-1)
    line = np.uint64(nx * LANES)
    middle = (steps - 1) * 0.5
    centre = (width - 1) * 0.5
    for hand in prange(threads):
        reached = np.zeros((n_views, width), np.float32)
        # A ray's samples in a tile: their columns, and where between four of them they lie.
        place = np.empty(steps, np.uint32)
        fxs = np.empty(steps, np.float32)
        fys = np.empty(steps, np.float32)
        # The samples to take next.
        places = np.zeros(SAMPLES, np.uint64)
        near_xs = np.zeros(SAMPLES, np.float32)
        near_ys = np.zeros(SAMPLES, np.float32)
        ts = np.zeros(SAMPLES, np.float32)
        for unit in range(hand, n_views * stripes, threads):
            view, stripe = unit // stripes, unit % stripes
            rays[:, view, stripe * width // stripes : (stripe + 1) * width // stripes] = 0
        for tile in order:
            tile_y, tile_x = tile // tiles.shape[1], tile % tiles.shape[1]
            # The samples are rounded: leave the bound a little room above.
            highest = tiles[tile_y, tile_x] * np.float32(1.000001)
            if highest == 0:
                break
            low_x, low_y = tile_x * TILE, tile_y * TILE
            high_x, high_y = min(low_x + TILE, nx - 1), min(low_y + TILE, ny - 1)
            # Middle and half size of the tile in mm / bin_mm.
            mid_x = ((low_x + high_x) * 0.5 - centre_x) / bin_x
            mid_y = ((low_y + high_y) * 0.5 - centre_y) / bin_y
            half_x, half_y = (high_x - low_x) * 0.5 / bin_x, (high_y - low_y) * 0.5 / bin_y
            for unit in range(hand, n_views * stripes, threads):
                view, stripe = unit // stripes, unit % stripes
                mid = mid_x * cos[view] + mid_y * sin[view] + centre
                half = half_x * abs(cos[view]) + half_y * abs(sin[view]) + 1e-6
                start = max(stripe * width // stripes, math.ceil(mid - half))
                stop = min((stripe + 1) * width // stripes, math.floor(mid + half) + 1)
                along_x, along_y = -sin[view] * bin_x, cos[view] * bin_y
                for column in range(start, stop):
                    if not highest > reached[view, column]:
                        continue
                    u = column - centre
                    at_x = u * cos[view] * bin_x + centre_x
                    at_y = u * sin[view] * bin_y + centre_y
                    enter, leave = _inside(at_x, along_x, low_x, high_x, -middle, middle)
                    enter, leave = _inside(at_y, along_y, low_y, high_y, enter, leave)
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
                    best = rays[0, view, column]
                    lowest = reached[view, column]
                    waiting = 0
                    for index in range(count):
                        if bound_at[place[index]] * np.float32(1.000001) > lowest:
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
                                if llvm is not None:
                                    lowest = simd.update_maximum(
                                        voxels, line, places, near_xs, near_ys, best
                                    )
                                if plain is not None:
                                    lowest = simd_plain.update_maximum(
                                        voxels, line, places, near_xs, near_ys, best
                                    )
                            else:
                                winner = rays[1, view, column]
                                if llvm is not None:
                                    lowest = simd.update_maximum_and_winner(
                                        voxels, line, places, near_xs, near_ys, best, ts, winner
                                    )
                                if plain is not None:
                                    lowest = simd_plain.update_maximum_and_winner(
                                        voxels, line, places, near_xs, near_ys, best, ts, winner
                                    )
                    reached[view, column] = lowest
        for unit in range(hand, n_views * stripes, threads):
            view, stripe = unit // stripes, unit % stripes
            for number in range(min(LANES, rows - first_z)):
                row = rows - 1 - first_z - number
                for column in range(stripe * width // stripes, (stripe + 1) * width // stripes):
                    views[view, row, column] = rays[0, view, column, number]
                    if depth_mm is not None and rays[0, view, column, number] > 0:
                        depth_mm[view, row, column] = rays[1, view, column, number] * bin_mm


@njit(cache=True)
def _inside(at, along, low, high, enter, leave):
    """Narrow [enter, leave] to those t with low ≤ at + along · t ≤ high (empty: enter > leave)."""
    if abs(along) < 1e-12:
        return (enter, leave) if low <= at <= high else (1.0, 0.0)
    a, b = (low - at) / along, (high - at) / along
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
