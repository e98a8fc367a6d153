"""Numbers of a case: size, spacing, uptake, tumour burden, lesions found and missed."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunetv2_mip.conventions import BODY_LEVEL, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.png import image_fault
from nnunetv2_mip.io.volumes import body_median_suv
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.lesions.region_table import region_table
from nnunetv2_mip.parallel import for_each
from nnunetv2_mip.report.case_arrays import read_png_case, read_stack_case, read_volume_case
from nnunetv2_mip.report.case_files import CaseFiles


@dataclass(frozen=True)
class CaseFacts:
    """Numbers of one case.

    Attributes:
        case: its name.
        kind: `png`, `volume` or `stack`.
        size: pixels or voxels along (x, y) or (x, y, z); of a stack (columns, rows, views).
        spacing_mm: of the same axes, without the axis of the views.
        burden: amount of lesion in the truth: ml (volumes, and stacks with a lesion file), else
            cm² (mean over the views that show a lesion); None without truth.
        predicted_burden: the same of the prediction.
        unit: of both, `ml` or `cm²`.
        lesions: rows of `lesion_table`, or of `region_table` for images of one view; with a
            prediction `hit` says whether the lesion is found. Stacks of many views: rows of their
            lesion file.
        predicted: rows of the prediction; with a truth `hit` says whether the lesion is right.
        uptake: median SUV of the body (volumes), or mean level of the body (0–255); None without
            an image.
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
    digest: int | None
    warnings: list[str] = field(default_factory=list)


def common_unit(facts: Sequence[CaseFacts]) -> str | None:
    """Unit of the burdens, None where the cases have different ones."""
    units = {f.unit for f in facts}
    return units.pop() if len(units) == 1 else None


def lesion_size(row: dict) -> float:
    """Size of a lesion, in ml (volumes) or cm² (images)."""
    return row["volume_ml"] if "volume_ml" in row else row["area_cm2"]


def read_all_facts(
    cases: list[CaseFiles],
    min_overlap: float = 0.0,
    processes: int = 1,
    show_progress: bool = False,
    title: str = "cases",
) -> list[CaseFacts]:
    """Facts of all cases, in their order.

    Args:
        cases: files to read.
        min_overlap: share of a lesion that must be covered for it to be found.
        processes: workers.
        show_progress: whether a progress bar is shown, with `title` as its name.

    Raises:
        MipError: see `read_facts`.
    """
    found = {}
    work = partial(read_facts, min_overlap=min_overlap)
    with tqdm(
        total=len(cases), desc=title, unit="case", disable=None if show_progress else True
    ) as bar:
        for files, facts in for_each(work, cases, processes):
            found[files.case] = facts
            bar.update()
    return [found[files.case] for files in cases]


def read_facts(files: CaseFiles, min_overlap: float = 0.0) -> CaseFacts:
    """Facts of a case.

    Raises:
        MipError: a file that cannot be read, or files that do not fit each other.
    """
    read = {"png": _png_facts, "volume": _volume_facts, "stack": _stack_facts}[files.kind]
    return read(files, min_overlap)


def _png_facts(files: CaseFiles, min_overlap: float) -> CaseFacts:
    arrays = read_png_case(files)
    facts = _view_facts(files, arrays, (PNG_PIXEL_MM, PNG_PIXEL_MM), min_overlap)
    fault = None if arrays[0] is None or facts.warnings else image_fault(arrays[0])
    return facts if fault is None else replace(facts, warnings=[fault])


def _view_facts(
    files: CaseFiles,
    arrays: Sequence[np.ndarray | None],
    pixel_mm: tuple[float, float],
    min_overlap: float,
) -> CaseFacts:
    """Facts of one view; arrays: levels, truth and prediction, each (H, W) or None."""
    levels, truth, prediction = arrays
    shape = next(array.shape for array in arrays if array is not None)
    rows: dict[str, list[dict] | None] = {}
    burden: dict[str, float | None] = {}
    for name, mask, other in (("truth", truth, prediction), ("prediction", prediction, truth)):
        rows[name] = burden[name] = None
        if mask is not None:
            rows[name] = region_table(mask, levels, pixel_mm, None, other, min_overlap)
            burden[name] = float(np.count_nonzero(mask)) * (pixel_mm[0] * pixel_mm[1] / 100)
    return CaseFacts(
        case=files.case,
        kind=files.kind,
        size=(*shape[::-1],) if files.kind == "png" else (*shape[::-1], 1),
        spacing_mm=pixel_mm[::-1],
        burden=burden["truth"],
        predicted_burden=burden["prediction"],
        unit="cm²",
        lesions=rows["truth"],
        predicted=rows["prediction"],
        **_level_facts(levels),
    )


