"""Volumes on disk and in canonical axes: reading, checking, and writing back onto the source grid.

A volume in memory is an array (z, y, x) in canonical LPS axes: x to the patient's left, y to the
back, z to the head. `SourceGrid` remembers the grid of the file, so that a mask computed in
canonical axes is written with exactly the header of its source.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, require_readable
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.nifti import read_nifti_voxels

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# Negative SUV down to this is rounding of a resampler; below it the values are no SUV.
NEGATIVE_SUV_TOLERANCE = 1e-3
# The median SUV of the body lies here in any FDG or PSMA study; far from it the unit is not SUV.
PLAUSIBLE_BODY_MEDIAN_SUV = (0.3, 3.0)


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


def without_suffix(path: Path | str, suffixes: tuple[str, ...] = VOLUME_SUFFIXES) -> str:
    """File name of `path` without its suffix: `NAME.nii.gz` → `NAME`.

    Args:
        path: with or without folders.
        suffixes: lower case, tried in this order; upper case in the name counts too. A name
            without any of them is returned whole.
    """
    name = Path(path).name
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def read_image(path: Path | str) -> sitk.Image:
    """Image of any type that SimpleITK reads.

    Raises:
        MipError: the file is missing, truncated, or not an image.
    """
    path = Path(path)
    if not path.is_file():
        raise MipError(f"{path}: no such file")
    require_readable(path)
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
    """Volume of a 3D scalar image, in canonical axes.

    Raises:
        MipError: unreadable, not 3D, more than one value a voxel, empty, or oblique.
    """
    path = Path(path)
    header = read_header(path)
    if header.GetDimension() != 3:
        raise MipError(
            f"{path}: has {header.GetDimension()} dimensions, a volume has 3 "
            "(split a dynamic or multi-frame image first)"
        )
    if values_per_voxel(header) != 1:
        raise MipError(f"{path}: has several values per voxel, one is expected")
    grid = SourceGrid.of_image(header)
    if min(grid.size) < 1 or max(grid.size) == 1:
        raise MipError(f"{path}: is empty ({grid.describe()})")
    if not grid.is_axis_aligned:
        raise MipError(
            f"{path}: is oblique to the body axes; resample it to an axis-aligned grid first"
        )
    return Volume(grid.to_canonical(read_voxels(path, header)), grid, path)


def read_header(path: Path | str) -> sitk.Image | sitk.ImageFileReader:
    """Size, spacing and axes of an image; of NIfTI without its voxels, of other files the image.

    Raises:
        MipError: the file is missing, or its header cannot be read.
    """
    path = Path(path)
    if not has_suffix(path, NIFTI_SUFFIXES):
        return read_image(path)
    if not path.is_file():
        raise MipError(f"{path}: no such file")
    require_readable(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from None
    return reader


def read_voxels(path: Path, header: sitk.Image | sitk.ImageFileReader) -> np.ndarray:
    """Voxels of an image whose header was read by `read_header`, in the order of the file.

    Returns:
        (k, j, i) of a 3D image.

    Raises:
        MipError: truncated or damaged. ITK fills a truncated NIfTI with zeros, so `nifti` reads it.
    """
    image = header if isinstance(header, sitk.Image) else None
    voxels = read_nifti_voxels(path) if image is None else None
    if voxels is None:
        voxels = sitk.GetArrayFromImage(image if image is not None else read_image(path))
    return voxels.reshape(header.GetSize()[::-1])


def values_per_voxel(header: sitk.Image | sitk.ImageFileReader) -> int:
    """Number of values of a voxel: 1 of a scalar image."""
    if isinstance(header, sitk.Image):
        return header.GetNumberOfComponentsPerPixel()
    return header.GetNumberOfComponents()


def read_suv(path: Path | str) -> Volume:
    """PET volume in SUV, float32.

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
    """Binary mask (0 and one other value) as a volume of 0 and 1, uint8.

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
    """Check that two volumes lie on one grid.

    Raises:
        MipError: they do not; names both files.
    """
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
    """Warning, one line, where the values can hardly be SUV (wrong unit), else None."""
    median = body_median_suv(volume.array)
    low, high = PLAUSIBLE_BODY_MEDIAN_SUV
    if low <= median <= high:
        return None
    return (
        f"{volume.path}: the median of the body is {median:.4g}, SUV would give "
        f"{low:g} to {high:g}; is this Bq/ml or another unit?"
    )


def image_on_grid(array: np.ndarray, grid: SourceGrid) -> sitk.Image:
    """Image of a canonical (z, y, x) array, with exactly the header of its source grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(grid.from_canonical(array)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def check_written(path: Path) -> None:
    """Check that a file of this type is written; a header beside its voxels (.mhd) is read only.

    Raises:
        MipError: it is not.
    """
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
