"""Fusion of view stacks in files to 3D masks in files."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from nnunetv2_mip.conventions import IGNORE_LABEL, LESION, VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import DEFAULT_RULE, FusionRule
from nnunetv2_mip.io.dicom.options import FROM_HEADERS, DicomOptions
from nnunetv2_mip.io.read_study import Study, read_study
from nnunetv2_mip.io.volumes import has_suffix, write_volume
from nnunetv2_mip.lesions.lesion_table import lesion_table, lesion_table_path, write_lesion_table
from nnunetv2_mip.nnunet.paths import raw_dataset
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.resampling import to_detector
from nnunetv2_mip.views.stack_files import (
    FILE_ENDING,
    GEOMETRY_SUFFIX,
    load_geometry,
    load_pixel_mm,
    read_stack,
    require_geometry_path,
    require_stack_shape,
)


@dataclass(frozen=True)
class _FuseJob:
    """Case of a nnU-Net output: its predicted views and their geometry."""

    case: str
    path: Path
    geometry: ViewGeometry
    pixel_mm: float | None


def fuse_project_folder(
    folder: Path | str,
    output: Path | str,
    views_file: str,
    suv_path: Path | str | None,
    rule: str | None,
    threshold: float,
    uptake_share: float = 0.0,
    options: DicomOptions = FROM_HEADERS,
) -> tuple[str, ...]:
    """Fuse a stack of masks or probabilities that lies beside its geometry.json.

    A lesion table is written beside the mask.

    Args:
        folder: output of `nnUNetv2_mip_project`.
        output: mask to write.
        views_file: name of the stack in `folder`.
        suv_path: SUV volume or folder of a DICOM PET series, or None.
        rule: of `rules.RULES`; None is `DEFAULT_RULE`.
        threshold, uptake_share: see `FusionRule`.
        options: of `suv_path`, a folder with DICOM.

    Returns:
        Lines for the user about the SUV.

    Raises:
        MipError: a file is missing, or stack, geometry and SUV do not belong together.
    """
    path = Path(folder) / views_file
    if not path.is_file():
        raise MipError(
            f"{path}: no such file; name the stack to fuse by --views_file (project writes "
            "seg.nii.gz with --seg), or add -d ID for the output of nnUNetv2_predict"
        )
    if Path(output).exists() and path.exists() and Path(output).samefile(path):
        raise MipError(f"{output}: is the stack to fuse; name another output")
    stack, _ = read_stack(path)
    geometry = load_geometry(path)
    pixel_mm = load_pixel_mm(require_geometry_path(path))
    require_stack_shape(stack, geometry, path, pixel_mm)
    _require_probabilities(stack, path)
    study = None if suv_path is None else _read_study_of_views(suv_path, geometry, options)
    suv = None if study is None else study.suv.array
    stack = to_detector(stack, geometry, pixel_mm)
    mask = fuse(stack, geometry, FusionRule(rule or DEFAULT_RULE, threshold, uptake_share), suv)
    _write_mask(mask, suv, geometry, output)
    return () if study is None else study.warnings


def fuse_nnunet_output(
    folder: Path | str,
    dataset_id: int,
    output: Path | str,
    geometry_folder: Path | str | None,
    rule: str,
    threshold: float,
) -> list[Path]:
    """Fuse every case of a folder that stock `nnUNetv2_predict` wrote for a MIP data set.

    `<case>.npz` (probabilities) is preferred to `<case>.nii.gz` (masks). Geometries are looked for
    in `geometry_folder`, or if it is None in the raw data set's imagesTs and imagesTr and `folder`.

    Returns:
        The masks written, `<output>/<case>.nii.gz`.

    Raises:
        MipError: no case, or a case without geometry, or of another shape than its geometry.
    """
    folder, output = Path(folder), Path(output)
    _check_folders(folder, output)
    written = []
    for job in tqdm(_list_jobs(folder, dataset_id, geometry_folder), unit="case", disable=None):
        probabilities = job.path.with_name(f"{job.case}.npz")
        if probabilities.is_file():
            stack = _read_npz(probabilities)
        else:
            stack, _ = read_stack(job.path)
        require_stack_shape(stack, job.geometry, job.path, job.pixel_mm)
        _require_probabilities(stack, job.path)
        stack = to_detector(stack, job.geometry, job.pixel_mm)
        target = output / f"{job.case}{FILE_ENDING}"
        mask = fuse(stack, job.geometry, FusionRule(rule, threshold))
        _write_mask(mask, None, job.geometry, target)
        written.append(target)
    return written


def _check_folders(folder: Path, output: Path) -> None:
    """Check of the folders of `fuse_nnunet_output`: MipError where they cannot be used."""
    if has_suffix(output, VOLUME_SUFFIXES):
        raise MipError(f"{output}: many cases are fused, so -o must be a folder")
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder")
    if output.is_file():
        raise MipError(f"{output}: is a file; with -d the output is a folder")
    if output.resolve() == folder.resolve():
        raise MipError(f"{output}: is the input folder; fusing into it would replace the views")


def _list_jobs(folder: Path, dataset_id: int, geometry_folder: Path | str | None) -> list[_FuseJob]:
    """Cases of a nnU-Net output with their geometries; all are found before any is fused."""
    paths = sorted(p for p in folder.glob(f"*{FILE_ENDING}") if not p.name.startswith("."))
    if not paths:
        raise MipError(f"{folder}: holds no predictions (*{FILE_ENDING})")
    if geometry_folder is not None:
        places = [Path(geometry_folder)]
    else:
        raw = raw_dataset(dataset_id)
        places = [raw / "imagesTs", raw / "imagesTr", folder]
    jobs = []
    for path in paths:
        case = path.name.removesuffix(FILE_ENDING)
        candidates = [place / f"{case}{GEOMETRY_SUFFIX}" for place in places]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise MipError(
                f"{candidates[0]}: no such file; name the folder of the geometry files by "
                "--geometry"
            )
        jobs.append(_FuseJob(case, path, ViewGeometry.load(found), load_pixel_mm(found)))
    return jobs


def _read_study_of_views(path: Path | str, geometry: ViewGeometry, options: DicomOptions) -> Study:
    """Study of a SUV file or DICOM folder, which must have the voxels of `geometry`."""
    study = read_study(path, options=options)
    if not study.grid.same_as(geometry.grid):
        raise MipError(
            f"{path}: lies on another grid than the views came from "
            f"({study.grid.difference(geometry.grid)})"
        )
    return study


def _write_mask(
    mask: np.ndarray, suv: np.ndarray | None, geometry: ViewGeometry, path: Path | str
) -> None:
    """Write a mask (z, y, x) and the table of its lesions."""
    write_volume(mask, geometry.grid, path)
    write_lesion_table(lesion_table(mask, suv, geometry.grid), lesion_table_path(path))


def _read_npz(path: Path) -> np.ndarray:
    """Lesion probabilities (V, H, W) of a file that nnU-Net writes with `--save_probabilities`."""
    try:
        with path.open("rb") as file, np.load(file) as content:
            return content["probabilities"][LESION]
    except (OSError, KeyError, IndexError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise MipError(f"{path}: is not a nnU-Net probability file ({error})") from None


def _require_probabilities(stack: np.ndarray, path: Path) -> None:
    """Check that a stack holds masks or probabilities: MipError otherwise."""
    if np.isin(stack, (0, 1, IGNORE_LABEL)).all() and (stack == IGNORE_LABEL).any():
        raise MipError(
            f"{path}: holds the ignore label {IGNORE_LABEL}, which is neither lesion nor not; fuse "
            "projected labels (project --labels projected, labelsTr_projected of a data set)"
        )
    # In this form NaN fails too.
    if not (stack.min() >= 0 and stack.max() <= 1):
        raise MipError(
            f"{path}: masks or probabilities between 0 and 1 are expected, found "
            f"{stack.min():g} to {stack.max():g}"
        )
