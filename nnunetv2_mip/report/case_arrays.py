"""Arrays of a case: image, truth and prediction, on one grid."""

from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import IGNORE_LABEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.masks import is_dicom_file, read_dicom_mask_on
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.io.png_masks import decode_mask_png, decode_truth_png
from nnunetv2_mip.io.read_study import new_warnings, read_study
from nnunetv2_mip.io.volumes import Volume, read_mask, require_same_grid
from nnunetv2_mip.report.case_files import CaseFiles
from nnunetv2_mip.views.stack_files import read_stack


def read_png_case(
    files: CaseFiles,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Levels, truth and prediction of a PNG, each (H, W) uint8 or None.

    Raises:
        MipError: a file that cannot be read, or files of different sizes.
    """
    levels = None if files.image is None else decode_png(files.image)
    if files.truth is None:
        truth = None
    elif files.is_control_image:
        truth = np.zeros(decode_png(files.truth).shape, np.uint8)
    else:
        truth = decode_truth_png(files.truth)
    prediction = None if files.prediction is None else decode_mask_png(files.prediction)
    if files.is_missing and truth is not None:
        prediction = np.zeros_like(truth)
    known = [
        (path, array.shape)
        for path, array in (
            (files.image, levels),
            (files.truth, truth),
            (files.prediction, prediction),
        )
        if path is not None and array is not None
    ]
    for path, shape in known[1:]:
        _require_equal(shape, known[0][1], path, known[0][0])
    return levels, truth, prediction


def read_stack_case(
    files: CaseFiles,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, tuple[float, float]]:
    """Levels, truth and prediction of a stack, and its (row, column) spacing in mm.

    The arrays are (V, H, W) uint8, None where there is no file.

    Raises:
        MipError: a file that cannot be read, or files of different sizes.
    """
    arrays: list[np.ndarray | None] = []
    first: tuple[Path, tuple[int, ...], tuple[float, ...]] | None = None
    for path in (files.image, files.truth, files.prediction):
        if path is None:
            arrays.append(None)
            continue
        stack, spacing = read_stack(path)
        if first is None:
            first = path, stack.shape, spacing[1:]
        _require_equal(stack.shape, first[1], path, first[0])
        arrays.append(stack)
    if first is None:
        raise MipError(f"{files.case}: has no file to read")
    levels, truth, prediction = arrays
    if levels is not None:
        levels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    # As in the evaluation: ignored pixels are background in both masks; any mark is a lesion.
    if prediction is not None:
        prediction = prediction != 0
        if truth is not None:
            prediction &= truth != IGNORE_LABEL
        prediction = prediction.astype(np.uint8)
    if truth is not None:
        truth = (truth == 1).astype(np.uint8)
        if files.is_missing:
            prediction = np.zeros_like(truth)
    row_mm, column_mm = first[2]
    return levels, truth, prediction, (float(row_mm), float(column_mm))


def read_volume_case(
    files: CaseFiles,
) -> tuple[Volume | None, Volume | None, Volume | None, list[str]]:
    """SUV, truth and prediction of a volume, and the warnings about its image.

    The volumes lie on one grid; None where there is no file.

    Raises:
        MipError: a file that cannot be read, or files on different grids.
    """
    study = None if files.image is None else read_study(files.image, options=files.dicom)
    suv, warnings = (None, []) if study is None else (study.suv, list(study.warnings))
    prediction = _read_mask(files.prediction, suv, None, warnings)
    truth = _read_mask(files.truth, suv, prediction, warnings)
    known = suv
    for mask in (truth, prediction):
        if mask is not None:
            warnings += mask.warnings if known is None else new_warnings(mask, known)
            known = known or mask
    if files.is_missing and truth is not None:
        prediction = Volume(np.zeros_like(truth.array), truth.grid, truth.path)
    if suv is None and truth is not None and prediction is not None:
        require_same_grid(prediction, truth)
    return suv, truth, prediction, warnings


def _read_mask(
    path: Path | None, suv: Volume | None, other: Volume | None, warnings: list[str]
) -> Volume | None:
    """Mask of a file, on the grid of the SUV; None where there is no file.

    Without SUV a DICOM mask is put on the grid of the other mask.
    """
    if path is None:
        return None
    if not is_dicom_file(path):
        return read_mask(path, like=suv)
    like = suv if suv is not None else other
    if like is None:
        raise MipError(f"{path}: a DICOM mask has no grid of its own; name the PET with --images")
    return read_dicom_mask_on(path, like.grid, warnings.append)


def _require_equal(shape: tuple, other: tuple, path: Path, other_path: Path) -> None:
    if shape != other:
        raise MipError(
            f"{path}: has {_pixels(shape)} pixels but {other_path} has {_pixels(other)}; "
            "they must agree"
        )


def _pixels(shape: tuple) -> str:
    return "x".join(str(n) for n in reversed(shape))
