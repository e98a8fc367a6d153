"""What the predict command does with files: find out what it got, predict, write the answer.

PNGs give mask PNGs (0/255) of the same size; stacks give mask stacks; volumes and studies give a
3D mask with exactly the header of their PET; DICOM studies give the same on the grid of their PET
series, and a DICOM SEG that refers to it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, read_json
from nnunetv2_mip.io.clicks import Clicks, read_clicks
from nnunetv2_mip.io.png import PNG_SUFFIX, decode_png, image_warning, write_mask_png
from nnunetv2_mip.io.read_study import read_pet_and_ct
from nnunetv2_mip.io.study_layouts import NoStudy, StudyTree, case_name, scan_tree
from nnunetv2_mip.io.volumes import (
    VOLUME_SUFFIXES,
    Volume,
    check_written,
    has_suffix,
    suv_warning,
    write_volume,
)
from nnunetv2_mip.lesions.lesion_table import lesion_table, lesion_table_path, write_lesion_table
from nnunetv2_mip.views.intensity import levels_from_suv
from nnunetv2_mip.views.stack_files import (
    FILE_ENDING,
    GEOMETRY_NAME,
    GEOMETRY_SUFFIX,
    case_of_channel_file,
    geometry_path,
    is_stack_file,
    read_stack,
    save_geometry,
    write_stack,
)

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


# Kinds of `Job` that are projected on views.
VOLUMES = ("volume", "dicom")


@dataclass(frozen=True)
class Job:
    """One input and where its answer goes.

    Attributes:
        kind: `png`, `stack`, `volume` or `dicom`.
        case: name of the case.
        source: file to read; of `dicom` the folder.
        target: file to write.
        series: of `dicom` the SeriesInstanceUID of the PET, else None.
        ct: of `volume` the CT on the same grid, or None.
        clicks: of `volume` the file of a reader's clicks, or None.
    """

    kind: str
    case: str
    source: Path
    target: Path
    series: str | None = None
    ct: Path | None = None
    clicks: Path | None = None


@dataclass(frozen=True)
class Extras:
    """What to write beside the masks."""

    views: bool = False
    probabilities: bool = False


def find_jobs(
    source: Path | str,
    output: Path | str,
    series: str | None = None,
    ct: Path | str | None = None,
    clicks: Path | str | None = None,
) -> list[Job]:
    """List what is to be predicted.

    Args:
        source: a PNG, a folder of PNGs, a stack, a SUV volume (NIfTI, MHA, NRRD), a folder of
            stacks or volumes, an autoPET tree, or a folder with DICOM PET (one study or more).
        output: a file where the input is one file and `output` has its kind of suffix, else a
            folder.
        series: SeriesInstanceUID of the PET series, where a DICOM study has several.
        ct: CT on the grid of a single SUV volume; the studies of a tree have their own.
        clicks: file of a reader's clicks (see `clicks`) on a single SUV volume.

    Raises:
        MipError: nothing that can be predicted, a study without SUV, or an answer that would
            replace an input or another answer.
    """
    source, output = Path(source), Path(output)
    jobs = _list_jobs(source, output, series)
    for option, path in (("ct", ct), ("clicks", clicks)):
        if path is None:
            continue
        if len(jobs) != 1 or jobs[0].kind != "volume":
            raise MipError(f"--{option} {path}: belongs to a single SUV volume; {source} is none")
        jobs = [replace(jobs[0], **{option: Path(path)})]
    sources = {job.source.resolve() for job in jobs}
    sources |= {job.ct.resolve() for job in jobs if job.ct is not None}
    targets: dict[Path, Job] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise MipError(f"{job.target}: is an input and would be replaced; choose another -o")
        if target in targets:
            raise MipError(
                f"{job.source}: would get the same mask file as {targets[target].source}; "
                "rename one (channels of one case: the model takes one, give that alone)"
            )
        targets[target] = job
    return jobs


def _list_jobs(source: Path, output: Path, series: str | None) -> list[Job]:
    if source.is_file():
        return [_file_job(source, output)]
    if not source.is_dir():
        raise MipError(f"{source}: no such file or folder")
    if output.is_file() or has_suffix(output, (PNG_SUFFIX, *VOLUME_SUFFIXES)):
        raise MipError(f"{output}: the input is a folder, so -o must be one too")
    files = sorted(path for path in source.iterdir() if path.is_file())
    pngs = [path for path in files if path.suffix.lower() == PNG_SUFFIX]
    volumes = [path for path in files if has_suffix(path, VOLUME_SUFFIXES)]
    if pngs and volumes:
        raise MipError(f"{source}: holds PNGs and volumes; put them into folders of their own")
    if (pngs or volumes) and _holds_dicom(source, recursive=False):
        kind = "PNGs" if pngs else "volumes"
        raise MipError(f"{source}: holds {kind} and DICOM; put them into folders of their own")
    if volumes and not (source / "SUV.nii.gz").is_file():
        return [_file_job(path, output) for path in volumes]
    if pngs:
        return [_file_job(path, output) for path in pngs]
    found = _scan_studies(source)
    if found is None:
        return _dicom_jobs(source, output, series)
    for path, reason in found.problems:
        raise MipError(f"{path}: {reason}")
    return [
        Job(
            "volume",
            study.case,
            study.suv,
            output / f"{study.case}{FILE_ENDING}",
            ct=study.ct,
        )
        for study in found.studies
    ]


def _scan_studies(source: Path) -> StudyTree | None:
    """The autoPET tree in a folder, or None where there is none but DICOM."""
    try:
        return scan_tree(source)
    except NoStudy:
        if _holds_dicom(source):
            return None
        raise MipError(
            f"{source}: holds nothing to predict; expected PNGs (no JPEGs), stacks of views, SUV "
            "volumes (.nii.gz, .mha, .nrrd), an autoPET tree, or DICOM PET"
        ) from None


def _holds_dicom(folder: Path, recursive: bool = True) -> bool:
    from nnunetv2_mip.io.dicom.series import dicom_files

    return any(True for _ in dicom_files(folder, recursive))


def _dicom_jobs(source: Path, output: Path, series: str | None) -> list[Job]:
    """One job a study; named like the folder, or of several like the folder each lies in."""
    from nnunetv2_mip.io.dicom.pet import choose_pet
    from nnunetv2_mip.io.dicom.seg import SEG_SUFFIX
    from nnunetv2_mip.io.dicom.series import find_series

    if output.resolve() == source.resolve():
        raise MipError(f"{output}: holds the DICOM input; choose another -o")
    if has_suffix(output, (SEG_SUFFIX,)):
        raise MipError(f"{output}: of DICOM come a NIfTI and a SEG file, so -o must be a folder")
    found = find_series(source)
    pets = [item for item in found if item.modality == "PT" and series in (None, item.uid)]
    studies = sorted({item.study_uid for item in pets})
    if len(studies) <= 1:
        pets = [choose_pet(found, source, series)]
    else:
        pets = [choose_pet([p for p in pets if p.study_uid == uid], source) for uid in studies]
    jobs = []
    for pet in pets:
        folder = source
        if len(pets) > 1:
            # Its own folder, so that reading it does not scan all the others again.
            folder = Path(os.path.commonpath([path.parent for path in pet.files]))
        # Absolute: "." has no name.
        parts = folder.relative_to(source).parts or (source.resolve().name,)
        case = case_name("", "_".join(parts)) or "study"
        jobs.append(Job("dicom", case, folder, output / f"{case}{FILE_ENDING}", pet.uid))
    return sorted(jobs, key=lambda job: job.case)


def run_jobs(
    jobs: list[Job], predictor: "MIPPredictor", extras: Extras
) -> Iterator[tuple[Job, str | None]]:
    """Predict and write job after job; yields each with a warning for the user, or None.

    Raises:
        MipError: an input that cannot be read (the answers before it are written and whole).
    """
    for job in jobs:
        yield job, _RUNNERS[job.kind](job, predictor, extras)


def _file_job(source: Path, output: Path) -> Job:
    if source.suffix.lower() == PNG_SUFFIX:
        kind, case, ending = "png", source.stem, PNG_SUFFIX
    elif has_suffix(source, VOLUME_SUFFIXES):
        kind = "stack" if is_stack_file(source) else "volume"
        ending = next(s for s in VOLUME_SUFFIXES if source.name.lower().endswith(s))
        case = source.name[: -len(ending)]
        # A header whose voxels lie in another file; answers are one file each.
        ending = ending.replace(".mhd", ".mha")
        if kind == "stack":
            case = case_of_channel_file(source)
    else:
        raise MipError(
            f"{source}: unknown kind of file; PNG, NIfTI, MHA or NRRD is expected "
            "(of a DICOM series give the folder)"
        )
    if kind != "png":
        check_written(output)
    own = (PNG_SUFFIX,) if kind == "png" else VOLUME_SUFFIXES
    is_file = has_suffix(output, own) and not output.is_dir()
    if not is_file and not output.is_dir() and has_suffix(output, (PNG_SUFFIX, *VOLUME_SUFFIXES)):
        raise MipError(f"{output}: the answer to {source.name} is of type {' or '.join(own)}")
    if not is_file and output.is_file():
        raise MipError(f"{output}: is a file of unknown type; -o is a folder, or a {own[0]} file")
    return Job(kind, case, source, output if is_file else output / f"{case}{ending}")


def _run_png(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    levels = decode_png(job.source)
    mask, probability = predictor.predict_image(levels)
    write_mask_png(mask, job.target)
    if extras.probabilities:
        _write_npz(probability, job.target.with_name(f"{job.case}_probabilities.npz"))
    warning = image_warning(levels)
    return warning and f"{job.source}: {warning}"


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


def read_levels(path: Path, window_suv: float) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Levels (V, H, W) of a stack and its spacing (view axis, row, column) in mm.

    Raises:
        MipError: unreadable, or neither levels nor the SUV of `nnUNetv2_mip_project`.
    """
    levels, spacing = read_stack(path)
    if _holds_raw_suv(path):
        levels = levels_from_suv(levels, window_suv)
    # Written so that NaN fails too.
    if not (levels.min() >= 0 and levels.max() <= 255):
        raise MipError(
            f"{path}: a stack holds levels 0 to 255 (as the converters write), this one "
            f"{levels.min():g} to {levels.max():g}; give the SUV volume instead"
        )
    return levels, spacing


