"""Plain numba form of the functions of `views.simd`, with the same results bit by bit.

The projector takes them where numba or LLVM refuses the LLVM IR of `views.simd`. A projection then
takes 1.5 times (with depth) to 1.7 times as long (48 views of a study, one core with AVX-512).
"""

import numpy as np
from numba import njit

from nnunetv2_mip.views.simd import LANES, SAMPLES


@njit(cache=True)
def update_maximum(voxels, line, places, fxs, fys, best):
    """Plain numba form of `simd.update_maximum`."""
    for number in range(SAMPLES):
        w00, w01, w10, w11 = _weights(fxs[number], fys[number])
        at = places[number]
        beside, below = at + np.uint64(LANES), at + line
        diagonal = below + np.uint64(LANES)
        for index in range(LANES):
            lane = np.uint64(index)
            sample = w00 * voxels[at + lane] + w01 * voxels[beside + lane]
            sample = sample + w10 * voxels[below + lane] + w11 * voxels[diagonal + lane]
            best[lane] = sample if sample > best[lane] else best[lane]
    return _lowest(best)


@njit(cache=True)
def update_maximum_and_winner(voxels, line, places, fxs, fys, best, ts, winner):
    """Plain numba form of `simd.update_maximum_and_winner`."""
    for number in range(SAMPLES):
        w00, w01, w10, w11 = _weights(fxs[number], fys[number])
        at, t = places[number], ts[number]
        beside, below = at + np.uint64(LANES), at + line
        diagonal = below + np.uint64(LANES)
        square = t * t
        for index in range(LANES):
            lane = np.uint64(index)
            sample = w00 * voxels[at + lane] + w01 * voxels[beside + lane]
            sample = sample + w10 * voxels[below + lane] + w11 * voxels[diagonal + lane]
            highest, other = best[lane], winner[lane]
            others = other * other
            nearer = (square < others) | ((square == others) & (t < other))
            wins = (sample > highest) | ((sample == highest) & nearer)
            best[lane] = sample if sample > highest else highest
            winner[lane] = t if wins else other
    return _lowest(best)


@njit(cache=True)
def _weights(fx, fy):
    """Bilinear weights of a sample: at its column, at x + 1, at y + 1, at both."""
    gx, gy = np.float32(1) - fx, np.float32(1) - fy
    return gx * gy, fx * gy, gx * fy, fx * fy


@njit(cache=True)
def _lowest(values):
    lowest = values[0]
    for index in range(1, LANES):
        lowest = min(lowest, values[index])
    return lowest
