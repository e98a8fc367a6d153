"""Solids of any shape: signed distances sampled on a grid, made from the labels of organs.

They are painted like the ideal solids of `phantom.shapes` (same axes, same meaning of a distance).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from nnunetv2_mip.phantom.shapes import Deformation, Point, Solid, point_of

# How far beyond the organ its distance is known; further out it is at least this.
MARGIN_MM = 36.0
# Voxels wider than this would not show the organ's shape, finer ones cost time.
GRID_MM = 3.2


@dataclass(frozen=True, eq=False)
class DistanceField:
    """Solid given by its signed distance on a grid.

    Attributes:
        field: float32 (z, y, x), mm, negative inside.
        corner: (x, y, z) mm of the centre of voxel (0, 0, 0).
        spacing: (x, y, z) mm.
        deformations: applied one after the other; organs of one body have the same ones, so that
            neighbours stay neighbours.
        grown_mm: thickness of a layer added around the solid; negative takes one away.
    """

    field: np.ndarray
    corner: Point
    spacing: Point
    deformations: tuple[Deformation, ...] = ()
    grown_mm: float = 0.0

    @classmethod
    def of_mask(
        cls,
        mask: np.ndarray,
        corner: Point,
        spacing: Point,
    ) -> "DistanceField":
        """Solid of a mask.

        Args:
            mask: bool (z, y, x), not empty.
            corner, spacing: (x, y, z) mm, of the mask.
        """
        margin = [int(np.ceil(MARGIN_MM / s)) for s in spacing[::-1]]
        found = [np.flatnonzero(mask.any(tuple(b for b in range(3) if b != a))) for a in range(3)]
        low = [int(f[0]) for f in found]
        tight = mask[tuple(slice(f[0], f[-1] + 1) for f in found)]
        padded = np.pad(tight, [(m, m) for m in margin])
        start = [c + s * (b - m) for c, s, b, m in zip(corner, spacing, low[::-1], margin[::-1])]
        step = list(spacing)
        for axis in range(3):  # in (x, y, z)
            thin = max(1, round(GRID_MM / step[axis]))
            if thin > 1 and min(tight.shape) > 8:
                padded, start[axis] = _thinned(padded, 2 - axis, thin, start[axis], step[axis])
                step[axis] *= thin
        outside = distance_transform_edt(~padded, sampling=step[::-1])
        inside = distance_transform_edt(padded, sampling=step[::-1])
        # Between a voxel inside and its neighbour outside lies the surface, halfway.
        half = 0.5 * float(np.mean(step))
        field = np.where(padded, half - inside, outside - half).astype(np.float32)
        field = gaussian_filter(field, 0.6, mode="nearest")
        return cls(field, point_of(start), point_of(step))

    def grown(self, mm: float) -> "DistanceField":
        """Solid with a layer of `mm` more around it (no more than `MARGIN_MM` in all)."""
        return replace(self, grown_mm=self.grown_mm + mm)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        place = np.argwhere(self.field <= self.grown_mm + max(self.spacing))[:, ::-1]
        if not len(place):
            return np.array(self.corner), np.array(self.corner)
        reach = sum(2 * deformation.amplitude_mm for deformation in self.deformations)
        low = place.min(0) * np.array(self.spacing) + self.corner - reach
        return low, place.max(0) * np.array(self.spacing) + self.corner + reach

    def distance(self, x, y, z) -> np.ndarray:
        for deformation in self.deformations:
            x, y, z = deformation(x, y, z)
        steps = [(c - o) / s for c, o, s in zip((x, y, z), self.corner, self.spacing)]
        index = np.stack(np.broadcast_arrays(*steps[::-1]))
        shape = index.shape[1:]
        found = map_coordinates(
            self.field, index.reshape(3, -1).astype(np.float32), order=1, mode="nearest"
        )
        return found.reshape(shape) - np.float32(self.grown_mm)

    @cached_property
    def points(self) -> np.ndarray:
        """Centres of the grid's voxels inside the solid, (n, 3) of x, y, z mm."""
        place = np.argwhere(self.field < self.grown_mm)[:, ::-1]
        return self._undeformed(place * np.array(self.spacing) + self.corner)

    def _undeformed(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 3) that the deformations move to `points`."""
        for deformation in reversed(self.deformations):
            found = points
            for _ in range(3):  # small and slow: this converges at once
                found = found + (points - np.stack(deformation(*found.T), axis=1))
            points = found
        return points

    @property
    def centre(self) -> Point:
        """Point (x, y, z) mm that is farthest from the surface."""
        place = np.argwhere(self.field == self.field.min())[0, ::-1]
        return point_of(self._undeformed((place * self.spacing + np.array(self.corner))[None])[0])

    def random_point(self, rng: np.random.Generator, fill: float = 0.75) -> Point:
        """Random point in the inner part; `fill` 1 allows the whole solid, 0 the deepest point."""
        least = (1 - fill) * float(self.field.min())
        place = np.argwhere(self.field <= min(least, -0.1))
        if not len(place):
            place = np.argwhere(self.field == self.field.min())
        chosen = place[int(rng.integers(len(place)))][::-1] + rng.uniform(-0.5, 0.5, 3)
        return tuple(self._undeformed((chosen * self.spacing + self.corner)[None])[0])


def _thinned(
    mask: np.ndarray, axis: int, step: int, corner: float, spacing: float
) -> tuple[np.ndarray, float]:
    """Mask with every `step` planes joined by majority, and the new position of the first one."""
    count = mask.shape[axis] // step
    mask = np.moveaxis(mask, axis, 0)[: count * step]
    joined = mask.reshape(count, step, *mask.shape[1:]).mean(1) >= 0.5
    return np.moveaxis(joined, 0, axis), corner + 0.5 * (step - 1) * spacing


@dataclass(frozen=True)
class Intersection:
    """Intersection of several solids."""

    solids: Sequence[Solid]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        corners = [solid.bounds() for solid in self.solids]
        low = np.max([c[0] for c in corners], 0)
        return low, np.maximum(low, np.min([c[1] for c in corners], 0))

    def distance(self, x, y, z) -> np.ndarray:
        found = [solid.distance(x, y, z) for solid in self.solids]
        return np.maximum.reduce(np.broadcast_arrays(*found))


def pushed_out(point: Point, solids: Sequence[Solid], clear_mm: float) -> Point:
    """Point moved along the gradient until it is `clear_mm` away from all solids.

    It moves by thirty steps of 3 mm at most.
    """
    place = np.array(point, float)

    def nearest(at: np.ndarray) -> float:
        return min((float(s.distance(*(np.array(c) for c in at))) for s in solids), default=np.inf)

    for _ in range(30):
        here = nearest(place)
        if here >= clear_mm:
            break
        slope = np.array([nearest(place + step) - here for step in 2.0 * np.eye(3)])
        if not slope.any():
            break
        place = place + 3.0 * slope / np.linalg.norm(slope)
    return tuple(place)
