"""Voxel grid of a file, and the exchange of its axes with canonical ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.io.nifti_forms import NiftiForms

# Largest deviation of a direction cosine from 0 or ±1 that still counts as axis-aligned (0.06°).
OBLIQUE_TOLERANCE = 1e-3
# Two grids are one where their corners agree within this share of a voxel.
CORNER_TOLERANCE = 0.01
_NUMBERS = ("size", "spacing", "origin", "direction")


@dataclass(frozen=True)
class SourceGrid:
    """Voxel grid of a file as ITK describes it: (x, y, z) index order, physical LPS mm.

    Attributes:
        size: voxels along the file's index axes (i, j, k).
        spacing: mm along the same axes.
        origin: physical position of voxel (0, 0, 0), mm.
        direction: nine direction cosines, row by row; column a is the direction of index axis a.
        unit_mm: mm that a length of 1 in the file stands for, where its header does not say so.
        forms: geometry fields of a NIfTI file, which a mask on this grid gets too; else None.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    unit_mm: float = field(default=1.0, compare=False)
    forms: NiftiForms | None = field(default=None, compare=False)

    @classmethod
    def of_image(cls, image: sitk.Image | sitk.ImageFileReader) -> "SourceGrid":
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def from_dict(cls, content: dict) -> "SourceGrid":
        forms = content.get("nifti")
        return cls(
            **{key: tuple(content[key]) for key in _NUMBERS},
            unit_mm=content.get("unit_mm", 1.0),
            forms=None if forms is None else NiftiForms.from_dict(forms),
        )

    def to_dict(self) -> dict:
        """Content for a JSON file; a header that says all of it by itself is left out."""
        content: dict = {key: list(getattr(self, key)) for key in _NUMBERS}
        if self.unit_mm != 1:
            content["unit_mm"] = self.unit_mm
        if self.forms is not None and not self.forms.is_plain:
            content["nifti"] = self.forms.to_dict()
        return content

    def in_unit(self, unit_mm: float) -> "SourceGrid":
        """This grid where a length of 1 in its file stands for `unit_mm`, in mm."""
        return replace(self._scaled(unit_mm), unit_mm=unit_mm)

    def as_stored(self) -> "SourceGrid":
        """This grid with the lengths that its file has."""
        return self if self.unit_mm == 1 else replace(self._scaled(1 / self.unit_mm), unit_mm=1.0)

    def _scaled(self, factor: float) -> "SourceGrid":
        (sx, sy, sz), (x, y, z) = self.spacing, self.origin
        return replace(
            self,
            spacing=(sx * factor, sy * factor, sz * factor),
            origin=(x * factor, y * factor, z * factor),
        )

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

    @property
    def axis_codes(self) -> str:
        """Directions of the index axes i, j, k of the file by their letters, as in `RAS`."""
        axes, signs = self._axes()
        letters = ["", "", ""]
        for physical, (axis, sign) in enumerate(zip(axes, signs)):
            letters[axis] = ("RL", "AP", "IS")[physical][sign > 0]
        return "".join(letters)

    def same_as(self, other: "SourceGrid") -> bool:
        """Whether both grids have the same voxels, in whatever order their files store them.

        Canonical arrays on such grids are voxel by voxel at the same places: the grids have one
        canonical size, and the same corners within a hundredth of a voxel.
        """
        if self.shape_zyx != other.shape_zyx:
            return False
        return self.farthest_corner_mm(other) <= CORNER_TOLERANCE * min(self.spacing)

    def farthest_corner_mm(self, other: "SourceGrid") -> float:
        """Largest distance along an axis of a corner voxel to the same one of another grid."""
        return float(np.abs(self._corners() - other._corners()).max())

    def _corners(self) -> np.ndarray:
        """Places of the eight corner voxels, (3, 8), in the order of the canonical axes."""
        direction = np.array(self.direction).reshape(3, 3)
        axes, signs = self._axes()
        ends = np.zeros((3, 8))
        last = np.array(np.meshgrid(*[(0, 1)] * 3)).reshape(3, -1)
        for physical, (axis, sign) in enumerate(zip(axes, signs)):
            far = last[physical] if sign > 0 else 1 - last[physical]
            ends[axis] = far * (self.size[axis] - 1)
        return direction @ (ends * np.array(self.spacing)[:, None]) + np.array(self.origin)[:, None]

    def describe(self) -> str:
        return f"{_size(self)} voxels of {_spacing(self)} mm, origin ({_origin(self)})"

    def difference(self, other: "SourceGrid") -> str:
        """What differs between this grid and another one, each part as `this against that`.

        Sizes, spacings and first voxels are those of the canonical arrays: files that only store
        the same voxels in another order do not differ in them.
        """
        mine, others = self.canonical(), other.canonical()
        parts: list[tuple[str, Callable[[SourceGrid, int], str]]] = []
        if mine.size != others.size:
            parts.append(("{} voxels", _size))
        tolerance = CORNER_TOLERANCE / max(*mine.size, *others.size)
        if not np.allclose(mine.spacing, others.spacing, rtol=tolerance, atol=0):
            parts.append(("voxels of {} mm", _spacing))
        apart = np.abs(np.subtract(mine.origin, others.origin)).max()
        if apart > CORNER_TOLERANCE * min(mine.spacing) / 2 or not parts:
            parts.append(("first voxel at ({}) mm", _origin))
        told = [_against(words, show, mine, others) for words, show in parts]
        if self.axis_codes != other.axis_codes:
            told.insert(0, f"axes {self.axis_codes} against {other.axis_codes}")
        elif not np.allclose(self.direction, other.direction, atol=1e-6):
            told.append("axes that are turned against each other")
        return ", ".join(told)


def _size(grid: SourceGrid, _: int = 0) -> str:
    return " x ".join(map(str, grid.size))


def _spacing(grid: SourceGrid, digits: int = 4) -> str:
    return " x ".join(f"{value:.{digits}g}" for value in grid.spacing)


def _origin(grid: SourceGrid, digits: int = 4) -> str:
    return ", ".join(f"{value:.{digits}g}" for value in grid.origin)


def _against(
    words: str, show: Callable[[SourceGrid, int], str], mine: SourceGrid, others: SourceGrid
) -> str:
    """`this against that`, with as many digits as tell them apart."""
    for digits in (4, 6, 9, 17):
        if show(mine, digits) != show(others, digits):
            break
    return f"{words.format(show(mine, digits))} against {words.format(show(others, digits))}"
