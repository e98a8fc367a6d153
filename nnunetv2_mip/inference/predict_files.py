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

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.inference.deadline import Deadline
from nnunetv2_mip.inference.find_inputs import Job
from nnunetv2_mip.inference.results import ImageResult, VolumeResult
from nnunetv2_mip.io.clicks import Clicks, read_clicks
from nnunetv2_mip.io.png import PNG_SUFFIX, PngImage, read_png
from nnunetv2_mip.io.read_study import Study, read_study
from nnunetv2_mip.io.volumes import without_suffix, write_volume
from nnunetv2_mip.lesions.lesion_table import lesion_numbers
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

# Added to the name of a mask: the rotating MIP with its outline.
PICTURE_SUFFIX = "_mip.gif"


@dataclass(frozen=True)
class Extras:
    """Files to write beside the masks.

    Attributes:
        views: what the network saw, and its probabilities.
        probabilities: of pixels or voxels.
        dicom: DICOM objects (of `DICOM_OBJECTS`); None: a SEG where the input is a DICOM study.
        pictures: the rotating MIP of a volume, or the image, with the outline of the mask.
    """

    views: bool = False
    probabilities: bool = False
    dicom: tuple[str, ...] | None = None
    pictures: bool = False


@dataclass(frozen=True)
class Written:
    """What was found in one input, and the files of it.

    Attributes:
        job: the input.
        rows: of the table of lesions (volumes) or of regions (images); None of a stack of views.
        found: the same in a few words.
        files: kind of file (`mask`, `lesions`, `picture`, …) → its path.
        warning: line for the user, or None.
    """

    job: Job
    rows: list[dict] | None
    found: str
    files: dict[str, Path]
    warning: str | None = None


def run_jobs(
    jobs: list[Job], predictor: "MIPPredictor", extras: Extras, deadline: Deadline | None = None
) -> Iterator[Written]:
    """Predict job after job and write the masks; yields what was found in each.

    Args:
        jobs: inputs and the names of their masks.
        predictor: the model.
        extras: files to write beside the masks.
        deadline: asked before each window of the network, for all jobs.

    Raises:
        MipError: an input that cannot be read (the answers before it are written and whole).
    """
    for job in jobs:
        if job.kind == "stack":
            yield _run_stack(job, predictor, extras, deadline)
            continue
        if job.kind == "dicom":
            # Before the work, not after it.
            _require_libraries(extras)
        found = predict_job(job, predictor, extras.probabilities, deadline)
        if isinstance(found, ImageResult):
            yield _write_image_result(job, found, extras)
        else:
            yield _write_volume_result(job, found, predictor, extras)


def predict_job(
    job: Job,
    predictor: "MIPPredictor",
    with_probability: bool = False,
    deadline: Deadline | None = None,
) -> VolumeResult | ImageResult:
    """Result of one input, which is read and predicted; nothing is written.

    Args:
        job: of any kind but `stack`.
        predictor: the model.
        with_probability: of a volume, also the probability of every voxel.
        deadline: asked before each window of the network.

    Raises:
        MipError: the input cannot be read.
    """
    if job.kind == "png":
        return predict_png(read_png(job.source), predictor, job.case, str(job.source), deadline)
    wants_ct = predictor.wants_ct
    if job.kind == "dicom":
        study = read_study(job.dicom or job.source, wants_ct=wants_ct)
        if study.dicom is None:
            raise MipError(f"{job.source}: holds no DICOM PET, which a DICOM object refers to")
    else:
        study = read_study(job.source, job.ct, wants_ct=wants_ct, options=job.options)
    warnings: list[str] = []
    clicks = None
    if job.clicks is not None:
        clicks = read_clicks(job.clicks, study.grid, warnings.append)
    lines = tuple(warnings)
    return predict_volume(study, predictor, job.case, with_probability, clicks, lines, deadline)


def predict_png(
    image: PngImage,
    predictor: "MIPPredictor",
    case: str,
    source: str,
    deadline: Deadline | None = None,
) -> ImageResult:
    """Result of a decoded MIP-PET image; `source` names it in its warnings."""
    mask, probability = predictor.predict_image(image.levels, deadline)
    warnings = tuple(f"{source}: {line}" for line in image.warnings)
    return ImageResult(case, image.levels, mask, probability, warnings=warnings)


