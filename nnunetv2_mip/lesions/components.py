"""Connected components of masks: lesions, their centres, their detection by another mask."""

from typing import Literal

import cc3d
import numpy as np

from nnunetv2_mip.io.grid import SourceGrid

# What makes neighbours one lesion, by the number of dimensions of a mask. 2D: pixels that share an
# edge or a corner. 3D: voxels that share a face or an edge, not those that share a corner only.
LESION_CONNECTIVITY: dict[int, Literal[8, 18]] = {2: 8, 3: 18}


def detected(sizes: np.ndarray, overlaps: np.ndarray, min_overlap: float = 0.0) -> np.ndarray:
    """Lesions of one mask that another mask detects: the criterion of `metrics.lesion_scores`.

    A lesion is detected when the other mask has at least one voxel of it, and at least the share
    `min_overlap` of its voxels.

    Args:
        sizes: (L,) voxels of each lesion.
        overlaps: (L,) voxels of each lesion that the other mask has too.
        min_overlap: share from 0 to 1.

    Returns:
        (L,) bool.
    """
    # With the tolerance 3 of 10 voxels reach min_overlap 0.3, which is not exact in binary.
    return (overlaps > 0) & (overlaps >= min_overlap * sizes - 1e-9)


def lesion_voxels(seg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a mask, sorted by lesion; lesions in the order of their first voxel.

    Args:
        seg: (z, y, x), non-zero is lesion.

    Returns:
        voxels: (N, 3) indices (z, y, x).
        starts: (L + 1,); the voxels of lesion l are those from starts[l] to before starts[l + 1].
    """
    mask = np.ascontiguousarray(seg) != 0
    zyx = np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)
    if not len(zyx):
        return zyx, np.zeros(1, np.int64)
    low, high = zyx.min(0), zyx.max(0) + 1
    box = np.ascontiguousarray(mask[tuple(slice(a, b) for a, b in zip(low, high))])
    numbers = cc3d.connected_components(box, connectivity=LESION_CONNECTIVITY[3])
    number = numbers[tuple((zyx - low).T)].astype(np.int64)
    # The library's order of the components may change; that of their first voxels does not.
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[number]
    counts = np.bincount(number)
    order = np.argsort(number, kind="stable")
    return np.ascontiguousarray(zyx[order]), np.concatenate([[0], np.cumsum(counts)])


def lesion_centres_mm(zyx: np.ndarray, starts: np.ndarray, grid: SourceGrid) -> np.ndarray:
    """Mean position of each lesion, (L, 3): physical LPS x, y, z in mm.

    Args:
        zyx, starts: as `lesion_voxels` returns them, in canonical axes.
        grid: of the file that the mask came from.
    """
    size = grid.size[::-1]
    index = []
    for axis in range(3):
        along = np.arange(size[2 - axis]).reshape([-1 if a == 2 - axis else 1 for a in range(3)])
        canonical = grid.to_canonical(np.broadcast_to(along, size))
        sums = np.add.reduceat(canonical[tuple(zyx.T)], starts[:-1])
        index.append(sums / np.diff(starts))
    steps = np.stack(index, axis=1) * np.array(grid.spacing)
    return steps @ np.array(grid.direction).reshape(3, 3).T + np.array(grid.origin)


def remove_small_components(mask: np.ndarray, smallest_px: int) -> np.ndarray:
    """Mask (H, W) bool without its 8-connected components of fewer than `smallest_px` pixels."""
    if smallest_px <= 1 or not mask.any():
        return mask
    connectivity = LESION_CONNECTIVITY[2]
    return cc3d.dust(mask.astype(np.uint8), threshold=smallest_px, connectivity=connectivity) > 0
