"""Kernels of `fusion.explain`: votes, rays of candidates, agreement of views and mask, flips.

A ray is a pixel of a view; arrays of rays are (z, V, W), see `views.geometry`. A candidate is a
voxel that may be lesion. `state` (z, y, x) is 0 where there is none, `OUTSIDE` for a candidate
outside the mask, `INSIDE` for one in it.
"""

import math

import numpy as np
from numba import njit, prange

from nnunetv2_mip.views.footprint import footprint_columns

OUTSIDE, INSIDE = 1, 2
# Edge of the blocks of voxels that `marked_on_average` leaves out as a whole.
BLOCK = 8
# Kinds of rays. Hit: with hit neighbours only, with a missed neighbour, behind something hotter.
# Missed: with a hit neighbour, with missed neighbours only.
INNER, EDGE, HIDDEN, NEAR, FAR = range(5)
KINDS = 5


@njit(parallel=True, cache=True)
def window_maxima(block_maxima, widths, out):
    """Fill out with the maximum of as many columns as `widths`, from each column on.

    Args:
        block_maxima: (blocks along z, V, W).
        widths: (V,) number of columns of the footprint of a block of voxels in each view.
        out: (blocks along z, V, W).
    """
    blocks, n_views, width = block_maxima.shape
    for block in prange(blocks):
        for view in range(n_views):
            row = block_maxima[block, view]
            for column in range(width):
                highest = row[column]
                for other in range(column + 1, min(width, column + widths[view])):
                    highest = max(highest, row[other])
                out[block, view, column] = highest


@njit(parallel=True, cache=True)
def marked_on_average(marks, block_maxima, widths, angles, step_y, step_x, least, out):
    """Set out where the mean of the views' probabilities at a voxel is at least `least`.

    Blocks of `BLOCK` voxels along each axis in which it cannot be are left out.

    Args:
        marks: (blocks along z, V, W, BLOCK).
        block_maxima: (blocks along z, V, W) of `window_maxima`.
        widths: (V,) as there.
        angles: (V,) in radians.
        step_y, step_x: voxel size in detector columns.
        out: (blocks * BLOCK, y, x) bool.
    """
    n_blocks, n_views, width, _ = marks.shape
    _, ny, nx = out.shape
    rows = (ny + BLOCK - 1) // BLOCK
    middle = (width - 1) * 0.5
    cos, sin = np.cos(angles), np.sin(angles)
    # By rows, so that one thread gets the front of the body and another the back. Head and legs
    # would be unequal work.
    for turn in prange(n_blocks * rows):
        block, low_y = turn % n_blocks, turn // n_blocks * BLOCK
        high_y = min(ny, low_y + BLOCK)
        total = np.empty(BLOCK, np.float32)
        for low_x in range(0, nx, BLOCK):
            high_x = min(nx, low_x + BLOCK)
            mid_y = ((low_y + high_y - 1) * 0.5 - (ny - 1) * 0.5) * step_y
            mid_x = ((low_x + high_x - 1) * 0.5 - (nx - 1) * 0.5) * step_x
            bound = np.float32(0)
            for view in range(n_views):
                u = mid_x * cos[view] + mid_y * sin[view] + middle
                half = abs(cos[view]) * step_x * (high_x - low_x - 1) * 0.5
                half += abs(sin[view]) * step_y * (high_y - low_y - 1) * 0.5
                start = math.floor(u - half - 1e-9)
                if -widths[view] < start < width:
                    bound += block_maxima[block, view, max(0, start)]
            if bound < least * n_views:
                continue
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
                                for z in range(BLOCK):
                                    total[z] += weight * marks[block, view, column, z]
                    for z in range(BLOCK):
                        if total[z] >= least * n_views:
                            out[block * BLOCK + z, y, x] = True