def _holds_raw_suv(path: Path) -> bool:
    """Whether a stack was written by nnUNetv2_mip_project (SUV), not by a converter (levels)."""
    geometry = geometry_path(path)
    if geometry is None:
        return False
    content = read_json(geometry)
    return content.get("kind") == "volume" and content.get("window_suv") is None


def _run_volume(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    warnings: list[str] = []
    suv, ct = read_pet_and_ct(job.source, job.ct, predictor.wants_ct, warnings.append)
    clicks = None
    if job.clicks is not None:
        clicks = read_clicks(job.clicks, suv.grid, warnings.append)
    _predict_volume(suv, ct, job, predictor, extras, clicks)
    warnings += filter(None, [suv_warning(suv)])
    return "; ".join(warnings) or None


def _run_dicom(job: Job, predictor: "MIPPredictor", extras: Extras) -> str | None:
    from nnunetv2_mip.io.dicom.pet import read_dicom_ct, read_dicom_pet
    from nnunetv2_mip.io.dicom.seg import SEG_SUFFIX, import_highdicom, write_dicom_seg

    # Before the work, not after it.
    import_highdicom()
    pet = read_dicom_pet(job.source, job.series)
    warnings = [*pet.warnings, *filter(None, [suv_warning(pet.suv)])]
    ct = read_dicom_ct(job.source, pet) if predictor.wants_ct else None
    mask = _predict_volume(pet.suv, ct, job, predictor, extras)
    try:
        write_dicom_seg(mask, pet, job.target.with_name(f"{job.case}{SEG_SUFFIX}"))
    except MipError as error:
        # The mask is there, and the other studies wait.
        warnings.append(str(error))
    return "; ".join(warnings) or None


def _predict_volume(
    suv: Volume,
    ct: Volume | None,
    job: Job,
    predictor: "MIPPredictor",
    extras: Extras,
    clicks: Clicks | None = None,
) -> np.ndarray:
    """Predict a volume and write the answer; returns the mask, (z, y, x)."""
    found = predictor.predict_study(suv, ct, extras.probabilities, clicks)
    folder = job.target.parent
    if extras.probabilities:
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
    return found.mask


def _write_npz(probability: np.ndarray, path: Path) -> None:
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, probabilities=probability)


_RUNNERS = {"png": _run_png, "stack": _run_stack, "volume": _run_volume, "dicom": _run_dicom}