def _level_facts(levels: np.ndarray | None) -> dict:
    """Facts of the levels of one view or several, uint8."""
    if levels is None:
        return {"uptake": None, "digest": None}
    body = levels[levels > BODY_LEVEL]
    is_blank = levels.max() == levels.min()
    return {
        "uptake": float(body.mean()) if body.size else 0.0,
        "digest": zlib.crc32(np.ascontiguousarray(levels).data, levels.shape[-1]),
        "warnings": ["the image is blank (one value everywhere)"] if is_blank else [],
    }


def _stack_facts(files: CaseFiles, min_overlap: float) -> CaseFacts:
    *arrays, pixel_mm = read_stack_case(files)
    known = next(array for array in arrays if array is not None)
    if len(known) == 1:
        views = [None if array is None else array[0] for array in arrays]
        return _view_facts(files, views, pixel_mm, min_overlap)
    levels, truth, prediction = arrays
    if files.lesions is None:
        lesions, unit = None, "cm²"
        burden = _mean_area_cm2(truth, pixel_mm)
        predicted_burden = _mean_area_cm2(prediction, pixel_mm)
    else:
        # Millilitres are those of the study; a prediction of views has none.
        lesions, unit = _read_lesion_file(files.lesions), "ml"
        burden, predicted_burden = sum(row["volume_ml"] for row in lesions), None
    return CaseFacts(
        case=files.case,
        kind=files.kind,
        size=known.shape[::-1],
        spacing_mm=pixel_mm[::-1],
        burden=burden,
        predicted_burden=predicted_burden,
        unit=unit,
        lesions=lesions,
        predicted=None,
        **_level_facts(levels),
    )


def _mean_area_cm2(mask: np.ndarray | None, pixel_mm: tuple[float, float]) -> float | None:
    """Mean area over the views that show a lesion; mask (V, H, W) or None."""
    if mask is None:
        return None
    counts = np.count_nonzero(mask.reshape(len(mask), -1), axis=1)
    shown = counts[counts > 0]
    return float(shown.mean()) * pixel_mm[0] * pixel_mm[1] / 100 if shown.size else 0.0


def _read_lesion_file(path: Path) -> list[dict]:
    content = read_json(path)
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
            f"{path}: is not a table of lesions ({error!r}); convert the data set again"
        ) from None
    rows.sort(key=lambda row: -row["volume_ml"])
    return [{"lesion": number, **row} for number, row in enumerate(rows, start=1)]


def _volume_facts(files: CaseFiles, min_overlap: float) -> CaseFacts:
    suv, truth, prediction, warnings = read_volume_case(files)
    known = next(volume for volume in (suv, truth, prediction) if volume is not None)
    values = None if suv is None else suv.array
    rows: dict[str, list[dict] | None] = {}
    burden: dict[str, float | None] = {}
    for name, mask, other in (("truth", truth, prediction), ("prediction", prediction, truth)):
        rows[name] = burden[name] = None
        if mask is not None:
            other_array = None if other is None else other.array
            rows[name] = lesion_table(mask.array, values, mask.grid, other_array, min_overlap)
            burden[name] = float(np.count_nonzero(mask.array)) * mask.grid.voxel_ml
    return CaseFacts(
        case=files.case,
        kind=files.kind,
        size=known.array.shape[::-1],
        spacing_mm=tuple(known.spacing_mm[::-1]),
        burden=burden["truth"],
        predicted_burden=burden["prediction"],
        unit="ml",
        lesions=rows["truth"],
        predicted=rows["prediction"],
        uptake=None if values is None else body_median_suv(values),
        digest=None if values is None else zlib.crc32(np.ascontiguousarray(values).data),
        # Folders of this machine are left out; the case says which file it is.
        warnings=[
            line.replace(f"{files.image}: ", "") if files.image else line for line in warnings
        ],
    )