@njit(parallel=True, cache=True)
def weighted_votes(zs, ys, xs, suv, marks, ray_maxima, angles, step_y, step_x, shape, floor, out):
    """Fill out (N,) with the rule `visibility` of `fusion.fuse` at single voxels.

    Without SUV, `suv` and `ray_maxima` are 0, and the result is that of the rule `mean`.

    Args:
        zs, ys, xs: (N,) voxels.
        suv: (N,) float32, of the voxels.
        marks, ray_maxima: (z, V, W).
        angles: (V,) in radians.
        step_y, step_x: voxel size in detector columns.
        shape: of the volume (z, y, x).
        floor: weight of a view that does not see the voxel.
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
def footprints(ys, xs, angles, step_y, step_x, ny, nx, width, first, last):
    """Fill first, last (N, V) with the detector columns of candidates (empty: first > last)."""
    for number in prange(len(ys)):
        for view in range(len(angles)):
            cos, sin = math.cos(angles[view]), math.sin(angles[view])
            u = (xs[number] - (nx - 1) * 0.5) * step_x * cos
            u += (ys[number] - (ny - 1) * 0.5) * step_y * sin + (width - 1) * 0.5
            half = (step_x * abs(cos) + step_y * abs(sin)) * 0.5
            low, high = footprint_columns(u, half)
            first[number, view] = max(low, 0)
            last[number, view] = min(high, width - 1)


@njit(parallel=True, cache=True)
def highest_candidates(slices, starts, values, first, last, out):
    """Fill out (z, V, W) with the highest SUV of the candidates on each ray, −1 without any.

    Args:
        slices: those that have candidates.
        starts: (z + 1,) candidates are sorted by slice; those of slice z are starts[z] to before
            starts[z + 1].
        values: (N,) SUV of the candidates.
        first, last: (N, V) see `footprints`.
    """
    for turn in prange(len(slices)):
        z = slices[turn]
        for number in range(starts[z], starts[z + 1]):
            for view in range(first.shape[1]):
                for column in range(first[number, view], last[number, view] + 1):
                    out[z, view, column] = max(out[z, view, column], values[number])


@njit(parallel=True, cache=True)
def count_inside(slices, starts, inside, first, last, counts):
    """Add to counts (z, V, W) the number of voxels of the mask `inside` (N,) on each ray."""
    for turn in prange(len(slices)):
        z = slices[turn]
        for number in range(starts[z], starts[z + 1]):
            if inside[number]:
                for view in range(first.shape[1]):
                    for column in range(first[number, view], last[number, view] + 1):
                        counts[z, view, column] += 1


@njit(cache=True, inline="always")
def _kind(counts, view, column, z, highest, hidden_below, ray_maxima):
    """Kind of a ray under the mask that gave `counts`."""
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
    if highest[z, view, column] < hidden_below * ray_maxima[z, view, column]:
        return HIDDEN
    return EDGE if other else INNER


@njit(parallel=True, cache=True)
def spans(slices, starts, first, last, out):
    """Fill out (z, V, 2) with the first and last column that have a candidate."""
    for turn in prange(len(slices)):
        z = slices[turn]
        for view in range(first.shape[1]):
            low, high = first[starts[z], view], last[starts[z], view]
            for number in range(starts[z] + 1, starts[z + 1]):
                low, high = min(low, first[number, view]), max(high, last[number, view])
            out[z, view, 0], out[z, view, 1] = low, high


@njit(parallel=True, cache=True)
def agreement(slices, span, marks, counts, highest, hidden_below, ray_maxima, kinds, rays, marked):
    """Numbers of rays and of marked rays by kind, slice by slice.

    Args:
        slices: those that have candidates.
        span: (z, V, 2) see `spans`; only rays with candidates count.
        marks, counts, ray_maxima: (z, V, W).
        highest: (z, V, W) see `highest_candidates`.
        hidden_below: see `EnergyWeights`.
        kinds: (z, V, W) uint8, filled with the kind of every such ray.
        rays: (z, V, KINDS) filled with the number of rays of each kind.
        marked: (z, V, KINDS) filled with the sum of their probabilities.
    """
    for turn in prange(len(slices)):
        z = slices[turn]
        rays[z] = 0
        marked[z] = 0
        for view in range(marks.shape[1]):
            for column in range(span[z, view, 0], span[z, view, 1] + 1):
                if highest[z, view, column] >= 0:
                    kind = _kind(counts, view, column, z, highest, hidden_below, ray_maxima)
                    kinds[z, view, column] = kind
                    rays[z, view, kind] += 1
                    marked[z, view, kind] += marks[z, view, column]


@njit(cache=True, inline="always")
def _set_voxel_cost(cost, shares, count, voxel_cost, view, column):
    """Set the part of a ray's energy for a voxel on it that enters or leaves the mask."""
    use = 1 if cost > 0 else 0
    voxel_cost[0, view, column] = cost * shares[use, count]
    voxel_cost[1, view, column] = cost * shares[use, max(count - 1, 0)]


