"""Studies and images of the API: from files, DICOM folders, SimpleITK images and arrays."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io import read_study as study_files
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.in_memory import study_of_volumes, volume_of_array, volume_of_image
from nnunetv2_mip.io.png import PNG_SUFFIX, PngImage, read_png
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume, has_suffix, read_volume
from nnunetv2_mip.views.stack_files import is_stack_file

# Path of a file or of a DICOM folder, image, or (array (z, y, x), spacing (z, y, x) in mm).
VolumeSource: TypeAlias = Path | str | sitk.Image | tuple[np.ndarray, Sequence[float]]


def read_study(
    source: VolumeSource | Study,
    ct: VolumeSource | None = None,
    seg: VolumeSource | None = None,
    *,
    with_ct: bool = False,
    options: DicomOptions = FROM_HEADERS,
) -> Study:
    """Study of a PET in SUV, with its CT and lesion mask on the same grid.

    Volumes of a study are arrays (z, y, x) in canonical LPS axes (x to the patient's left, y to the
    back, z to the head), whatever the orientation of the file; `study.grid` knows the way back.

    Args:
        source: SUV volume as a path (NIfTI, MHA, NRRD), a folder with the DICOM series of one
            study, a SimpleITK image of any orientation, or (array, spacing): (z, y, x) in canonical
            axes and mm in the order of these axes. A study is returned as it is.
        ct: CT in HU on the same grid, in any of these forms but a folder. Of a DICOM folder it is
            found there (`with_ct`).
        seg: lesion mask on the same grid, 0 and one other value; with a path as `source` also a
            DICOM SEG or RTSTRUCT.
        with_ct: read the CT series of a DICOM folder, resampled to the grid of the PET.
        options: of a DICOM folder: series, weight, dose, time of injection.

    Returns:
        study with `suv`, `ct`, `seg` (each with `array`, `grid`, `spacing_mm`) and `warnings`.

    Raises:
        MipError: what cannot be read, is no SUV, or lies on another grid.
    """
    if isinstance(source, Study):
        if ct is not None or seg is not None:
            raise MipError("read_study: CT and mask go with a path, an image or an array")
        return source
    files = [part for part in (source, ct, seg) if isinstance(part, Path | str)]
    given = [part for part in (source, ct, seg) if part is not None]
    if isinstance(source, Path | str) and len(files) == len(given):
        _require_volume_path(Path(source))
        return study_files.read_study(
            source,
            ct if isinstance(ct, Path | str) else None,
            seg if isinstance(seg, Path | str) else None,
            wants_ct=with_ct or ct is not None,
            options=options,
        )
    if isinstance(source, Path | str) and Path(source).is_dir():
        raise MipError(f"{source}: CT and mask of a DICOM folder are given as paths")
    options.require_dicom(source if isinstance(source, Path | str) else "an array or image")
    return study_of_volumes(
        as_volume(source),
        None if ct is None else as_volume(ct, "ct"),
        None if seg is None else as_volume(seg, "seg"),
    )


def as_volume(source: object, name: str | None = None) -> Volume:
    """Volume of a path, a SimpleITK image, or (array, spacing).

    Args:
        source: see `VolumeSource`; a path is that of a file.
        name: of what has no file, in messages; None is `image` or `array`.

    Raises:
        MipError: another kind of input, or a volume that cannot be read.
    """
    if isinstance(source, Path | str):
        _require_volume_path(Path(source))
        return read_volume(source)
    if isinstance(source, sitk.Image):
        return volume_of_image(source, name or "image")
    if isinstance(source, tuple) and len(source) == 2:
        array, spacing_mm = source
        return volume_of_array(np.asarray(array), spacing_mm, name or "array")
    if isinstance(source, np.ndarray):
        raise MipError(
            f"{name or 'array'}: an array of a volume needs its voxel size: give (array, spacing), "
            "both in the order (z, y, x), spacing in mm"
        )
    raise MipError(
        f"{name or 'input'}: {type(source).__name__} cannot be read; give a path, a SimpleITK "
        "image, or (array, spacing)"
    )


def is_image_source(source: object) -> bool:
    """Whether an input is a MIP-PET image: the bytes of a PNG, or pixels (H, W) or (H, W, 3)."""
    if isinstance(source, bytes):
        return True
    return isinstance(source, np.ndarray) and (
        source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
    )


def as_image(source: bytes | np.ndarray, name: str = "image") -> PngImage:
    """Decoded MIP-PET image; dark is uptake, as in the file.

    Args:
        source: bytes of a PNG, or its pixels: uint8, grey (H, W), RGB or RGBA.
        name: in messages.

    Raises:
        MipError: no image, or pixels of another type.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or 0 in source.shape:
            raise MipError(
                f"{name}: pixels {source.shape} of type {source.dtype}; an image is uint8 "
                "(0 to 255, dark is uptake), a volume is given as (array, spacing)"
            )
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(source)).save(stream, "PNG", compress_level=0)
        source = stream.getvalue()
    return read_png(source, name)


def _require_volume_path(path: Path) -> None:
    """Check that a path is none of an image or of views: MipError otherwise."""
    if has_suffix(path, (PNG_SUFFIX,)):
        raise MipError(f"{path}: is an image, which Predictor.predict takes; a volume is expected")
    if path.is_file() and is_stack_file(path):
        raise MipError(f"{path}: is a stack of views; give the volume that it was projected from")
