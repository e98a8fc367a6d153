"""Volumes on disk and in canonical axes: reading, checking, and writing back onto the source grid.

A volume in memory is an array (z, y, x) in canonical LPS axes: x to the patient's left, y to the
back, z to the head. `SourceGrid` remembers the grid of the file, so that a mask computed in
canonical axes is written with exactly the header of its source.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.nifti import read_nifti_voxels

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
# A view stack has this spacing along the view axis; no scanner has, so it also marks a stack.
VIEW_AXIS_SPACING_MM = 1000.0
STACK_SPACING_MM = 500.0
# Largest deviation of a direction cosine from 0 or ±1 that still counts as axis-aligned (0.06°).
OBLIQUE_TOLERANCE = 1e-3
# Negative SUV down to this is rounding of a resampler; below it the values are no SUV.
NEGATIVE_SUV_TOLERANCE = 1e-3
# The median SUV of the body lies here in any FDG or PSMA study; far from it the unit is not SUV.
PLAUSIBLE_BODY_MEDIAN_SUV = (0.3, 3.0)


@dataclass(frozen=True)
class SourceGrid:
    """The voxel grid of a file, as ITK says it: (x, y, z) index order, physical LPS mm.

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
        """Index axis that runs along physical x, y, z, and its sign there."""
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
        return SourceGrid(
            tuple(self.shape_zyx[::-1]),
            tuple(self.spacing_zyx[::-1]),
            tuple(float(value) for value in origin),
            tuple(np.eye(3).ravel().tolist()),
        )

    def to_canonical(self, array: np.ndarray) -> np.ndarray:
        """File order (k, j, i) to canonical (z, y, x); a view, not a copy."""
        axes, signs = self._axes()
        array = array.transpose([2 - axes[physical] for physical in (2, 1, 0)])
        return array[tuple(slice(None, None, signs[physical]) for physical in (2, 1, 0))]

    def from_canonical(self, array: np.ndarray) -> np.ndarray:
        """Canonical (z, y, x) to file order (k, j, i); the inverse of `to_canonical`."""
        axes, signs = self._axes()
        array = array[tuple(slice(None, None, signs[physical]) for physical in (2, 1, 0))]
        return array.transpose(np.argsort([2 - axes[physical] for physical in (2, 1, 0)]))

    def to_canonical_index(self, index: Sequence[int]) -> tuple[int, int, int]:
        """Voxel (i, j, k) of the file to its place (z, y, x) in the canonical array."""
        axes, signs = self._axes()
        place = [
            index[axis] if sign > 0 else self.size[axis] - 1 - index[axis]
            for axis, sign in zip(axes, signs)
        ]
        return tuple(int(value) for value in place[::-1])

    def from_canonical_index(self, place: Sequence[int]) -> tuple[int, int, int]:
        """Canonical (z, y, x) to the file's (i, j, k); the inverse of `to_canonical_index`."""
        axes, signs = self._axes()
        index = [0, 0, 0]
        for axis, sign, value in zip(axes, signs, place[::-1]):
            index[axis] = int(value) if sign > 0 else self.size[axis] - 1 - int(value)
        return tuple(index)

    def same_as(self, other: "SourceGrid") -> bool:
        """Equal size, and equal geometry within a hundredth of a voxel over the whole extent."""
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


@dataclass(frozen=True)
class Volume:
    """A 3D image in canonical axes.

    Attributes:
        array: (z, y, x), LPS.
        grid: the grid of the file it came from.
        path: that file (for messages).
    """

    array: np.ndarray
    grid: SourceGrid
    path: Path

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x) in mm."""
        return self.grid.spacing_zyx


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def read_image(path: Path | str) -> sitk.Image:
    """Read any image SimpleITK knows.

    Raises:
        MipError: the file is missing, truncated, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise MipError(f"{path}: no such file")
    try:
        return sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: RuntimeError) -> MipError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "unknown reason"
    return MipError(
        f"{path}: cannot be read (truncated, damaged or not an image; copy it again): {reason}"
    )


def read_volume(path: Path | str) -> Volume:
    """Read a 3D scalar image into canonical axes.

    Raises:
        MipError: unreadable, not 3D, more than one value a voxel, empty, or oblique.
    """
    path = Path(path)
    image = read_image(path) if not has_suffix(path, (".nii", ".nii.gz")) else None
    header = image or _read_header(path)
    if header.GetDimension() != 3:
        raise MipError(
            f"{path}: has {header.GetDimension()} dimensions, a volume has 3 "
            "(split a dynamic or multi-frame image first)"
        )
    if _components(header) != 1:
        raise MipError(f"{path}: has several values per voxel, one is expected")
    grid = SourceGrid.of_image(header)
    if min(grid.size) < 1 or max(grid.size) == 1:
        raise MipError(f"{path}: is empty ({grid.describe()})")
    if not grid.is_axis_aligned:
        raise MipError(
            f"{path}: is oblique to the body axes; resample it to an axis-aligned grid first"
        )
    voxels = None if image is not None else read_nifti_voxels(path)
    if voxels is None:
        voxels = sitk.GetArrayFromImage(image if image is not None else read_image(path))
    return Volume(grid.to_canonical(voxels.reshape(grid.size[::-1])), grid, path)


