"""Voxel grid of a file, and the exchange of its axes with canonical ones."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import SimpleITK as sitk

# Largest deviation of a direction cosine from 0 or ±1 that still counts as axis-aligned (0.06°).
OBLIQUE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SourceGrid:
    """Voxel grid of a file as ITK describes it: (x, y, z) index order, physical LPS mm.

    Attributes:
        size: voxels along the file's index axes (i, j, k).
        spacing: mm along the same axes.
        origin: physical position of voxel (0, 0, 0), mm.
        direction: nine direction cosines, row by row; column a is the direction of index axis a.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    @classmethod
    def of_image(cls, image: sitk.Image | sitk.ImageFileReader) -> "SourceGrid":
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_dict(cls, content: dict) -> "SourceGrid":
        return cls(
            **{key: tuple(content[key]) for key in ("size", "spacing", "origin", "direction")}
        )

    def to_dict(self) -> dict:
        return {key: list(value) for key, value in asdict(self).items()}

    def _axes(self) -> tuple[list[int], list[int]]:
        """Index axes along physical x, y and z, and their signs."""
        direction = np.array(self.direction).reshape(3, 3)
        axes = [int(np.abs(direction[physical]).argmax()) for physical in range(3)]
        signs = [1 if direction[physical, axes[physical]] > 0 else -1 for physical in range(3)]
        return axes, signs

    @property
    def is_axis_aligned(self) -> bool:
        """Whether every index axis runs along a body axis (no oblique acquisition)."""
        direction = np.abs(np.array(self.direction).reshape(3, 3))
        off = np.minimum(direction, np.abs(direction - 1))
        return bool(off.max() < OBLIQUE_TOLERANCE) and sorted(self._axes()[0]) == [0, 1, 2]

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Shape of the canonical array."""
        axes, _ = self._axes()
        return self.size[axes[2]], self.size[axes[1]], self.size[axes[0]]

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Spacing of the canonical array in mm."""
        axes, _ = self._axes()
        return self.spacing[axes[2]], self.spacing[axes[1]], self.spacing[axes[0]]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000.0

    def canonical(self) -> "SourceGrid":
        """The grid of the canonical array itself: the same voxels, index axes along x, y, z."""
        axes, signs = self._axes()
        corner = np.zeros(3)
        for axis, sign in zip(axes, signs):
            corner[axis] = 0 if sign > 0 else self.size[axis] - 1
        direction = np.array(self.direction).reshape(3, 3)
        origin = direction @ (corner * np.array(self.spacing)) + np.array(self.origin)
        nz, ny, nx = self.shape_zyx
        sz, sy, sx = self.spacing_zyx
        x, y, z = (float(value) for value in origin)
        return SourceGrid(
            (nx, ny, nz),
            (sx, sy, sz),
            (x, y, z),
            tuple(np.eye(3).ravel().tolist()),
        )

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """Array in file order (k, j, i) as canonical (z, y, x); a view, not a copy."""
        axes, signs = self._axes()
        array = array.transpose([2 - axes[physical] for physical in (2, 1, 0)])
        return array[tuple(slice(None, None, signs[physical]) for physical in (2, 1, 0))]

    def from_canonical(self, array: np.ndarray) -> np.ndarray:
        """Canonical array (z, y, x) in file order (k, j, i); the inverse of `to_canonical`."""
        axes, signs = self._axes()
        array = array[tuple(slice(None, None, signs[physical]) for physical in (2, 1, 0))]
        return array.transpose(np.argsort([2 - axes[physical] for physical in (2, 1, 0)]))

    def to_canonical_index(self, index: Sequence[int]) -> tuple[int, int, int]:
        """Place (z, y, x) in the canonical array of voxel (i, j, k) of the file."""
        axes, signs = self._axes()
        x, y, z = (
            int(index[axis] if sign > 0 else self.size[axis] - 1 - index[axis])
            for axis, sign in zip(axes, signs)
        )
        return z, y, x

    def from_canonical_index(self, place: Sequence[int]) -> tuple[int, int, int]:
        """Voxel (i, j, k) of the file at (z, y, x) of the canonical array."""
        axes, signs = self._axes()
        index = [0, 0, 0]
        for axis, sign, value in zip(axes, signs, place[::-1]):
            index[axis] = int(value) if sign > 0 else self.size[axis] - 1 - int(value)
        return index[0], index[1], index[2]

    def canonical_places(self, points_mm: np.ndarray) -> np.ndarray:
        """Places (N, 3) in the canonical array, as fractions of voxels (z, y, x), of points.

        Args:
            points_mm: (N, 3) physical x, y, z.
        """
        direction = np.array(self.direction).reshape(3, 3)
        index = (np.asarray(points_mm, float) - np.array(self.origin)) @ np.linalg.inv(direction).T
        index /= np.array(self.spacing)
        first = np.array(self.to_canonical_index((0, 0, 0)))
        units = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        steps = np.array([self.to_canonical_index(unit) for unit in units]) - first
        return index @ steps + first

    def same_as(self, other: "SourceGrid") -> bool:
        """Whether both grids have one size, and the same corners within a hundredth of a voxel."""
        if self.size != other.size:
            return False
        return bool(np.abs(self._corners() - other._corners()).max() <= 0.01 * min(self.spacing))

    def _corners(self) -> np.ndarray:
        direction = np.array(self.direction).reshape(3, 3)
        ends = np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1)
        return direction @ (ends * np.array(self.spacing)[:, None]) + np.array(self.origin)[:, None]

    def describe(self) -> str:
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing)
        origin = ", ".join(f"{value:.4g}" for value in self.origin)
        return f"{' x '.join(map(str, self.size))} voxels of {spacing} mm, origin ({origin})"
