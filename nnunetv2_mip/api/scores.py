"""Scores of one case of the API: a mask against the truth, as the evaluate command scores it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.api.studies import as_volume
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.case_scores import (
    ImageScores,
    VolumeScores,
    image_scores,
    volume_scores,
)
from nnunetv2_mip.inference.results import ImageResult, VolumeResult
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.png_masks import decode_mask_png, decode_truth_png
from nnunetv2_mip.io.volumes import Volume, has_suffix, mask_of_volume, require_same_grid

# Result, path of a mask, image, array, or (array, spacing in mm).
MaskSource: TypeAlias = (
    VolumeResult
    | ImageResult
    | Path
    | str
    | sitk.Image
    | np.ndarray
    | tuple[np.ndarray, Sequence[float]]
)


def evaluate(
    prediction: MaskSource, truth: MaskSource, *, min_overlap: float = 0.0
) -> VolumeScores | ImageScores:
    """Scores of a mask against the truth: Dice, false volumes, HD95, lesions found.

    Args:
        prediction: result of a prediction, path of a mask (NIfTI, MHA, NRRD, PNG), SimpleITK
            image, (array, spacing), or an array in the axes of the other mask (`VolumeResult.mask`
            has those of its input).
        truth: likewise. Masks hold 0 and one other value.
        min_overlap: share of a lesion that must be overlapped to count as found; 0 is any overlap.

    Returns:
        `VolumeScores` of volumes, `ImageScores` of images. NaN where a score is not defined: Dice
        of a truth without lesions.

    Raises:
        MipError: a mask that cannot be read, another size or grid, or two arrays of volumes
            without their voxel size.
    """
    predicted, true = _mask(prediction, "prediction"), _mask(truth, "truth", is_truth=True)
    if predicted.is_image != true.is_image:
        raise MipError("evaluate: one mask is of an image, the other of a volume")
    if predicted.is_image:
        _require_shape(predicted.array, true.array)
        return image_scores(predicted.array, true.array, min_overlap)
    if predicted.volume is None and true.volume is None:
        raise MipError(
            "evaluate: two arrays of volumes need their voxel size: give one as (array, spacing), "
            "both in the order (z, y, x), spacing in mm"
        )
    if predicted.volume is not None and true.volume is not None:
        require_same_grid(predicted.volume, true.volume)
    grid = (true.volume or predicted.volume).grid  # type: ignore[union-attr]
    arrays = []
    for part in (predicted, true):
        if part.volume is None:
            if part.array.shape != grid.size[::-1]:
                raise MipError(
                    f"{part.name}: has shape {part.array.shape}, the other mask {grid.size[::-1]}"
                )
            arrays.append(grid.to_canonical(part.array))
        else:
            arrays.append(part.volume.array)
    return volume_scores(arrays[0], arrays[1], grid.spacing_zyx, min_overlap)


@dataclass(frozen=True)
class _Mask:
    """Mask of one side.

    Attributes:
        name: in messages.
        array: as it was given, or of an image.
        volume: with its grid; None of an image, and of an array alone.
        is_image: 2D.
    """

    name: str
    array: np.ndarray
    volume: Volume | None
    is_image: bool


def _mask(source: MaskSource, name: str, is_truth: bool = False) -> _Mask:
    if isinstance(source, ImageResult):
        return _Mask(name, source.mask, None, True)
    if isinstance(source, VolumeResult):
        volume = Volume(source.canonical_mask, source.grid, Path(source.case))
        return _Mask(name, volume.array, volume, False)
    if isinstance(source, Path | str) and has_suffix(Path(source), (PNG_SUFFIX,)):
        decode = decode_truth_png if is_truth else decode_mask_png
        return _Mask(name, decode(Path(source)), None, True)
    if isinstance(source, sitk.Image) and source.GetDimension() == 2:
        source = sitk.GetArrayFromImage(source)
    if isinstance(source, np.ndarray):
        if source.ndim not in (2, 3):
            raise MipError(f"{name}: has {source.ndim} dimensions, a mask has 2 or 3")
        if np.unique(source[source != 0]).size > 1:
            raise MipError(f"{name}: is not a mask of 0 and one other value")
        return _Mask(name, source, None, source.ndim == 2)
    volume = mask_of_volume(as_volume(source, name))
    return _Mask(name, volume.array, volume, False)


def _require_shape(predicted: np.ndarray, true: np.ndarray) -> None:
    if predicted.shape != true.shape:
        raise MipError(f"evaluate: the masks have shapes {predicted.shape} and {true.shape}")
