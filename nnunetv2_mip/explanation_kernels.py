"""Inner loops of `explanation`: rays of candidate voxels, how views agree with a mask, its flips.

A ray is a pixel of a view; rays are kept slice by slice, (z, V, W), so that those of a voxel lie
close together in memory. A candidate is a voxel that may be
lesion; `state` (z, y, x) is 0 where there is none, 1 for a candidate outside the mask, 2 inside.
"""

import math

import numpy as np
from numba import njit, prange

from nnunetv2_mip.footprint import column_range

OUTSIDE, INSIDE = 1, 2
# Edge of the blocks of voxels that `often_marked` leaves out as a whole.
BLOCK = 8
# Kinds of rays: hit amid others, hit at the rim of what is hit, hit behind something hotter; missed
# beside what is hit, missed away from it.
INNER, EDGE, HIDDEN, NEAR, FAR = range(5)
KINDS = 5


@njit(parallel=True, cache=True)
def often_marked(marks, block_maxima, angles, step_y, step_x, least, out):
    """Set out (z, y, x) bool where the mean of the views' marks at a voxel reaches `least`.

    Blocks of `BLOCK` voxels along each axis that cannot reach it are not looked into.

    Args:
        marks: (V, W, z).
        block_maxima: (V, W, blocks along z) highest mark of each block of slices.
    """
    n_views, width, nz = marks.shape
    _, ny, nx = out.shape
    blocks_z, blocks_x = block_maxima.shape[2], (nx + BLOCK - 1) // BLOCK
    middle = (width - 1) * 0.5
    cos, sin = np.cos(angles), np.sin(angles)
    for block in prange((ny + BLOCK - 1) // BLOCK * blocks_x):
        low_y, low_x = block // blocks_x * BLOCK, block % blocks_x * BLOCK
        high_y, high_x = min(ny, low_y + BLOCK), min(nx, low_x + BLOCK)
        mid_y = ((low_y + high_y - 1) * 0.5 - (ny - 1) * 0.5) * step_y
        mid_x = ((low_x + high_x - 1) * 0.5 - (nx - 1) * 0.5) * step_x
        bounds = np.zeros(blocks_z, np.float32)
        highest = np.empty(blocks_z, np.float32)
        for view in range(n_views):
            u = mid_x * cos[view] + mid_y * sin[view] + middle
            half = abs(cos[view]) * step_x * (high_x - low_x - 1) * 0.5
            half += abs(sin[view]) * step_y * (high_y - low_y - 1) * 0.5
            start, stop = max(0, math.floor(u - half - 1e-9)), min(width, math.ceil(u + half) + 1)
            highest[:] = np.float32(0)
            for column in range(start, stop):
                for place in range(blocks_z):
                    highest[place] = max(highest[place], block_maxima[view, column, place])
            for place in range(blocks_z):
                bounds[place] += highest[place]
        total = np.empty(BLOCK, np.float32)
        for place in range(blocks_z):
            if bounds[place] < least * n_views:
                continue
            low_z, slices = place * BLOCK, min(BLOCK, nz - place * BLOCK)
            for y in range(low_y, high_y):
                for x in range(low_x, high_x):
                    total[:] = np.float32(0)
                    for view in range(n_views):
                        u = (x - (nx - 1) * 0.5) * step_x * cos[view]
                        u += (y - (ny - 1) * 0.5) * step_y * sin[view] + middle
                        left = math.floor(u + 1e-9)
                        share = np.float32(max(u - left, 0.0))
                        for column, weight in ((left, np.float32(1) - share), (left + 1, share)):
                            if 0 <= column < width:
                                for z in range(slices):
                                    total[z] += weight * marks[view, column, low_z + z]
                    for z in range(slices):
                        if total[z] >= least * n_views:
                            out[low_z + z, y, x] = True


@njit(parallel=True, cache=True)
def weighted_votes(zs, ys, xs, suv, marks, ray_maxima, angles, step_y, step_x, shape, floor, out):
    """Fill out (N): the rule `visibility` of `fusion` for the candidates alone.

    Without SUV `suv` and `ray_maxima` are 0, and the result is that of the rule `mean`.
    """
    _, n_views, width = marks.shape
    cos, sin = np.cos(angles), np.sin(angles)
    for number in prange(len(zs)):
        z, value = zs[number], suv[number]
        total, weights = np.float32(0), np.float32(0)
        for view in range(n_views):
            u = (xs[number] - (shape[2] - 1) * 0.5) * step_x * cos[view]
            u += (ys[number] - (shape[1] - 1) * 0.5) * step_y * sin[view]
            u += (width - 1) * 0.5
            left = math.floor(u + 1e-9)
            share = np.float32(max(u - left, 0.0))
            mark, ray = np.float32(0), np.float32(0)
            for column, weight in ((left, np.float32(1) - share), (left + 1, share)):
                if 0 <= column < width:
                    mark += weight * marks[z, view, column]
                    ray += weight * ray_maxima[z, view, column]
            seen = min(value / ray, np.float32(1)) if ray > 0 else np.float32(0)
            total += (floor + seen * seen) * mark
            weights += floor + seen * seen
        out[number] = total / weights


@njit(parallel=True, cache=True)
def shadows(ys, xs, angles, step_y, step_x, ny, nx, width, first, last):
    """Fill (N, V) first and last detector column of every candidate (empty: first > last)."""
    for number in prange(len(ys)):
        for view in range(len(angles)):
            cos, sin = math.cos(angles[view]), math.sin(angles[view])
            u = (xs[number] - (nx - 1) * 0.5) * step_x * cos
            u += (ys[number] - (ny - 1) * 0.5) * step_y * sin + (width - 1) * 0.5
            half = (step_x * abs(cos) + step_y * abs(sin)) * 0.5
            low, high = column_range(u, half)
            first[number, view] = max(low, 0)
            last[number, view] = min(high, width - 1)


@njit(parallel=True, cache=True)
def highest_candidates(starts, values, first, last, out):
    """Fill out (z, V, W): the highest value of the candidates on each ray, −1 without any.

    Candidates are sorted by slice; those of slice z are starts[z] to starts[z + 1].
    """
    for z in prange(len(starts) - 1):
        for number in range(starts[z], starts[z + 1]):
            for view in range(first.shape[1]):
                for column in range(first[number, view], last[number, view] + 1):
                    out[z, view, column] = max(out[z, view, column], values[number])


@njit(parallel=True, cache=True)
def count_inside(starts, inside, first, last, counts):
    """Fill counts (z, V, W): how many voxels of the mask lie on each ray."""
    counts[:] = 0
    for z in prange(len(starts) - 1):
        for number in range(starts[z], starts[z + 1]):
            if inside[number]:
                for view in range(first.shape[1]):
                    for column in range(first[number, view], last[number, view] + 1):
                        counts[z, view, column] += 1


@njit(cache=True, inline="always")
def _kind(counts, view, column, z, reach, hidden_below, ray_maxima):
    """Of which kind a ray is, under the mask that gave `counts`."""
    nz, _, width = counts.shape
    hit = counts[z, view, column] > 0
    other = False
    for step in (-1, 1):
        if 0 <= column + step < width:
            other = other or (counts[z, view, column + step] > 0) != hit
        if 0 <= z + step < nz:
            other = other or (counts[z + step, view, column] > 0) != hit
    if not hit:
        return NEAR if other else FAR
    if reach[z, view, column] < hidden_below * ray_maxima[z, view, column]:
        return HIDDEN
    return EDGE if other else INNER


@njit(parallel=True, cache=True)
def agreement(marks, counts, reach, hidden_below, ray_maxima, rays, marked):
    """Fill rays (V, KINDS): how many rays of a kind a view has, and marked: how many it marks.

    Only rays with candidates count.
    """
    nz, n_views, width = marks.shape
    for view in prange(n_views):
        rays[view] = 0
        marked[view] = 0
        for z in range(nz):
            for column in range(width):
                if reach[z, view, column] >= 0:
                    kind = _kind(counts, view, column, z, reach, hidden_below, ray_maxima)
                    rays[view, kind] += 1
                    marked[view, kind] += marks[z, view, column]


@njit(parallel=True, cache=True)
def costs(marks, counts, reach, hidden_below, ray_maxima, when_marked, when_not, out):
    """Fill out (z, V, W): what it costs that the mask hits a ray instead of missing it.

    when_marked, when_not: (V, KINDS) log-likelihood ratios for a ray that is of this kind now.
    """
    nz, n_views, width = marks.shape
    for z in prange(nz):
        for view in range(n_views):
            for column in range(width):
                if reach[z, view, column] >= 0:
                    kind = _kind(counts, view, column, z, reach, hidden_below, ray_maxima)
                    mark = marks[z, view, column]
                    out[z, view, column] = (
                        mark * when_marked[view, kind]
                        + (np.float32(1) - mark) * when_not[view, kind]
                    )


@njit(parallel=True, cache=True)
def sweep(
    starts,
    zs,
    ys,
    xs,
    order,
    first,
    last,
    unary,
    cost,
    weights,
    least,
    shared_marks,
    parity,
    state,
    counts,
):
    """Flip every candidate of the even or odd slices whose flip lowers the energy by `least`.

    Rays stay within a slice, neighbours reach to the next: slices of one parity are independent.

    Args:
        starts, zs, ys, xs: the candidates, sorted by slice.
        order: within each slice, which comes first.
        unary: energy of a candidate inside, without its rays and neighbours.
        cost: (z, V, W) energy of a hit ray.
        shared_marks: share of a marked ray's energy that every voxel on it is worth.
        weights: (3, 3, 3) energy of a neighbour of the other kind.
        state, counts: changed in place.

    Returns:
        The number of flips.
    """
    nz, ny, nx = state.shape
    flips = np.zeros(nz, np.int64)
    for half in prange((nz - parity + 1) // 2):
        z = 2 * half + parity
        for place in range(starts[z], starts[z + 1]):
            number = order[place]
            y, x = ys[number], xs[number]
            inside = state[z, y, x] == INSIDE
            energy = unary[number]
            for dz in range(-1, 2):
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        near_z, near_y, near_x = z + dz, y + dy, x + dx
                        weight = weights[dz + 1, dy + 1, dx + 1]
                        energy += weight
                        if (
                            0 <= near_z < nz
                            and 0 <= near_y < ny
                            and 0 <= near_x < nx
                            and state[near_z, near_y, near_x] == INSIDE
                        ):
                            energy -= 2 * weight
            # A marked ray needs one voxel; others on it are worth little. One that is not marked
            # speaks against every voxel on it: the n-th costs 1/n (were only the last to go of
            # use, none would be the first).
            others = np.int32(1 if inside else 0)
            for view in range(first.shape[1]):
                for column in range(first[number, view], last[number, view] + 1):
                    beside = counts[z, view, column] - others
                    price = cost[z, view, column]
                    if price > 0:
                        energy += price / np.float32(beside + 1)
                    elif beside == 0:
                        energy += price
                    else:
                        energy += shared_marks * price / np.float32(beside + 1)
            if (energy > least) if inside else (energy < -least):
                flips[z] += 1
                state[z, y, x] = OUTSIDE if inside else INSIDE
                change = -1 if inside else 1
                for view in range(first.shape[1]):
                    for column in range(first[number, view], last[number, view] + 1):
                        counts[z, view, column] += change
    return flips.sum()


@njit(cache=True)
def collect_moments(suv, state, low, high, cell, sums):
    """Add the moments of the SUV inside and outside the mask, in coarse cells of a box.

    Args:
        suv, state: (z, y, x).
        low, high: (3) the box of voxels.
        cell: (3) voxels of a cell.
        sums: (2, 3, cells z, y, x) outside and inside: count, sum, sum of squares.
    """
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                value = suv[z, y, x]
                side = 1 if state[z, y, x] == INSIDE else 0
                at_z = (z - low[0]) // cell[0]
                at_y = (y - low[1]) // cell[1]
                at_x = (x - low[2]) // cell[2]
                sums[side, 0, at_z, at_y, at_x] += 1
                sums[side, 1, at_z, at_y, at_x] += value
                sums[side, 2, at_z, at_y, at_x] += value * value


@njit(cache=True)
def uptake_evidence(zs, ys, xs, suv, low, cell, sums, spread, most, out):
    """Fill out (n): log-likelihood ratio, inside against outside, of each voxel's SUV.

    Both sides are normal distributions of a common variance, whose moments (sums, smoothed) are
    interpolated between the cells.
    """
    shape = sums.shape[2:]
    moments = np.empty((2, 3))
    for number in range(len(zs)):
        moments[:] = 0
        at_z = (zs[number] - low[0] + 0.5) / cell[0] - 0.5
        at_y = (ys[number] - low[1] + 0.5) / cell[1] - 0.5
        at_x = (xs[number] - low[2] + 0.5) / cell[2] - 0.5
        z0, y0, x0 = math.floor(at_z), math.floor(at_y), math.floor(at_x)
        for dz in range(2):
            weight_z = at_z - z0 if dz else 1 - (at_z - z0)
            cell_z = min(max(z0 + dz, 0), shape[0] - 1)
            for dy in range(2):
                weight_y = at_y - y0 if dy else 1 - (at_y - y0)
                cell_y = min(max(y0 + dy, 0), shape[1] - 1)
                for dx in range(2):
                    weight_x = at_x - x0 if dx else 1 - (at_x - x0)
                    cell_x = min(max(x0 + dx, 0), shape[2] - 1)
                    weight = weight_z * weight_y * weight_x
                    for side in range(2):
                        for power in range(3):
                            moments[side, power] += (
                                weight * sums[side, power, cell_z, cell_y, cell_x]
                            )
        out[number] = 0
        if moments[0, 0] < 1e-6 or moments[1, 0] < 1e-6:
            continue
        mean_out, mean_in = moments[0, 1] / moments[0, 0], moments[1, 1] / moments[1, 0]
        variance = (spread * max(mean_in, mean_out)) ** 2 + 1e-6
        variance += 0.5 * max(moments[0, 2] / moments[0, 0] - mean_out**2, 0.0)
        variance += 0.5 * max(moments[1, 2] / moments[1, 0] - mean_in**2, 0.0)
        value = suv[zs[number], ys[number], xs[number]]
        ratio = (value - (mean_in + mean_out) / 2) * (mean_in - mean_out) / variance
        out[number] = min(max(ratio, -most), most)
