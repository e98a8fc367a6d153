"""Smooth solids in millimetres, and the voxel grid on which a phantom is painted with them.

Positions are (x, y, z) mm in the body's own frame: x to the patient's left, y to the back, z to
the head; the origin is in the midline, at the level of the upper thighs. Arrays are (z, y, x).
Every solid has two methods: `distance(x, y, z)`, the signed distance of points in mm (negative
inside), and `bounds()`, the low and the high corner (x, y, z) of a box around it. The edge of a
solid covers exactly one voxel at any spacing, and does not depend on the position of the grid.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

import numpy as np
from scipy.interpolate import PchipInterpolator

Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]


class Solid(Protocol):
    """Solid that can be painted: its signed distance, and a box around it."""

    def bounds(self) -> tuple[np.ndarray, np.ndarray]: ...

    def distance(self, x, y, z) -> np.ndarray: ...


def point_of(values: Iterable[float]) -> Point:
    """Point, or three lengths in mm, of three values in the order (x, y, z)."""
    x, y, z = values
    return x, y, z


@dataclass(frozen=True)
class Deformation:
    """Smooth deformation: coordinates shifted by a few millimetres along slow waves.

    It makes solids irregular, as organs are.

    Attributes:
        amplitude_mm: largest shift of one wave.
        length_mm: wavelength.
        phases: of the six waves.
    """

    amplitude_mm: float
    length_mm: float
    phases: tuple[float, ...]

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude_mm: float, length_mm: float) -> "Deformation":
        """Deformation with random phases."""
        return cls(amplitude_mm, length_mm, tuple(rng.uniform(0, 2 * np.pi, 6)))

    def __call__(self, x, y, z):
        """Shifted coordinates x, y, z (mm)."""

        def wave(coordinate, phase):
            return self.amplitude_mm * np.sin(coordinate * (2 * np.pi / self.length_mm) + phase)

        p = self.phases
        return (
            x + wave(y, p[0]) + wave(z, p[1]),
            y + wave(z, p[2]) + wave(x, p[3]),
            z + wave(x, p[4]) + wave(y, p[5]),
        )


def rotation(degrees_x: float = 0, degrees_y: float = 0, degrees_z: float = 0) -> np.ndarray:
    """Rotation matrix (3, 3) for columns (x, y, z): about x, then y, then z."""
    ax, ay, az = np.deg2rad([degrees_x, degrees_y, degrees_z])
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    return rz @ ry @ rx


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid, or with `power` > 2 a superellipsoid (4: a rounded block).

    Attributes:
        centre: (x, y, z) mm.
        semi: semi-axes in mm, along x, y, z before turning.
        turn: rotation matrix.
        power: exponent.
        deformation: applied before everything else, or None.
    """

    centre: Point
    semi: Point
    turn: np.ndarray = field(default_factory=lambda: np.eye(3))
    power: float = 2.0
    deformation: Deformation | None = None

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        reach = np.abs(self.turn) @ np.array(self.semi)
        reach = reach + (2 * self.deformation.amplitude_mm if self.deformation else 0)
        return np.array(self.centre) - reach, np.array(self.centre) + reach

    def distance(self, x, y, z) -> np.ndarray:
        if self.deformation:
            x, y, z = self.deformation(x, y, z)
        x, y, z = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        local = [x * self.turn[0, a] + y * self.turn[1, a] + z * self.turn[2, a] for a in range(3)]
        if self.power == 2.0:
            scaled = sum((c / s) ** 2 for c, s in zip(local, self.semi))
            gradient = sum((c / s**2) ** 2 for c, s in zip(local, self.semi))
            # First-order distance; exact on the surface, where alone it matters.
            radius = np.sqrt(scaled)
            return radius * (radius - 1) / np.sqrt(gradient + 1e-9)
        radius = sum(np.abs(c / s) ** self.power for c, s in zip(local, self.semi))
        return (radius ** (1 / self.power) - 1) * min(self.semi)

    def random_point(self, rng: np.random.Generator, fill: float = 0.75) -> Point:
        """Random point within `fill` of the way from the centre to the surface."""
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        local = direction * fill * rng.uniform() ** (1 / 3) * np.array(self.semi)
        return point_of(np.array(self.centre) + self.turn @ local)


