"""Kernels of the projector: slabs of slices, ray maxima, footprints of mask voxels."""

import math

import numpy as np
from numba import njit, prange

from nnunetv2_mip.views import simd, simd_plain
from nnunetv2_mip.views.footprint import footprint_columns
from nnunetv2_mip.views.simd import LANES, SAMPLES

# Edge of the square tiles of the plane, in voxels. A tile is projected on all views before the
# next one.
TILE = 32


@njit(parallel=True, cache=True)
def fill_slab(slices, voxels, own):
    """Fill voxels (y + 2, x + 2, LANES) from slices (z, y, x), and own with the column maxima."""
    nz, ny, nx = slices.shape
    for y in prange(ny):
        for x in range(nx):
            highest = np.float32(0)
            for number in range(LANES):
                # The last slice is repeated: with zeros the lowest maximum of a ray would stay 0.
                value = slices[min(number, nz - 1), y, x]
                voxels[y + 1, x + 1, number] = value
                highest = max(highest, value)
            own[y + 1, x + 1] = highest


@njit(cache=True)
def bound_slab(own, bounds, tiles):
    """Fill bounds (y + 2, x + 2) and tiles with upper bounds of the samples there.

    See `projection._Slab`; own: (y + 2, x + 2) maximum of every column of voxels.
    """
    ny, nx = own.shape
    for y in range(ny - 1):
        for x in range(nx - 1):
            bound = max(max(own[y, x], own[y, x + 1]), max(own[y + 1, x], own[y + 1, x + 1]))
            bounds[y, x] = bound
            tiles[y // TILE, x // TILE] = max(tiles[y // TILE, x // TILE], bound)


@njit(parallel=True, cache=True, error_model="numpy")
def project_slab(
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
    """Fill the rows of a slab in the views, and in their depth where it is asked for.

    Args:
        voxels, bounds: of the slab, see `projection._Slab`; `voxels` flat.
        tiles: (rows, columns) upper bound of the samples in every tile.
        order: tiles from the hottest to the coldest.
        cos, sin: (V,) of the angles.
        bin_x, bin_y: bin in voxels.
        centre_x, centre_y: rotation centre in the slab, in voxels.
        steps, bin_mm: samples along a ray, and their distance.
        threads, stripes: number of threads, and of stripes of columns that a view is cut into.
        first_z: slice of the volume that is the first of the slab.
        rays: (1 or 2, V, W, LANES) memory for the maxima, and for the positions of the maxima.
        views: (V, H, W) filled with the ray maxima.
        depth_mm: (V, H, W) filled with the depth of the maxima, or None.
        llvm, plain: one is True and one is None, for the form of the inner loop (`views.simd`).

    numba compiles one kernel for each combination of None and not None, and leaves out the code
    that needs what is None. Both forms have cache entries of their own for the same reason.
    """
    n_views, rows, width = views.shape
    ny, nx = bounds.shape
    bound_at = bounds.reshape(-1)
    line = np.uint64(nx * LANES)
    middle = (steps - 1) * 0.5
    centre = (width - 1) * 0.5
    for thread in prange(threads):
        # Lowest maximum of every ray in the slab: samples below it change nothing.
        reached = np.zeros((n_views, width), np.float32)
        # Samples of a ray in a tile: column of voxels, and position between it and its neighbours.
        place = np.empty(steps, np.uint32)
        fxs = np.empty(steps, np.float32)
        fys = np.empty(steps, np.float32)
        # Samples that wait to be taken together.
        places = np.zeros(SAMPLES, np.uint64)
        near_xs = np.zeros(SAMPLES, np.float32)
        near_ys = np.zeros(SAMPLES, np.float32)
        ts = np.zeros(SAMPLES, np.float32)
        for unit in range(thread, n_views * stripes, threads):
            view, stripe = unit // stripes, unit % stripes
            rays[:, view, stripe * width // stripes : (stripe + 1) * width // stripes] = 0
        for tile in order:
            tile_y, tile_x = tile // tiles.shape[1], tile % tiles.shape[1]
            # A little above the bound, since samples are rounded.
            highest = tiles[tile_y, tile_x] * np.float32(1.000001)
            if highest == 0:
                break
            low_x, low_y = tile_x * TILE, tile_y * TILE
            high_x, high_y = min(low_x + TILE, nx - 1), min(low_y + TILE, ny - 1)
            # Middle and half size of the tile in mm / bin_mm.
            mid_x = ((low_x + high_x) * 0.5 - centre_x) / bin_x
            mid_y = ((low_y + high_y) * 0.5 - centre_y) / bin_y
            half_x, half_y = (high_x - low_x) * 0.5 / bin_x, (high_y - low_y) * 0.5 / bin_y
            for unit in range(thread, n_views * stripes, threads):
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
                    enter, leave = _clip(at_x, along_x, low_x, high_x, -middle, middle)
                    enter, leave = _clip(at_y, along_y, low_y, high_y, enter, leave)
                    first = max(0, math.ceil(enter + middle))
                    last = min(steps - 1, math.floor(leave + middle))
                    # Counted from 0, so that LLVM knows that no index is negative.
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
                            # numba's hints count the typing context as an argument.
                            if depth_mm is None:
                                if llvm is not None:
                                    lowest = simd.update_maximum(  # type: ignore[call-arg]
                                        voxels, line, places, near_xs, near_ys, best
                                    )
                                if plain is not None:
                                    lowest = simd_plain.update_maximum(
                                        voxels, line, places, near_xs, near_ys, best
                                    )
                            else:
                                winner = rays[1, view, column]
                                if llvm is not None:
                                    lowest = simd.update_maximum_and_winner(  # type: ignore[call-arg]
                                        voxels, line, places, near_xs, near_ys, best, ts, winner
                                    )
                                if plain is not None:
                                    lowest = simd_plain.update_maximum_and_winner(
                                        voxels, line, places, near_xs, near_ys, best, ts, winner
                                    )
                    reached[view, column] = lowest
        for unit in range(thread, n_views * stripes, threads):
            view, stripe = unit // stripes, unit % stripes
            for number in range(min(LANES, rows - first_z)):
                row = rows - 1 - first_z - number
                for column in range(stripe * width // stripes, (stripe + 1) * width // stripes):
                    views[view, row, column] = rays[0, view, column, number]
                    if depth_mm is not None and rays[0, view, column, number] > 0:
                        depth_mm[view, row, column] = rays[1, view, column, number] * bin_mm


@njit(cache=True)
def _clip(at, along, low, high, enter, leave):
    """Part of [enter, leave] with low ≤ at + along · t ≤ high (empty: enter > leave)."""
    if abs(along) < 1e-12:
        return (enter, leave) if low <= at <= high else (1.0, 0.0)
    a, b = (low - at) / along, (high - at) / along
    # Wider by a rounding error; a sample there has no weight beyond the border.
    return max(enter, min(a, b) - 1e-9), min(leave, max(a, b) + 1e-9)


@njit(parallel=True, cache=True)
def mark_footprints(zs, y_mm, x_mm, angles, sy, sx, bin_mm, stack):
    """Mark the detector columns whose ray crosses a voxel, in every view.

    Args:
        zs, y_mm, x_mm: (N,) voxels: slice, and position from the rotation centre in mm.
        angles: (V,) in radians.
        sy, sx, bin_mm: voxel size and width of a detector column, mm.
        stack: (V, W, z) uint8, set to 1 where a ray crosses a voxel.
    """
    n_views, width, _ = stack.shape
    middle = (width - 1) * 0.5
    for view in prange(n_views):
        cos = math.cos(angles[view])
        sin = math.sin(angles[view])
        half = (sx * abs(cos) + sy * abs(sin)) / 2 / bin_mm
        for voxel in range(len(zs)):
            u = (x_mm[voxel] * cos + y_mm[voxel] * sin) / bin_mm + middle
            first, last = footprint_columns(u, half)
            for column in range(max(0, first), min(width - 1, last) + 1):
                stack[view, column, zs[voxel]] = 1
