"""Outlines of masks as closed polygons, and masks of closed polygons, in pixels of one slice.

Points are (row, column); the centre of the first pixel is (0, 0), its border lies at ±0.5.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

# An outline runs this far (in pixels) inside of the border of its pixels. So it keeps the area, two
# parts that share a corner do not touch, and programs that round points to pixels meet the right
# ones.
INSET = 1e-3
# A pixel centre nearer than this to an outline lies on it: points of an outline are inside (PS3.3
# C.8.8.6.3). Programs that outline the centres of the outermost pixels depend on it.
_ON_OUTLINE = 0.01
# Steps (row, column) clockwise as an image shows them: right, down, left, up.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of the parts of a mask, one polygon for each part (4-connected).

    A hole is joined to the outside by a channel without width, the standard's keyhole technique.

    Args:
        mask: (rows, columns), not 0 is inside.

    Returns:
        (N, 2) points of each polygon; the last is not the first again.
    """
    outside: list[np.ndarray] = []
    holes: list[np.ndarray] = []
    for loop in _loops(mask):
        (outside if _area(loop) > 0 else holes).append(loop)
    # From the top: what lies above a hole is whole by then.
    for hole in sorted(holes, key=lambda points: tuple(_top_left(points)[1])):
        start, (row, column) = _top_left(hole)
        channel = np.concatenate([hole[start:], hole[: start + 1]])
        index, edge, above = max(
            (
                (index, edge, points[edge, 0])
                for index, points in enumerate(outside)
                for edge in _edges_above(points, row, column)
            ),
            key=lambda found: found[2],
        )
        points, meet = outside[index], np.array([[above, column]])
        outside[index] = np.concatenate(
            [points[: edge + 1], meet, channel, meet, points[edge + 1 :]]
        )
    return [points - 0.5 for points in outside]


def _top_left(points: np.ndarray) -> tuple[int, np.ndarray]:
    """Index of the highest, then leftmost, point, and the point."""
    index = int(np.lexsort((points[:, 1], points[:, 0]))[0])
    return index, points[index]


def _edges_above(points: np.ndarray, row: float, column: float) -> np.ndarray:
    """Indices of the horizontal edges of a polygon that lie above a point."""
    ends = np.roll(points, -1, axis=0)
    low = np.minimum(points[:, 1], ends[:, 1]) - INSET / 4
    high = np.maximum(points[:, 1], ends[:, 1]) + INSET / 4
    level = np.abs(points[:, 0] - ends[:, 0]) < INSET / 4
    inside = (low <= column) & (column <= high) & (points[:, 1] != ends[:, 1])
    return np.flatnonzero(level & inside & (points[:, 0] < row - INSET / 4))


def _area(points: np.ndarray) -> float:
    """Signed area: positive of the outside of a part, negative of a hole."""
    ends = np.roll(points, -1, axis=0)
    return float((points[:, 1] * ends[:, 0] - ends[:, 1] * points[:, 0]).sum()) / 2