@dataclass(frozen=True)
class Tube:
    """Tube of tapered capsules, one after the other.

    Attributes:
        points: at least two (x, y, z) mm.
        radii: mm, one for each point or one for all.
    """

    points: Sequence[Point]
    radii: Sequence[float] | float

    def _radii(self) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.radii, float), (len(self.points),))

    def segments(self) -> list["Tube"]:
        """Capsules of the tube, one by one (each lies in a small box of its own)."""
        radii = self._radii()
        return [
            Tube(self.points[k : k + 2], tuple(radii[k : k + 2]))
            for k in range(len(self.points) - 1)
        ]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        points, reach = np.array(self.points), float(self._radii().max())
        return points.min(0) - reach, points.max(0) + reach

    def distance(self, x, y, z) -> np.ndarray:
        radii = self._radii()
        return reduce(
            np.minimum,
            (self._capsule_distance(k, radii, x, y, z) for k in range(len(self.points) - 1)),
        )

    def _capsule_distance(self, k: int, radii: np.ndarray, x, y, z) -> np.ndarray:
        """Signed distance of points to capsule `k` alone."""
        start, end = np.array(self.points[k]), np.array(self.points[k + 1])
        along = end - start
        square = float(along @ along) or 1.0
        dx, dy, dz = x - start[0], y - start[1], z - start[2]
        t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / square, 0, 1)
        return np.sqrt(
            (dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2
        ) - (radii[k] + t * (radii[k + 1] - radii[k]))


@dataclass(frozen=True)
class Column:
    """Trunk of a body: a superellipse whose half-axes change smoothly with height.

    Attributes:
        levels: rows (z, half width, half depth, y of the centre), mm, z rising.
        power: exponent of the cross-section.
    """

    levels: np.ndarray
    power: float = 2.4

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        z, a, b, y = self.levels.T
        return (
            np.array([-a.max(), (y - b).min(), z[0]]),
            np.array([a.max(), (y + b).max(), z[-1]]),
        )

    def at(self, z) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Half width, half depth and y of the centre at the heights `z`."""
        z = np.clip(z, self.levels[0, 0], self.levels[-1, 0])
        return tuple(PchipInterpolator(self.levels[:, 0], self.levels[:, k])(z) for k in (1, 2, 3))

    def distance(self, x, y, z) -> np.ndarray:
        a, b, centre = (v.astype(np.float32) for v in self.at(z))
        radius = np.abs(x / a) ** self.power + np.abs((y - centre) / b) ** self.power
        side = (radius ** (1 / self.power) - 1) * np.minimum(a, b)
        return np.maximum(side, np.maximum(self.levels[0, 0] - z, z - self.levels[-1, 0]))


class Canvas:
    """Voxel grid in the body's frame, with the uptake and CT numbers painted on it.

    Attributes:
        suv, hu: float32 (z, y, x), before the scanner.
        spacing_mm: isotropic.
    """

    def __init__(self, shape: tuple[int, int, int], spacing_mm: float, corner: Point):
        """`corner` is the (x, y, z) mm of the centre of voxel (0, 0, 0)."""
        self.spacing_mm = float(spacing_mm)
        self.corner = corner
        self.axes = [
            (corner[2 - axis] + spacing_mm * np.arange(shape[axis])).astype(np.float32)
            for axis in range(3)
        ]
        self.suv = np.zeros(shape, np.float32)
        self.hu = np.full(shape, -1000, np.float32)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.suv.shape

    def box(self, low: np.ndarray, high: np.ndarray, margin_mm: float = 0.0) -> Box | None:
        """Voxels between two (x, y, z) corners, widened by a margin; None outside the grid."""
        slices = []
        for axis in range(3):
            start = (low[2 - axis] - margin_mm - self.corner[2 - axis]) / self.spacing_mm - 1
            stop = (high[2 - axis] + margin_mm - self.corner[2 - axis]) / self.spacing_mm + 2
            begin, end = max(0, int(np.floor(start))), min(self.shape[axis], int(np.ceil(stop)))
            if begin >= end:
                return None
            slices.append(slice(begin, end))
        return slices[0], slices[1], slices[2]

    def occupancy(
        self, solids: Sequence[Solid], margin_mm: float = 0.0
    ) -> tuple[Box, np.ndarray] | None:
        """Box around the union of `solids`, and the filled share of each voxel in it, 0–1.

        None where the union lies outside the grid.
        """
        parts: list[Solid] = []
        for solid in solids:
            parts.extend(solid.segments() if isinstance(solid, Tube) else [solid])
        corners = [part.bounds() for part in parts]
        whole = self.box(
            np.min([c[0] for c in corners], 0), np.max([c[1] for c in corners], 0), margin_mm
        )
        if whole is None:
            return None
        filled = np.zeros([s.stop - s.start for s in whole], np.float32)
        for part, (low, high) in zip(parts, corners):
            box = self.box(low, high)
            if box is None:
                continue
            z, y, x = (self.axes[a][box[a]] for a in range(3))
            distance = part.distance(x[None, None, :], y[None, :, None], z[:, None, None])
            here = np.clip(0.5 - distance / self.spacing_mm, 0, 1).astype(np.float32)
            inner = tuple(slice(b.start - w.start, b.stop - w.start) for b, w in zip(box, whole))
            np.maximum(filled[inner], here, out=filled[inner])
        return whole, filled

    def texture(self, rng: np.random.Generator, scale_mm: float) -> np.ndarray:
        """Smooth random field of zero mean and unit spread over the grid, float32 (z, y, x).

        White noise on a coarse grid that is fixed in the body, joined by cubic B-splines: the
        field is the same at every spacing.
        """
        low, high = (-40.0, -330.0, -330.0), (1160.0, 330.0, 330.0)
        counts = [int((b - a) / scale_mm) + 4 for a, b in zip(low, high)]
        values = rng.standard_normal(counts, dtype=np.float32)
        for axis in range(3):
            t = np.clip((self.axes[axis] - low[axis]) / scale_mm + 1, 0, counts[axis] - 2)
            distance = np.abs(t[:, None] - np.arange(counts[axis])[None])
            weights = np.where(
                distance < 1,
                2 / 3 - distance**2 + distance**3 / 2,
                np.clip(2 - distance, 0, None) ** 3 / 6,
            ).astype(np.float32)
            values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
        # The spread of a cubic spline of white noise, averaged over its phase: 0.479 an axis.
        return np.ascontiguousarray(values / np.float32(0.479**1.5))