def predict_volume(
    study: Study,
    predictor: "MIPPredictor",
    case: str,
    with_probability: bool = False,
    clicks: Clicks | None = None,
    warnings: tuple[str, ...] = (),
    deadline: Deadline | None = None,
) -> VolumeResult:
    """Result of a study.

    Args:
        study: with its CT for a model that wants it.
        predictor: the model.
        case: name of the result.
        with_probability, clicks, deadline: as of `MIPPredictor.predict_study`.
        warnings: lines about the clicks, after those of the study.
    """
    found = predictor.predict_study(study, with_probability, clicks, deadline)
    return VolumeResult(
        case,
        study.grid,
        study,
        found.mask,
        found.probability if with_probability else None,
        found.views,
        found.view_probability,
        (*study.warnings, *warnings),
    )


def picture_path(mask_path: Path) -> Path:
    """Path of the rotating MIP beside a mask: `NAME.nii.gz` → `NAME_mip.gif`."""
    return mask_path.with_name(
        without_suffix(mask_path, (PNG_SUFFIX, *VOLUME_SUFFIXES)) + PICTURE_SUFFIX
    )


def _write_image_result(job: Job, found: ImageResult, extras: Extras) -> Written:
    (mask,) = found.save(job.target)
    files = {"mask": mask}
    if extras.probabilities:
        path = job.target.with_name(f"{job.case}_probabilities.npz")
        with atomic_path(path) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, probabilities=found.probability)
        files["probabilities"] = path
    if extras.pictures:
        files["picture"] = found.save_picture(picture_path(job.target))
    return Written(job, found.lesions, found.describe(), files, "; ".join(found.warnings) or None)


def _write_volume_result(
    job: Job, found: VolumeResult, predictor: "MIPPredictor", extras: Extras
) -> Written:
    folder = job.target.parent
    files: dict[str, Path] = {}
    probability, views = found.canonical_probability, found.views
    if extras.probabilities and probability is not None:
        files["probabilities"] = folder / f"{job.case}_probabilities{FILE_ENDING}"
        write_volume(probability, found.grid, files["probabilities"])
    if extras.views and views is not None and found.view_probability is not None:
        files["views"] = folder / f"{job.case}_views"
        spacing = views.spacing_mm
        write_stack(views.levels[0], spacing, files["views"] / f"levels{FILE_ENDING}")
        write_stack(found.view_probability, spacing, files["views"] / f"probabilities{FILE_ENDING}")
        save_geometry(views.geometry, files["views"] / GEOMETRY_NAME, predictor.config.pixel_mm)
    mask, table = found.save(job.target)
    files = {"mask": mask, "lesions": table, **files}
    if extras.pictures:
        files["picture"] = found.save_picture(picture_path(job.target))
    objects, lines = _write_objects(job, found, extras)
    files |= objects
    warning = "; ".join((*found.warnings, *lines)) or None
    return Written(job, found.lesions, found.describe(), files, warning)


def _object_kinds(job: Job, extras: Extras) -> tuple[str, ...]:
    if extras.dicom is None:
        return ("seg",) if job.kind == "dicom" else ()
    return extras.dicom


def _require_libraries(extras: Extras) -> None:
    from nnunetv2_mip.io.dicom.objects import require_libraries

    require_libraries(("seg",) if extras.dicom is None else extras.dicom)


def _write_objects(
    job: Job, found: VolumeResult, extras: Extras
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Write the DICOM objects of a mask beside it; returns their files and lines for the user."""
    kinds = _object_kinds(job, extras)
    pet = None if found.study is None else found.study.dicom
    if not kinds or pet is None:
        return {}, ()
    from nnunetv2_mip.io.dicom.objects import object_paths, write_dicom_objects

    numbers = lesion_numbers(found.canonical_mask, pet.suv.grid)
    paths = object_paths(job.target.parent, job.case, kinds)
    try:
        return paths, write_dicom_objects(numbers, found.lesions, pet, paths)
    except MipError as error:
        # The mask is there, and the other studies wait.
        return {}, (str(error),)


def _run_stack(
    job: Job, predictor: "MIPPredictor", extras: Extras, deadline: Deadline | None
) -> Written:
    levels, spacing = read_levels(job.source, predictor.config.window_suv)
    masks, probabilities = predictor.predict_stack(levels, spacing[1:], deadline)
    write_stack(masks, spacing, job.target)
    files = {"mask": job.target}
    geometry = geometry_path(job.source)
    if geometry is not None:
        # Beside the answer and by its name, so that the fuse command finds it.
        own = case_of_channel_file(job.target) + GEOMETRY_SUFFIX
        with atomic_path(job.target.with_name(own)) as partial:
            partial.write_bytes(geometry.read_bytes())
    if extras.probabilities:
        files["probabilities"] = job.target.with_name(f"{job.case}_probabilities{FILE_ENDING}")
        write_stack(probabilities, spacing, files["probabilities"])
    marked = int(masks.any(axis=(1, 2)).sum())
    return Written(job, None, f"lesions in {marked} of {len(masks)} views", files)
