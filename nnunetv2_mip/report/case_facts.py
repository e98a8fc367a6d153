"""What a report tells of a case in numbers: size, spacing, uptake, lesions found and missed."""

import zlib
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tqdm import tqdm

from nnunetv2_mip.conventions import BODY_LEVEL, IGNORE_LABEL, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.png import decode_mask_png, decode_png
from nnunetv2_mip.io.read_study import read_pet
from nnunetv2_mip.io.volumes import (
    Volume,
    body_median_suv,
    read_mask,
    require_same_grid,
    suv_warning,
)
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.lesions.region_table import region_table
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.report.case_files import Source
from nnunetv2_mip.views.stack_files import read_stack


@dataclass(frozen=True)
class Facts:
    """One case in numbers.

    Attributes:
        case: its name.
        kind: `png`, `volume` or `stack`.
        size: pixels or voxels along (x, y) or (x, y, z); of a stack (columns, rows, views).
        spacing_mm: of the same axes, without the axis of the views.
        burden: what is marked as lesion in the truth: ml (volumes, and stacks whose lesions are
            known), else cm² (mean over the views that show some); None without truth.
        predicted_burden: likewise in the prediction.
        unit: of both, `ml` or `cm²`.
        lesions: rows of `lesion_table`, or of `region_table` for images of one view; `hit` where
            there is a prediction: found. Stacks of many views: rows of their lesion file.
        predicted: rows of the prediction; `hit` where there is a truth: right.
        uptake: median SUV of the body (volumes), or mean level of the body (0–255); None without
            an image.
        highest: highest SUV, or level.
        digest: checksum of the image's values, to find the same image twice.
        warnings: lines for the reader.
    """

    case: str
    kind: str
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    burden: float | None
    predicted_burden: float | None
    unit: str
    lesions: list[dict] | None
    predicted: list[dict] | None
    uptake: float | None
    highest: float | None
    digest: int | None
    warnings: list[str] = field(default_factory=list)


def read_all_facts(
    sources: list[Source],
    min_overlap: float = 0.0,
    processes: int = 1,
    show_progress: bool = False,
    title: str = "cases",
) -> list[Facts]:
    """The facts of every source, in their order.

    Raises:
        MipError: see `read_facts`.
    """
    found = {}
    work = partial(read_facts, min_overlap=min_overlap)
    with tqdm(total=len(sources), desc=title, unit="case", disable=not show_progress) as bar:
        for source, facts in for_each(work, sources, processes):
            found[source.case] = facts
            bar.update()
    return [found[source.case] for source in sources]


def read_facts(source: Source, min_overlap: float = 0.0) -> Facts:
    """Read a case.

    Raises:
        MipError: a file that cannot be read, or files that do not fit each other.
    """
    return {"png": _of_png, "volume": _of_volume, "stack": _of_stack}[source.kind](
        source, min_overlap
    )


