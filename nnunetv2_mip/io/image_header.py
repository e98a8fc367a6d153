"""Headers of image files: size, spacing and axes, judged before the voxels are used.

NIfTI headers are read by `io.nifti_geometry` where they contradict themselves or say too little,
by ITK otherwise; MHA and NRRD by ITK.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import require_readable
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.nifti import MOST_ITEM_BYTES, item_bytes, read_nifti_header, read_nifti_voxels
from nnunetv2_mip.io.nifti_geometry import NiftiGeometry, equal_grids, nifti_geometry

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# Of the messages of ITK on MHA and NRRD files.
_NO_VOXEL_SIZE = ("Zero-valued spacing", "_nrrdFieldCheck_spacings")
# Fields of a MHA header, one of which gives its axes.
_MHA_AXES = (b"TransformMatrix", b"Rotation", b"\nOrientation")
_MHA_HEADER_BYTES = 2**14
_NO_ORIENTATION = (
    "its header has no orientation, which is read as left-posterior-superior; left and right, "
    "front and back may be exchanged"
)
# ITK writes what it doubts to the terminal, in lines that name its own source files. What matters
# here is said by the warnings of `ImageHeader`.
sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True)
class ImageHeader:
    """Header of an image file.

    Attributes:
        path: the file.
        size: voxels along its index axes (i, j, k, …).
        values: number of values of a voxel: 1 of a scalar image.
        item_bytes: size of one value in the file.
        grid: of a 3D image, else None.
        warnings: reasons why the header is in doubt, without the name of the file.
        image: the image itself, of files that are read in one go.
        nifti: fields of a NIfTI header, for the voxels; None of other files.
    """

    path: Path
    size: tuple[int, ...]
    values: int
    item_bytes: int
    grid: SourceGrid | None
    warnings: tuple[str, ...] = ()
    image: sitk.Image | None = None
    nifti: np.void | None = None

    @property
    def dimensions(self) -> int:
        return len(self.size)


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
    with path.open("rb") as stream:
        if stream.read(4) == b"PK\3\4":
            return MipError(
                f"{path}: is a zip archive; unpack it and give the folder or file in it"
            )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "unknown reason"
    if any(text in str(error) for text in _NO_VOXEL_SIZE):
        return MipError(
            f"{path}: has a voxel size of 0 in its header, or none ({reason}); write it with the "
            "voxel size of its source"
        )
    return MipError(
        f"{path}: cannot be read (truncated, damaged or not an image; copy it again): {reason}"
    )


def read_header(path: Path | str, *, with_voxels: bool = True) -> ImageHeader:
    """Header of an image file.

    Args:
        path: the file.
        with_voxels: whether the voxels are wanted next. ITK reads files other than NIfTI in one
            go then.

    Raises:
        MipError: the file is missing, or its header cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise MipError(f"{path}: no such file")
    require_readable(path)
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return _itk_header(path, read_image(path) if with_voxels else None)
    fields = read_nifti_header(path)
    if fields is None:
        return _itk_header(path)
    found = nifti_geometry(fields, path)
    grid = found.grid
    if grid is None or grid.forms is None or not grid.forms.is_plain:
        return _of_nifti(path, found, fields)
    header = _itk_header(path)
    # Where ITK reads it otherwise after all, its reading is not taken.
    if header.grid is None or not header.grid.same_as(grid):
        return _of_nifti(path, found, fields)
    exact = grid.forms.is_exact and equal_grids(header.grid, grid)
    forms = replace(grid.forms, is_exact=exact)
    return replace(header, grid=replace(header.grid, forms=forms), nifti=fields)


def _of_nifti(path: Path, found: NiftiGeometry, fields: np.void) -> ImageHeader:
    item = item_bytes(fields)
    return ImageHeader(
        path, found.size, found.values, item, found.grid, found.warnings, nifti=fields
    )


def _itk_header(path: Path, image: sitk.Image | None = None) -> ImageHeader:
    """Header as ITK reads it, of `image` where that is there."""
    if image is not None:
        values = image.GetNumberOfComponentsPerPixel()
        source: sitk.Image | sitk.ImageFileReader = image
    else:
        source = sitk.ImageFileReader()
        source.SetFileName(str(path))
        try:
            source.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(path, error) from None
        values = source.GetNumberOfComponents()
    is_3d = source.GetDimension() == 3
    grid = SourceGrid.of_image(source) if is_3d else None
    warnings = () if _has_orientation(path, source) else (_NO_ORIENTATION,)
    kind = source.GetPixelIDValue()
    item = sitk.Image([1, 1], kind).GetSizeOfPixelComponent() if kind >= 0 else MOST_ITEM_BYTES
    return ImageHeader(path, source.GetSize(), values, item, grid, warnings, image=image)


def _has_orientation(path: Path, source: sitk.Image | sitk.ImageFileReader) -> bool:
    """Whether the header of a MHA or NRRD file gives its axes in the body; True of other files."""
    name = path.name.lower()
    if name.endswith(".nrrd"):
        space = source.GetMetaData("NRRD_space") if source.HasMetaDataKey("NRRD_space") else ""
        # Of `3D-right-handed` and the like nothing is known but the hand.
        return bool(space) and not space.lower().startswith("3d")
    if name.endswith((".mha", ".mhd")):
        with path.open("rb") as stream:
            head = stream.read(_MHA_HEADER_BYTES)
        head = head.partition(b"ElementDataFile")[0]
        return any(field in head for field in _MHA_AXES)
    return True


def read_voxels(header: ImageHeader) -> np.ndarray:
    """Voxels of an image whose header was read by `read_header`, in the order of the file.

    Returns:
        (k, j, i) of a 3D image.

    Raises:
        MipError: truncated or damaged. ITK fills a truncated NIfTI with zeros, so `nifti` reads it.
    """
    voxels = None
    if header.image is not None:
        voxels = sitk.GetArrayFromImage(header.image)
    elif header.nifti is not None:
        voxels = read_nifti_voxels(header.path, header.nifti)
    if voxels is None:
        voxels = sitk.GetArrayFromImage(read_image(header.path))
    return voxels.reshape(header.size[::-1])