@njit(parallel=True, cache=True)
def ray_costs(
    slices, span, marks, counts, highest, kinds, when_marked, when_not, shares, cost, voxel_cost
):
    """Fill the energy of a hit on every ray, and the part of it that a single voxel gets.

    Args:
        slices, span, marks, counts, highest, kinds: as for `agreement`.
        when_marked, when_not: (V, KINDS) log-likelihood ratios of a ray that has this kind now.
        shares: (2, n) share of the energy that a voxel gets with 0, 1, ... others on the ray, where
            a hit lowers the energy (first row) and where it raises it (second).
        cost: (z, V, W) filled with the energy of a hit instead of a miss.
        voxel_cost: (z, 2, V, W) filled with the part for a voxel outside the mask, and for one
            inside.
    """
    for turn in prange(len(slices)):
        z = slices[turn]
        for view in range(marks.shape[1]):
            for column in range(span[z, view, 0], span[z, view, 1] + 1):
                if highest[z, view, column] >= 0:
                    kind = kinds[z, view, column]
                    mark = marks[z, view, column]
                    hit_cost = (
                        mark * when_marked[view, kind]
                        + (np.float32(1) - mark) * when_not[view, kind]
                    )
                    cost[z, view, column] = hit_cost
                    _set_voxel_cost(
                        hit_cost, shares, counts[z, view, column], voxel_cost[z], view, column
                    )


@njit(parallel=True, cache=True)
def least_likely_first(slices, starts, evidence, order):
    """Fill order (N,) with the candidates of each slice by rising evidence (N,) float32."""
    for turn in prange(len(slices)):
        z = slices[turn]
        ranks = np.argsort(evidence[starts[z] : starts[z + 1]], kind="mergesort")
        order[starts[z] : starts[z + 1]] = starts[z] + ranks


@njit(parallel=True, cache=True)
def sweep(
    slices,
    starts,
    zs,
    ys,
    xs,
    order,
    first,
    last,
    unary,
    cost,
    shares,
    weights,
    least,
    gains,
    state,
    counts,
    voxel_cost,
    flips,
):
    """Flip every candidate of some slices whose flip lowers the energy by more than `least`.

    Rays stay within a slice and neighbours reach to the next one, so even slices, or odd ones, are
    independent of each other. A slice is left out where a flip is known to gain no more.

    Args:
        slices: all even or all odd ones.
        starts, zs, ys, xs: candidates, sorted by slice.
        order: (N,) order of the candidates within each slice.
        first, last: (N, V) see `footprints`.
        unary: (N,) energy of a candidate in the mask, without its rays and neighbours.
        cost, shares, voxel_cost: see `ray_costs`.
        weights: (3, 3, 3) energy of a neighbour of the other kind.
        least: threshold of the gain.
        gains: (z,) largest gain of a flip in each slice, infinite where it is not known.
        state, counts: of the mask. They are changed in place, as are gains and voxel_cost.
        flips: (z,) filled with the number of flips in each of the slices.
    """
    nz, ny, nx = state.shape
    for turn in prange(len(slices)):
        z = slices[turn]
        flips[z] = 0
        if gains[z] <= least:
            continue
        most = np.float32(-np.inf)
        slice_cost = voxel_cost[z]
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
            side = 1 if inside else 0
            for view in range(first.shape[1]):
                for column in range(first[number, view], last[number, view] + 1):
                    energy += slice_cost[side, view, column]
            gain = energy if inside else -energy
            most = max(most, gain)
            if gain > least:
                flips[z] += 1
                state[z, y, x] = OUTSIDE if inside else INSIDE
                change = -1 if inside else 1
                for view in range(first.shape[1]):
                    for column in range(first[number, view], last[number, view] + 1):
                        counts[z, view, column] += change
                        count = counts[z, view, column]
                        _set_voxel_cost(
                            cost[z, view, column], shares, count, slice_cost, view, column
                        )
        gains[z] = most if flips[z] == 0 else np.float32(np.inf)


