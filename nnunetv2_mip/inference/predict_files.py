"""Prediction of files: each input is read, predicted, and its mask written.

PNGs give mask PNGs (0/255) of the same size; stacks give mask stacks; volumes and studies give a
3D mask with exactly the header of their PET; DICOM studies give the same on the grid of their PET
series, and DICOM objects that refer to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.inference.find_inputs import Job
from nnunetv2_mip.io.clicks import Clicks, read_clicks
from nnunetv2_mip.io.png import read_png
from nnunetv2_mip.io.png_masks import write_mask_png
from nnunetv2_mip.io.read_study import Study, read_study
from nnunetv2_mip.io.volumes import write_volume
from nnunetv2_mip.lesions.lesion_table import (
    lesion_numbers,
    lesion_table,
    lesion_table_path,
    write_lesion_table,
)
from nnunetv2_mip.views.stack_files import (
    FILE_ENDING,
    GEOMETRY_NAME,
    GEOMETRY_SUFFIX,
    case_of_channel_file,
    geometry_path,
    read_levels,
    save_geometry,
    write_stack,
)

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.dicom.pet import DicomPet


@dataclass(frozen=True)
class Extras:
    """Files to write beside the masks.

    Attributes:
        views: what the network saw, and its probabilities.
        probabilities: of pixels or voxels.
        dicom: DICOM objects (of `DICOM_OBJECTS`); None: a SEG where the input is a DICOM study.
    """

    views: bool = False
    probabilities: bool = False
    dicom: tuple[str, ...] | None = None


def run_jobs(
    jobs: list[Job], predictor: "MIPPredictor", extras: Extras
) -> Iterator[tuple[Job, str | None]]:
    """Predict job after job and write the masks; yields each job with a warning, or None.

    Raises:
        MipError: an input that cannot be read (the answers before it are written and whole).
    """
    for job in jobs:
        yield job, _RUNNERS[job.kind](job, predictor, extras)


def _run_png(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    image = read_png(job.source)
    mask, probability = predictor.predict_image(image.levels)
    write_mask_png(mask, job.target)
    if extras.probabilities:
        _write_npz(probability, job.target.with_name(f"{job.case}_probabilities.npz"))
    return "; ".join(f"{job.source}: {line}" for line in image.warnings) or None


def _run_stack(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    levels, spacing = read_levels(job.source, predictor.config.window_suv)
    masks, probabilities = predictor.predict_stack(levels, spacing[1:])
    write_stack(masks, spacing, job.target)
    geometry = geometry_path(job.source)
    if geometry is not None:
        # Beside the answer and by its name, so that the fuse command finds it.
        own = case_of_channel_file(job.target) + GEOMETRY_SUFFIX
        with atomic_path(job.target.with_name(own)) as partial:
            partial.write_bytes(geometry.read_bytes())
    if extras.probabilities:
        write_stack(
            probabilities, spacing, job.target.with_name(f"{job.case}_probabilities{FILE_ENDING}")
        )
    return None


def _run_volume(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    study = read_study(job.source, job.ct, wants_ct=predictor.wants_ct, options=job.options)
    warnings = list(study.warnings)
    clicks = None
    if job.clicks is not None:
        clicks = read_clicks(job.clicks, study.grid, warnings.append)
    found = _predict_volume(study, job, predictor, extras, clicks)
    if extras.dicom and study.dicom is not None:
        warnings += _write_objects(found, study.dicom, job, extras.dicom)
    return "; ".join(warnings) or None


def _run_dicom(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    from nnunetv2_mip.io.dicom.objects import require_libraries

    kinds = extras.dicom if extras.dicom is not None else ("seg",)
    # Before the work, not after it.
    require_libraries(kinds)
    study = read_study(job.dicom or job.source, wants_ct=predictor.wants_ct)
    if study.dicom is None:
        raise MipError(f"{job.source}: holds no DICOM PET, which a DICOM object refers to")
    warnings = list(study.warnings)
    found = _predict_volume(study, job, predictor, extras)
    warnings += _write_objects(found, study.dicom, job, kinds)
    return "; ".join(warnings) or None


def _write_objects(
    found: "_Lesions", pet: "DicomPet", job: Job, kinds: tuple[str, ...]
) -> tuple[str, ...]:
    """Write the DICOM objects of a mask beside it; returns lines for the user."""
    from nnunetv2_mip.io.dicom.objects import object_paths, write_dicom_objects

    numbers = lesion_numbers(found.mask, pet.suv.grid)
    paths = object_paths(job.target.parent, job.case, kinds)
    try:
        return write_dicom_objects(numbers, found.rows, pet, paths)
    except MipError as error:
        # The mask is there, and the other studies wait.
        return (str(error),)


@dataclass(frozen=True)
class _Lesions:
    """Predicted mask (z, y, x), and the rows of its lesion table."""

    mask: np.ndarray
    rows: list[dict]


def _predict_volume(
    study: Study,
    job: Job,
    predictor: "MIPPredictor",
    extras: Extras,
    clicks: Clicks | None = None,
) -> _Lesions:
    """Predict a study and write its mask and lesion table."""
    suv = study.suv
    found = predictor.predict_study(study, extras.probabilities, clicks)
    folder = job.target.parent
    if extras.probabilities and found.probability is not None:
        write_volume(found.probability, suv.grid, folder / f"{job.case}_probabilities{FILE_ENDING}")
    if extras.views:
        views = folder / f"{job.case}_views"
        spacing = found.spacing_mm
        write_stack(found.levels, spacing, views / f"levels{FILE_ENDING}")
        write_stack(found.view_probability, spacing, views / f"probabilities{FILE_ENDING}")
        save_geometry(found.geometry, views / GEOMETRY_NAME, predictor.config.pixel_mm)
    write_volume(found.mask, suv.grid, job.target)
    rows = lesion_table(found.mask, suv.array, suv.grid)
    write_lesion_table(rows, lesion_table_path(job.target))
    return _Lesions(found.mask, rows)


def _write_npz(probability: np.ndarray, path: Path) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, probabilities=probability)


_RUNNERS = {"png": _run_png, "stack": _run_stack, "volume": _run_volume, "dicom": _run_dicom}