def _read_header(path: Path) -> sitk.ImageFileReader:
    if not path.is_file():
        raise MipError(f"{path}: no such file")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    return reader


def _components(header: sitk.Image | sitk.ImageFileReader) -> int:
    if isinstance(header, sitk.Image):
        return header.GetNumberOfComponentsPerPixel()
    return header.GetNumberOfComponents()


def read_suv(path: Path | str) -> Volume:
    """Read a PET volume in SUV as float32.

    Raises:
        MipError: as `read_volume`; also NaN or infinite values, negative SUV, or all zero.
    """
    volume = read_volume(path)
    array = np.ascontiguousarray(volume.array, dtype=np.float32)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MipError(f"{path}: contains NaN or infinite values; SUV must be finite everywhere")
    if low < -NEGATIVE_SUV_TOLERANCE:
        raise MipError(
            f"{path}: has negative values (lowest {low:.4g}), so it is not SUV; "
            "is it the CT, or a PET without its rescale slope?"
        )
    if high <= 0:
        raise MipError(f"{path}: is empty (no value above 0)")
    if low < 0:
        array = np.maximum(array, 0)
    return Volume(array, volume.grid, volume.path)


def read_mask(path: Path | str, like: Volume | None = None) -> Volume:
    """Read a binary mask (0 and one other value), as uint8 of 0 and 1.

    Args:
        path: the file.
        like: the volume whose grid it must lie on; None leaves that to the caller.

    Raises:
        MipError: as `read_volume`; also another grid than `like`, or more than two values.
    """
    volume = read_volume(path)
    if like is not None:
        require_same_grid(volume, like)
    # In the order of the file, where numpy is fast.
    voxels = volume.grid.from_canonical(volume.array)
    foreground = voxels != 0
    value = voxels.max() or voxels.min()
    if value != 0 and not np.array_equal(foreground, voxels == value):
        values = np.unique(voxels)
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise MipError(f"{path}: is not a binary mask (values {shown}{', …' * (len(values) > 6)})")
    mask = np.ascontiguousarray(volume.grid.to_canonical(foreground)).view(np.uint8)
    return Volume(mask, volume.grid, volume.path)


def require_same_grid(volume: Volume, like: Volume) -> None:
    """Raise MipError, naming both files, when the two volumes lie on different grids."""
    if not volume.grid.same_as(like.grid):
        raise MipError(
            f"{volume.path}: lies on another grid than {like.path} "
            f"({volume.grid.describe()} against {like.grid.describe()}); resample it to that grid"
        )


def body_median_suv(suv: np.ndarray) -> float:
    """Median of the voxels in the body (above a tenth of the 99th centile: no unit is assumed).

    Args:
        suv: any shape, non-negative.
    """
    # An odd step meets all rows and columns.
    sample = suv.reshape(-1)[:: suv.size // 300_000 | 1]
    body = sample[sample > 0.1 * np.percentile(sample, 99)]
    return float(np.median(body)) if body.size else 0.0


def suv_warning(volume: Volume) -> str | None:
    """One line when the values can hardly be SUV (wrong unit), else None."""
    median = body_median_suv(volume.array)
    low, high = PLAUSIBLE_BODY_MEDIAN_SUV
    if low <= median <= high:
        return None
    return (
        f"{volume.path}: the median of the body is {median:.4g}, SUV would give "
        f"{low:g} to {high:g}; is this Bq/ml or another unit?"
    )


def image_on_grid(array: np.ndarray, grid: SourceGrid) -> sitk.Image:
    """A canonical (z, y, x) array as an image with exactly the header of its source grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(grid.from_canonical(array)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def check_written(path: Path) -> None:
    """Raise MipError for a type that is read but not written: a header beside its voxels."""
    if has_suffix(path, (".mhd",)):
        raise MipError(f"{path}: would be two files, and is not written; choose .mha")


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write an image, compressed, whole or not at all; missing folders are made."""
    path = Path(path)
    if not has_suffix(path, VOLUME_SUFFIXES):
        raise MipError(f"{path}: unknown image type; use one of {', '.join(VOLUME_SUFFIXES)}")
    check_written(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        sitk.WriteImage(image, str(partial), useCompression=True)


def write_volume(array: np.ndarray, grid: SourceGrid, path: Path | str) -> None:
    """Write a canonical (z, y, x) array onto its source grid (same header as the source file)."""
    write_image(image_on_grid(array, grid), path)
