"""Volumes on disk and in canonical axes: reading, checking, and writing back onto the source grid.

A volume in memory is an array (z, y, x) in canonical LPS axes: x to the patient's left, y to the
back, z to the head. `SourceGrid` remembers the grid of the file, so that a mask computed in
canonical axes is written with exactly the header of its source.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.image_header import NIFTI_SUFFIXES, read_header, read_voxels
from nnunetv2_mip.io.nifti_forms import HEADER_BYTES, NiftiForms
from nnunetv2_mip.io.voxel_size import in_plausible_unit
from nnunetv2_mip.wording import counted

# Negative SUV down to this is rounding of a resampler, and not told.
NEGATIVE_SUV_ROUNDING = 1e-3
# Noise around 0 (filtered backprojection, undershoot of a resampler) is less than this share of the
# uptake: its lowest value of the highest, and its sum of the positive sum. HU have more of either.
MOST_NEGATIVE_SHARE = 0.5
# Lesions fill less than this share of a volume: most of it is air.
MOST_LESION_SHARE = 0.5
# The median SUV of the body lies here in any FDG or PSMA study; far from it the unit is not SUV.
PLAUSIBLE_BODY_MEDIAN_SUV = (0.3, 3.0)


@dataclass(frozen=True)
class Volume:
    """A 3D image in canonical axes.

    Attributes:
        array: (z, y, x), LPS.
        grid: the grid of the file it came from.
        path: that file (for messages).
        warnings: reasons why its header or its values are in doubt, one line each for the user.
    """

    array: np.ndarray
    grid: SourceGrid
    path: Path
    warnings: tuple[str, ...] = ()

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


def read_volume(path: Path | str) -> Volume:
    """Volume of a 3D scalar image, in canonical axes.

    Raises:
        MipError: unreadable, not 3D, more than one value a voxel, empty, or oblique.
    """
    path = Path(path)
    header = read_header(path)
    if header.grid is None:
        raise MipError(
            f"{path}: has {header.dimensions} dimensions, a volume has 3 "
            "(split a dynamic or multi-frame image first)"
        )
    if header.values != 1:
        raise MipError(f"{path}: has several values per voxel, one is expected")
    grid, doubts = checked_grid(header.grid, path)
    warnings = tuple(f"{path}: {reason}" for reason in (*header.warnings, *doubts))
    return Volume(grid.to_canonical(read_voxels(header)), grid, path, warnings)


def checked_grid(grid: SourceGrid, path: Path) -> tuple[SourceGrid, list[str]]:
    """Grid of a volume in mm, and the reasons why its voxel size is in doubt.

    Args:
        grid: as a header gives it.
        path: of the file, for messages.

    Raises:
        MipError: the grid is empty, oblique, or has voxels of a size that no unit explains.
    """
    if min(grid.size) < 1 or max(grid.size) == 1:
        raise MipError(f"{path}: is empty ({grid.describe()})")
    if not grid.is_axis_aligned:
        raise MipError(
            f"{path}: is oblique to the body axes; resample it to an axis-aligned grid first"
        )
    return in_plausible_unit(grid, str(path))


def read_suv(path: Path | str) -> Volume:
    """PET volume in SUV, float32.

    Raises:
        MipError: as `read_volume` and `suv_of_volume`.
    """
    return suv_of_volume(read_volume(path))


def suv_of_volume(volume: Volume) -> Volume:
    """The volume as float32 SUV, after a check of its values; negative noise counts as 0.

    Raises:
        MipError: NaN or infinite values, negative SUV, or all zero.
    """
    path = volume.path
    array = np.ascontiguousarray(volume.array, dtype=np.float32)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MipError(f"{path}: contains NaN or infinite values; SUV must be finite everywhere")
    array, told = without_negative(array, path, low)
    if high <= 0:
        raise MipError(f"{path}: is empty (no value above 0)")
    return Volume(array, volume.grid, volume.path, (*volume.warnings, *told))


def without_negative(
    array: np.ndarray, name: Path | str, low: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """SUV with its negative voxels at 0, and a line that tells how many there were.

    Args:
        array: SUV, finite; changed where it may be written.
        name: of the file, for messages.
        low: the lowest value of `array`.

    Returns:
        the array, and no line where the negative values are rounding only.

    Raises:
        MipError: the negative values are so many that they are no SUV.
    """
    if low >= 0:
        return array, ()
    count, total = np.count_nonzero(array < 0), float(array.sum())
    array = np.maximum(array, 0, out=array if array.flags.writeable else None)
    if low >= -NEGATIVE_SUV_ROUNDING:
        return array, ()
    above = float(array.sum())
    share = MOST_NEGATIVE_SHARE
    if low <= -share * float(array.max()) or above - total > share * above:
        raise MipError(
            f"{name}: has negative values (lowest {low:.4g}, in all {(total - above):.4g} against "
            f"{above:.4g} of the positive ones), so it is not SUV; is it the CT, or a PET without "
            "its rescale slope?"
        )
    return array, (
        f"{name}: {counted(int(count), 'voxel', 'is')} below 0 (lowest {low:.4g}) and read as 0",
    )


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
    return mask_of_volume(volume)


def mask_of_volume(volume: Volume) -> Volume:
    """A volume of 0 and one other value as a mask of 0 and 1, uint8.

    Raises:
        MipError: it has more than two values.
    """
    # In the order of the file, where numpy is fast.
    voxels = volume.grid.from_canonical(volume.array)
    foreground = voxels != 0
    value = voxels.max() or voxels.min()
    if value != 0 and not np.array_equal(foreground, voxels == value):
        values = np.unique(voxels)
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise MipError(
            f"{volume.path}: is not a binary mask (values {shown}{', …' * (len(values) > 6)})"
        )
    mask = np.ascontiguousarray(volume.grid.to_canonical(foreground)).view(np.uint8)
    doubt = inverted_warning(foreground, volume.path)
    warnings = (*volume.warnings, *((doubt,) if doubt else ()))
    return Volume(mask, volume.grid, volume.path, warnings)


def inverted_warning(mask: np.ndarray, path: Path) -> str | None:
    """A line where most voxels of a mask are marked, as if lesions and the rest were exchanged."""
    if np.count_nonzero(mask) <= MOST_LESION_SHARE * mask.size:
        return None
    return f"{path}: marks more than half of all voxels; is the mask inverted?"


def require_same_grid(volume: Volume, like: Volume) -> None:
    """Check that two volumes have the same voxels, in whatever order their files store them.

    Raises:
        MipError: they do not; names both files.
    """
    if volume.grid.same_as(like.grid):
        return
    remedy = "resample it to that grid"
    doubtful = next((one for one in (volume, like) if one.warnings), None)
    if doubtful is not None:
        reason = doubtful.warnings[0].removeprefix(f"{doubtful.path}: ")
        remedy += f", or correct the header of {doubtful.path.name}: {reason}"
    raise MipError(
        f"{volume.path}: lies on another grid than {like.path} "
        f"({volume.grid.difference(like.grid)}); {remedy}"
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


def write_image(image: sitk.Image, path: Path | str, forms: NiftiForms | None = None) -> None:
    """Write an image, compressed, whole or not at all; missing folders are made.

    Args:
        image: to write.
        path: the file; its suffix chooses the format.
        forms: geometry fields that a NIfTI file gets instead of those that ITK writes.
    """
    path = Path(path)
    if not has_suffix(path, VOLUME_SUFFIXES):
        raise MipError(f"{path}: unknown image type; use one of {', '.join(VOLUME_SUFFIXES)}")
    check_written(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        if forms is None or forms.is_exact or not has_suffix(path, NIFTI_SUFFIXES):
            sitk.WriteImage(image, str(partial), useCompression=True)
        else:
            _write_nifti(image, partial, forms)


def _write_nifti(image: sitk.Image, path: Path, forms: NiftiForms) -> None:
    """Write a NIfTI file with geometry fields that ITK does not write."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        plain = Path(folder) / "image.nii"
        sitk.WriteImage(image, str(plain))
        content = plain.read_bytes()
    content = forms.put_into(content[:HEADER_BYTES]) + content[HEADER_BYTES:]
    if has_suffix(path, (".gz",)):
        content = bytes(imagecodecs.gzip_encode(content, level=6))
    path.write_bytes(content)


def write_volume(array: np.ndarray, grid: SourceGrid, path: Path | str) -> None:
    """Write a canonical (z, y, x) array onto its source grid (same header as the source file)."""
    write_image(image_on_grid(array, grid.as_stored()), path, grid.forms)