def read_png_case(
    source: Source,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Levels, truth and prediction of an image, each (H, W) uint8 or None.

    Raises:
        MipError: unreadable, or of different sizes.
    """
    levels = None if source.image is None else decode_png(source.image)
    if source.truth is None:
        truth = None
    elif source.is_control_image:
        truth = np.zeros(decode_png(source.truth).shape, np.uint8)
    else:
        truth = decode_mask_png(source.truth)
    prediction = None if source.prediction is None else decode_mask_png(source.prediction)
    if source.is_missing:
        prediction = np.zeros_like(truth)
    known = [
        (path, array)
        for path, array in (
            (source.image, levels),
            (source.truth, truth),
            (source.prediction, prediction),
        )
        if array is not None
    ]
    for path, array in known[1:]:
        if path is None:
            continue
        _require_equal(array.shape, known[0][1].shape, path, known[0][0])
    return levels, truth, prediction


def read_stack_case(
    source: Source,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, tuple[float, float]]:
    """Levels, truth and prediction of a stack, (V, H, W) or None, and its pixels in mm.

    Raises:
        MipError: unreadable, or of different sizes.
    """
    arrays, first, pixel_mm = [], None, None
    for path in (source.image, source.truth, source.prediction):
        if path is None:
            arrays.append(None)
            continue
        stack, spacing = read_stack(path)
        if first is not None:
            _require_equal(stack.shape, first[1], path, first[0])
        first, pixel_mm = first or (path, stack.shape), pixel_mm or spacing[1:]
        arrays.append(stack)
    levels, truth, prediction = arrays
    if levels is not None:
        levels = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    # As the evaluation has it: an ignored pixel is background in both, and any other mark a lesion.
    if prediction is not None:
        prediction = prediction != 0
        if truth is not None:
            prediction &= truth != IGNORE_LABEL
    masks = [
        None if mask is None else mask.astype(np.uint8)
        for mask in (None if truth is None else truth == 1, prediction)
    ]
    if source.is_missing:
        masks[1] = np.zeros_like(masks[0])
    return levels, *masks, tuple(float(value) for value in pixel_mm)


def _require_equal(shape: tuple, other: tuple, path, other_path) -> None:
    if shape != other:
        raise MipError(
            f"{path}: has {_pixels(shape)} pixels but {other_path} has {_pixels(other)}; "
            "they must agree"
        )


def _pixels(shape: tuple) -> str:
    return "x".join(str(n) for n in reversed(shape))


def _of_png(source: Source, min_overlap: float) -> Facts:
    levels, truth, prediction = read_png_case(source)
    return _of_image(source, levels, truth, prediction, (PNG_PIXEL_MM, PNG_PIXEL_MM), min_overlap)


def _of_image(source, levels, truth, prediction, pixel_mm, min_overlap) -> Facts:
    """Facts of one view: arrays (H, W) or None."""
    shape = next(array.shape for array in (levels, truth, prediction) if array is not None)
    rows = {}
    for name, mask, other in (("truth", truth, prediction), ("prediction", prediction, truth)):
        rows[name] = None
        if mask is not None:
            rows[name] = region_table(mask, levels, pixel_mm, None, other, min_overlap)
    pixel_cm2 = pixel_mm[0] * pixel_mm[1] / 100
    return Facts(
        case=source.case,
        kind=source.kind,
        size=(*shape[::-1],) if source.kind == "png" else (*shape[::-1], 1),
        spacing_mm=pixel_mm[::-1],
        burden=None if truth is None else float(np.count_nonzero(truth)) * pixel_cm2,
        predicted_burden=(
            None if prediction is None else float(np.count_nonzero(prediction)) * pixel_cm2
        ),
        unit="cm²",
        lesions=rows["truth"],
        predicted=rows["prediction"],
        **_of_levels(levels),
        warnings=_blank(levels),
    )


def _of_levels(levels: np.ndarray | None) -> dict:
    if levels is None:
        return {"uptake": None, "highest": None, "digest": None}
    body = levels[levels > BODY_LEVEL]
    return {
        "uptake": float(body.mean()) if body.size else 0.0,
        "highest": float(levels.max()),
        "digest": zlib.crc32(np.ascontiguousarray(levels), levels.shape[-1]),
    }


def _blank(levels: np.ndarray | None) -> list[str]:
    if levels is None or levels.max() > levels.min():
        return []
    return ["the image is blank (one value everywhere)"]


def _of_stack(source: Source, min_overlap: float) -> Facts:
    levels, truth, prediction, pixel_mm = read_stack_case(source)
    known = next(array for array in (levels, truth, prediction) if array is not None)
    if len(known) == 1:
        first = [None if array is None else array[0] for array in (levels, truth, prediction)]
        return _of_image(source, *first, pixel_mm, min_overlap)
    lesions, unit = None, "cm²"
    burden = _mean_area_cm2(truth, pixel_mm)
    predicted_burden = _mean_area_cm2(prediction, pixel_mm)
    if source.lesions is not None:
        # Millilitres are those of the study; a prediction of views has none.
        lesions = _lesions_of_file(source)
        burden, unit = sum(row["volume_ml"] for row in lesions), "ml"
        predicted_burden = None
    return Facts(
        case=source.case,
        kind=source.kind,
        size=known.shape[::-1],
        spacing_mm=pixel_mm[::-1],
        burden=burden,
        predicted_burden=predicted_burden,
        unit=unit,
        lesions=lesions,
        predicted=None,
        **_of_levels(levels),
        warnings=_blank(levels),
    )


def _mean_area_cm2(mask: np.ndarray | None, pixel_mm: tuple[float, float]) -> float | None:
    """Mean over the views that show a lesion."""
    if mask is None:
        return None
    counts = np.count_nonzero(mask.reshape(len(mask), -1), axis=1)
    shown = counts[counts > 0]
    return float(shown.mean()) * pixel_mm[0] * pixel_mm[1] / 100 if shown.size else 0.0


def _lesions_of_file(source: Source) -> list[dict]:
    content = read_json(source.lesions)
    try:
        views = len(content["angles_deg"])
        rows = [
            {
                "volume_ml": float(lesion["volume_ml"]),
                "suv_max": float(lesion["suv_max"]),
                "seen_in": len(lesion["seen_in"]),
                "views": views,
            }
            for lesion in content["lesions"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise MipError(
            f"{source.lesions}: is not a table of lesions ({error!r}); convert the data set again"
        ) from None
    rows.sort(key=lambda row: -row["volume_ml"])
    return [{"lesion": number, **row} for number, row in enumerate(rows, start=1)]


def _of_volume(source: Source, min_overlap: float) -> Facts:
    warnings: list[str] = []
    suv, truth, prediction = read_volume_case(source, warnings.append)
    like = next(volume for volume in (suv, truth, prediction) if volume is not None)
    values = None if suv is None else suv.array
    if suv is not None:
        warnings += filter(None, [suv_warning(suv)])
    rows, burden = {}, {}
    for name, mask, other in (("truth", truth, prediction), ("prediction", prediction, truth)):
        rows[name] = burden[name] = None
        if mask is not None:
            with_other = None if other is None else other.array
            rows[name] = lesion_table(mask.array, values, mask.grid, with_other, min_overlap)
            burden[name] = float(np.count_nonzero(mask.array)) * mask.grid.voxel_ml
    return Facts(
        case=source.case,
        kind=source.kind,
        size=like.array.shape[::-1],
        spacing_mm=tuple(like.spacing_mm[::-1]),
        burden=burden["truth"],
        predicted_burden=burden["prediction"],
        unit="ml",
        lesions=rows["truth"],
        predicted=rows["prediction"],
        uptake=None if suv is None else body_median_suv(values),
        highest=None if suv is None else float(values.max()),
        digest=None if suv is None else zlib.crc32(np.ascontiguousarray(values)),
        # The file's folder is of this machine; the case says which it is.
        warnings=[
            line.replace(f"{source.image}: ", "") if source.image else line for line in warnings
        ],
    )


def read_volume_case(source: Source, warn=None):
    """SUV, truth and prediction as volumes on one grid, None where there is none.

    Raises:
        MipError: unreadable, or on another grid.
    """
    suv = None if source.image is None else read_pet(source.image, warn=warn)
    truth = None if source.truth is None else read_mask(source.truth, like=suv)
    prediction = None if source.prediction is None else read_mask(source.prediction, like=suv)
    if source.is_missing:
        prediction = Volume(np.zeros_like(truth.array), truth.grid, truth.path)
    if suv is None and truth is not None and prediction is not None:
        require_same_grid(prediction, truth)
    return suv, truth, prediction
