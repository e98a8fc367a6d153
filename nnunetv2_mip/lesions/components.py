"""Connected components of masks: lesions, their centres, their overlap."""

import cc3d
import numpy as np

from nnunetv2_mip.io.grid import SourceGrid

CONNECTIVITY = {2: 8, 3: 18}


def hits(sizes: np.ndarray, overlaps: np.ndarray, min_overlap: float = 0.0) -> np.ndarray:
    """Which lesions of one mask the other mask hits: the rule of `lesion_scores`.

    Args:
        sizes: (L,) voxels of each lesion.
        overlaps: (L,) how many of them the other mask has too.
        min_overlap: see `lesion_scores`.

    Returns:
        (L,) bool.
    """
    # The tolerance keeps 3 of 10 voxels a hit at min_overlap 0.3, which is not exact in binary.
    return (overlaps > 0) & (overlaps >= min_overlap * sizes - 1e-9)


# 18-connectivity: voxels that share a face or an edge are one lesion.
LESION_CONNECTIVITY = 18


def lesion_voxels(seg: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The voxels of a mask, lesion by lesion.

    Returns:
        (N, 3) voxels (z, y, x), and (L + 1) where each of the L lesions starts.
    """
    mask = np.ascontiguousarray(seg) != 0
    zyx = np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)
    if not len(zyx):
        return zyx, np.zeros(1, np.int64)
    low, high = zyx.min(0), zyx.max(0) + 1
    box = np.ascontiguousarray(mask[tuple(slice(a, b) for a, b in zip(low, high))])
    numbers = cc3d.connected_components(box, connectivity=LESION_CONNECTIVITY)
    number = numbers[tuple((zyx - low).T)].astype(np.int64)
    # Numbered by their first voxel, whatever the order of the library.
    _, first, number = np.unique(number, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[number]
    counts = np.bincount(number)
    order = np.argsort(number, kind="stable")
    return np.ascontiguousarray(zyx[order]), np.concatenate([[0], np.cumsum(counts)])


def lesion_centres_mm(zyx: np.ndarray, starts: np.ndarray, grid: SourceGrid) -> np.ndarray:
    """(L, 3) mean position of each of `lesion_voxels`: physical x, y, z in mm."""
    size = grid.size[::-1]
    index = []
    for axis in range(3):
        along = np.arange(size[2 - axis]).reshape([-1 if a == 2 - axis else 1 for a in range(3)])
        canonical = grid.to_canonical(np.broadcast_to(along, size))
        sums = np.add.reduceat(canonical[tuple(zyx.T)], starts[:-1])
        index.append(sums / np.diff(starts))
    steps = np.stack(index, axis=1) * np.array(grid.spacing)
    return steps @ np.array(grid.direction).reshape(3, 3).T + np.array(grid.origin)


def drop_small(mask: np.ndarray, smallest_px: int) -> np.ndarray:
    """Remove 8-connected components of (H, W) with fewer than `smallest_px` pixels."""
    if smallest_px <= 1 or not mask.any():
        return mask
    return cc3d.dust(mask.astype(np.uint8), threshold=smallest_px, connectivity=8) > 0