def _loops(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines with the mask at their right hand, in units whose first pixel is 0 to 1."""
    leaving = _border_steps(np.asarray(mask) != 0)
    unseen = {(corner, step): None for corner, steps in leaving.items() for step in steps}
    loops = []
    while unseen:
        at = next(iter(unseen))
        corners, steps = [], []
        while at in unseen:
            del unseen[at]
            corner, step = at
            corners.append(corner)
            steps.append(step)
            corner = (corner[0] + _STEPS[step][0], corner[1] + _STEPS[step][1])
            # Where two parts meet at a corner, the right turn stays with this one.
            turns = [(step + turn) % 4 for turn in (1, 0, 3)]
            at = corner, next(turn for turn in turns if turn in leaving[corner])
        loops.append(_inset(np.array(corners, float), np.array(steps)))
    return loops


def _border_steps(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Steps along the border of a mask that leave each corner of its pixels."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    leaving = defaultdict(list)
    for step, (neighbour, (row, column)) in enumerate(
        (
            (padded[:-2, 1:-1], (0, 0)),
            (padded[1:-1, 2:], (0, 1)),
            (padded[2:, 1:-1], (1, 1)),
            (padded[1:-1, :-2], (1, 0)),
        )
    ):
        for y, x in np.argwhere(inner & ~neighbour):
            leaving[(int(y) + row, int(x) + column)].append(step)
    return leaving


def _inset(corners: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Corners at which a loop turns, moved into the mask by `INSET`."""
    before = np.roll(steps, 1)
    turns = before != steps
    inward = np.array(_STEPS)[(np.stack([before, steps]) + 1) % 4].sum(axis=0)
    return (corners + INSET * inward)[turns]


def filled(polygon: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a closed polygon by the even-odd rule.

    Args:
        polygon: (N, 2) points; it may leave the image.
        shape: (rows, columns).

    Returns:
        inside: (rows, columns) bool, centres within the polygon; of those on it perhaps some.
        border: the same of centres on the polygon.
    """
    rows, columns = shape
    inside, border = np.zeros((2, rows, columns + 1), bool)
    ends = np.roll(polygon, -1, axis=0)
    first = np.ceil(np.minimum(polygon[:, 0], ends[:, 0])).clip(0, rows).astype(int)
    last = np.ceil(np.maximum(polygon[:, 0], ends[:, 0])).clip(0, rows).astype(int)
    counts = last - first
    edge = np.repeat(np.arange(len(polygon)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (r, c), (dr, dc) = polygon[edge].T, (ends - polygon)[edge].T
    crossing = c + (row - r) * dc / np.where(dr == 0, 1, dr)
    toggles = np.zeros((rows, columns + 1), np.int64)
    np.add.at(toggles, (row, (np.floor(crossing) + 1).clip(0, columns).astype(int)), 1)
    inside = np.cumsum(toggles, axis=1)[:, :columns] % 2 == 1
    _mark(border, row, crossing)
    _mark(border, polygon[:, 0], polygon[:, 1])
    level = np.abs(polygon[:, 0] - ends[:, 0]) < _ON_OUTLINE
    for (r0, c0), (_, c1) in zip(polygon[level], ends[level]):
        _mark(border, r0, np.arange(np.ceil(min(c0, c1)), np.floor(max(c0, c1)) + 1))
    return inside, border[:, :columns]


def _mark(border: np.ndarray, row: np.ndarray | float, column: np.ndarray) -> None:
    """Set the pixels whose centres lie at places (row, column)."""
    row, column = np.broadcast_arrays(np.asarray(row, float), np.asarray(column, float))
    at, to = np.rint(row), np.rint(column)
    near = (np.abs(row - at) < _ON_OUTLINE) & (np.abs(column - to) < _ON_OUTLINE)
    near &= (at >= 0) & (at < border.shape[0]) & (to >= 0) & (to < border.shape[1] - 1)
    border[at[near].astype(int), to[near].astype(int)] = True


def union(polygons: Sequence[np.ndarray], shape: tuple[int, int], xor: bool) -> np.ndarray:
    """Mask of the closed polygons of one slice.

    Args:
        polygons: (N, 2) points of each.
        shape: (rows, columns).
        xor: whether all are combined by exclusive or (CLOSEDPLANAR_XOR). Otherwise one that lies
            in another is a hole in it, the others are joined, and a second copy counts once.

    Returns:
        (rows, columns) bool.
    """
    masks = sorted((filled(polygon, shape) for polygon in polygons), key=lambda m: -m[0].sum())
    result, borders = np.zeros(shape, bool), np.zeros(shape, bool)
    earlier: list[np.ndarray] = []
    for inside, border in masks:
        whole = inside | border
        within = any(not (whole & ~other).any() for other in earlier)
        if not xor and any(np.array_equal(whole, other) for other in earlier):
            continue
        if xor or within:
            result ^= inside
        else:
            result |= inside
        borders |= border
        earlier.append(whole)
    return result | borders
