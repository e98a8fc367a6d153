"""Kernels of `views.labels`: visible and occluded pixels of every lesion in every view."""

import math

import numpy as np
from numba import njit, prange

from nnunetv2_mip.views.footprint import depth_footprint

VISIBLE, OCCLUDED = 1, 2
# Tolerance between the view and the samples here, which may be rounded differently (SUV; relative
# above 1).
TIE = 1e-4


@njit(parallel=True, cache=True)
def label_lesions(
    zs,
    y_mm,
    x_mm,
    starts,
    crops,
    boxes,
    angles,
    frame,
    steps,
    views,
    per_suv,
    enough_share,
    enough_pixels,
    enough_gradient,
    shares,
    labelled,
    stack,
):
    """Fill the label stack, and the visibility of every lesion in every view.

    Args:
        zs, y_mm, x_mm: (N,) voxels sorted by lesion: slice, and position from the rotation centre.
        starts: (L + 1,) see `components.lesion_voxels`.
        crops, boxes: SUV around every lesion, see `labels._crops`.
        angles: (V,) in radians.
        frame: voxel size y and x (mm), bin (mm), rotation centre y and x (voxels).
        steps: samples along a ray.
        views: (V, H, W) float32, SUV of the views.
        per_suv: 1 / window, scales the views to [0, 1] for the gradient.
        enough_share, enough_pixels, enough_gradient: see `settings.OcclusionSettings`; the size of
            a fragment in pixels.
        shares: (V, L) filled with the visible share of the pixels.
        labelled: (V, L) filled with True where any pixel becomes `VISIBLE`.
        stack: (V, H, W) filled with `VISIBLE` and `OCCLUDED`.
    """
    sy, sx, bin_mm, _, _ = frame
    rows, width = views.shape[1], views.shape[2]
    for view in prange(len(angles)):
        cos = math.cos(angles[view])
        sin = math.sin(angles[view])
        for lesion in range(len(starts) - 1):
            box = boxes[lesion]
            part = slice(starts[lesion], starts[lesion + 1])
            z_low, z_high = box[3], box[3] + box[6] - 1
            left, near, far = depth_footprint(
                zs[part], y_mm[part], x_mm[part], z_low, z_high, cos, sin, sy, sx, bin_mm, width
            )
            crop = crops[box[0] : box[0] + box[4] * box[5] * box[6]]
            crop = crop.reshape((box[4], box[5], box[6]))
            highest = _highest_inside(crop, box, near, far, left, cos, sin, frame, steps, width)
            hit = 0
            visible = 0
            # 0 not hit, 1 hit, 2 visible, 3 visible and part of a fragment found before.
            state = np.zeros(near.shape, np.uint8)
            for column in range(near.shape[0]):
                for z in range(near.shape[1]):
                    if near[column, z] > far[column, z]:
                        continue
                    hit += 1
                    state[column, z] = 1
                    ray = views[view, rows - 1 - z_low - z, left + column]
                    if ray > 0 and highest[column, z] >= ray - TIE * max(1.0, ray):
                        visible += 1
                        state[column, z] = 2
            if hit == 0:
                continue
            shares[view, lesion] = visible / hit
            whole = visible >= enough_share * hit and visible > 0
            for column in range(near.shape[0]):
                for z in range(near.shape[1]):
                    if state[column, z] == 0:
                        continue
                    row = rows - 1 - z_low - z
                    if whole:
                        stack[view, row, left + column] = VISIBLE
                    elif stack[view, row, left + column] == 0:
                        stack[view, row, left + column] = OCCLUDED
            if whole:
                labelled[view, lesion] = True
                continue
            for column in range(near.shape[0]):
                for z in range(near.shape[1]):
                    if state[column, z] == 2:
                        fragment = _take_fragment(state, column, z)
                        if len(fragment) < enough_pixels:
                            continue
                        total = 0.0
                        for k in range(len(fragment)):
                            row = rows - 1 - z_low - fragment[k, 1]
                            total += _sobel(views[view], row, left + fragment[k, 0], per_suv)
                        if total > enough_gradient * len(fragment):
                            labelled[view, lesion] = True
                            for k in range(len(fragment)):
                                row = rows - 1 - z_low - fragment[k, 1]
                                stack[view, row, left + fragment[k, 0]] = VISIBLE


@njit(cache=True)
def _highest_inside(crop, box, near, far, left, cos, sin, frame, steps, width):
    """Highest sample of each ray in the lesion's depth range: (columns, slices) float32, SUV.

    Rays are sampled as `projection.project` does.
    """
    sy, sx, bin_mm, centre_y, centre_x = frame
    slack = 0.5 * math.hypot(sy, sx) + 1e-4
    highest = np.zeros(near.shape, np.float32)
    ny, nx, nz = crop.shape
    for column in range(near.shape[0]):
        u = (left + column - (width - 1) * 0.5) * bin_mm
        nearest, farthest = near[column].min() - slack, far[column].max() + slack
        if nearest > farthest:
            continue
        first = max(0, math.ceil(nearest / bin_mm + (steps - 1) * 0.5))
        last = min(steps - 1, math.floor(farthest / bin_mm + (steps - 1) * 0.5))
        for step in range(first, last + 1):
            t = (step - (steps - 1) * 0.5) * bin_mm
            x = (u * cos - t * sin) / sx + centre_x - box[2]
            y = (u * sin + t * cos) / sy + centre_y - box[1]
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
            for z in range(nz):
                if near[column, z] - slack <= t <= far[column, z] + slack:
                    value = (
                        w00 * crop[y0, x0, z]
                        + w01 * crop[y0, x0 + 1, z]
                        + w10 * crop[y0 + 1, x0, z]
                        + w11 * crop[y0 + 1, x0 + 1, z]
                    )
                    highest[column, z] = max(highest[column, z], value)
    return highest


@njit(cache=True)
def _take_fragment(state, column, z):
    """Pixels (n, 2) of the 8-connected visible fragment that contains one of them, marked as 3."""
    found = np.empty((16, 2), np.int64)
    found[0, 0], found[0, 1] = column, z
    state[column, z] = 3
    count, done = 1, 0
    while done < count:
        a, b = found[done, 0], found[done, 1]
        done += 1
        for i in range(max(a - 1, 0), min(a + 2, state.shape[0])):
            for j in range(max(b - 1, 0), min(b + 2, state.shape[1])):
                if state[i, j] == 2:
                    state[i, j] = 3
                    if count == len(found):
                        found = np.concatenate((found, np.empty_like(found)))
                    found[count, 0], found[count, 1] = i, j
                    count += 1
    return found[:count]


@njit(cache=True)
def _sobel(view, row, column, per_suv):
    """Magnitude of the Sobel gradient of a view scaled to [0, 1]; edge pixels are repeated."""
    down = np.float32(0)
    right = np.float32(0)
    for i in range(-1, 2):
        for j in range(-1, 2):
            r = min(max(row + i, 0), view.shape[0] - 1)
            c = min(max(column + j, 0), view.shape[1] - 1)
            value = min(view[r, c] * per_suv, np.float32(1))
            down += i * (2 - abs(j)) * value
            right += j * (2 - abs(i)) * value
    return math.sqrt(down * down + right * right)