@njit(cache=True, nogil=True)
def collect_moments(suv, state, low, high, cell, sums):
    """Add to sums the moments of the SUV outside and inside the mask, in coarse cells of a box.

    Args:
        suv, state: (z, y, x).
        low, high: (3,) first voxel of the box, and the one behind its last.
        cell: (3,) size of a cell in voxels.
        sums: (2, 3, cells z, y, x) outside and inside: count, sum, sum of squares.
    """
    for z in range(low[0], high[0]):
        at_z = (z - low[0]) // cell[0]
        for y in range(low[1], high[1]):
            at_y = (y - low[1]) // cell[1]
            at_x, left = 0, cell[2]
            for x in range(low[2], high[2]):
                value = suv[z, y, x]
                side = 1 if state[z, y, x] == INSIDE else 0
                sums[side, 0, at_z, at_y, at_x] += 1
                sums[side, 1, at_z, at_y, at_x] += value
                sums[side, 2, at_z, at_y, at_x] += value * value
                left -= 1
                if left == 0:
                    at_x, left = at_x + 1, cell[2]


@njit(cache=True, nogil=True)
def inside_and_beside(state, low, high, shell):
    """Voxels of the mask in a box, and voxels outside within `shell` steps of them.

    A step leads to one of the six neighbours that share a face.

    Returns:
        within: (n, 3) int32, indices (z, y, x) in the volume.
        beside: (m, 3) int32.
    """
    size_z, size_y, size_x = high[0] - low[0], high[1] - low[1], high[2] - low[2]
    near = np.zeros((size_z, size_y, size_x), np.bool_)
    inside = 0
    for z in range(size_z):
        for y in range(size_y):
            for x in range(size_x):
                if state[low[0] + z, low[1] + y, low[2] + x] != INSIDE:
                    continue
                inside += 1
                at_rim = False
                for dz, dy, dx in (
                    (-1, 0, 0),
                    (1, 0, 0),
                    (0, -1, 0),
                    (0, 1, 0),
                    (0, 0, -1),
                    (0, 0, 1),
                ):
                    at_z, at_y, at_x = z + dz, y + dy, x + dx
                    if 0 <= at_z < size_z and 0 <= at_y < size_y and 0 <= at_x < size_x:
                        at_rim = at_rim or (
                            state[low[0] + at_z, low[1] + at_y, low[2] + at_x] != INSIDE
                        )
                if not at_rim:
                    continue
                for dz in range(max(-shell, -z), min(shell, size_z - 1 - z) + 1):
                    reach_y = shell - abs(dz)
                    for dy in range(max(-reach_y, -y), min(reach_y, size_y - 1 - y) + 1):
                        reach_x = reach_y - abs(dy)
                        for dx in range(max(-reach_x, -x), min(reach_x, size_x - 1 - x) + 1):
                            near[z + dz, y + dy, x + dx] = True
    within = np.empty((inside, 3), np.int32)
    beside = np.empty((near.sum(), 3), np.int32)
    found, others = 0, 0
    for z in range(size_z):
        for y in range(size_y):
            for x in range(size_x):
                at_z, at_y, at_x = low[0] + z, low[1] + y, low[2] + x
                if state[at_z, at_y, at_x] == INSIDE:
                    within[found, 0], within[found, 1], within[found, 2] = at_z, at_y, at_x
                    found += 1
                elif near[z, y, x]:
                    beside[others, 0], beside[others, 1], beside[others, 2] = at_z, at_y, at_x
                    others += 1
    return within, beside[:others]


@njit(cache=True, nogil=True)
def uptake_log_ratios(places, suv, low, cell, sums, spread, most, out):
    """Fill out (n,) with the log-likelihood ratio of the SUV, inside against outside the mask.

    Both sides are normal distributions with a common variance. Their moments are interpolated
    between the cells.

    Args:
        places: (n, 3) int32, indices (z, y, x).
        suv: (z, y, x).
        low, cell: see `collect_moments`.
        sums: of `collect_moments`, smoothed.
        spread: least standard deviation as a share of the mean.
        most: largest absolute value of the ratio.
    """
    shape = sums.shape[2:]
    moments = np.empty((2, 3))
    for number in range(len(places)):
        moments[:] = 0
        at_z = (places[number, 0] - low[0] + 0.5) / cell[0] - 0.5
        at_y = (places[number, 1] - low[1] + 0.5) / cell[1] - 0.5
        at_x = (places[number, 2] - low[2] + 0.5) / cell[2] - 0.5
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
        value = suv[places[number, 0], places[number, 1], places[number, 2]]
        ratio = (value - (mean_in + mean_out) / 2) * (mean_in - mean_out) / variance
        out[number] = min(max(ratio, -most), most)
