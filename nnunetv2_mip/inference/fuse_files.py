"""Fusion of view stacks on disk into 3D masks."""

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from nnunetv2_mip.conventions import IGNORE_LABEL, VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import DEFAULT_RULE, FusionRule
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.io.volumes import has_suffix, write_volume
from nnunetv2_mip.lesions.lesion_table import lesion_table, lesion_table_path, write_lesion_table
from nnunetv2_mip.nnunet.paths import raw_dataset
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.resampling import to_detector
from nnunetv2_mip.views.stack_files import (
    FILE_ENDING,
    GEOMETRY_SUFFIX,
    geometry_path,
    load_geometry,
    load_pixel_mm,
    read_stack,
    require_stack_shape,
)

LESION = 1


def fuse_project_folder(
    folder: Path | str,
    output: Path | str,
    views_file: str,
    suv_path: Path | str | None,
    rule: str | None,
    threshold: float,
    uptake_share: float = 0.0,
) -> None:
    """Fuse one stack of masks or probabilities with the geometry.json beside it.

    Args:
        rule: of `fusion_rules.RULES`; None is `DEFAULT_RULE`.

    Raises:
        MipError: a file is missing, or stack, geometry and SUV do not belong together.
    """
    path = Path(folder) / views_file
    if not path.is_file():
        raise MipError(
            f"{path}: no such file; name the stack to fuse by --views-file (project writes "
            "seg.nii.gz with --seg), or add -d ID for the output of nnUNetv2_predict"
        )
    if Path(output).exists() and path.exists() and Path(output).samefile(path):
        raise MipError(f"{output}: is the stack to fuse; name another output")
    stack, _ = read_stack(path)
    geometry = load_geometry(path)
    pixel_mm = load_pixel_mm(geometry_path(path))
    require_stack_shape(stack, geometry, path, pixel_mm)
    _require_probabilities(stack, path)
    suv = None
    if suv_path is not None:
        volume = read_study(suv_path).suv
        if not volume.grid.same_as(geometry.grid):
            raise MipError(
                f"{suv_path}: lies on another grid than the views came from "
                f"({volume.grid.describe()} against {geometry.grid.describe()})"
            )
        suv = volume.array
    stack = to_detector(stack, geometry, pixel_mm)
    mask = fuse(stack, geometry, FusionRule(rule or DEFAULT_RULE, threshold, uptake_share), suv)
    write_volume(mask, geometry.grid, output)
    write_lesion_table(lesion_table(mask, suv, geometry.grid), lesion_table_path(output))


def fuse_nnunet_output(
    folder: Path | str,
    dataset_id: int,
    output: Path | str,
    geometry_folder: Path | str | None,
    rule: str,
    threshold: float,
) -> list[Path]:
    """Fuse every case of a folder that stock `nnUNetv2_predict` wrote for a MIP data set.

    `<case>.npz` (probabilities) is preferred to `<case>.nii.gz` (masks). Geometries come from
    `geometry_folder`, else from the raw data set's imagesTs and imagesTr.

    Returns:
        The masks written, `<output>/<case>.nii.gz`.

    Raises:
        MipError: no case, or a case without geometry, or of another shape than its geometry.
    """
    folder, output = Path(folder), Path(output)
    if has_suffix(output, VOLUME_SUFFIXES):
        raise MipError(f"{output}: many cases are fused, so -o must be a folder")
    if not folder.is_dir():
        raise MipError(f"{folder}: no such folder")
    if output.is_file():
        raise MipError(f"{output}: is a file; with -d the output is a folder")
    if output.resolve() == folder.resolve():
        raise MipError(f"{output}: is the input folder; fusing into it would replace the views")
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
        found = [p / f"{case}{GEOMETRY_SUFFIX}" for p in places]
        found = [p for p in found if p.is_file()]
        if not found:
            raise MipError(
                f"{places[0] / f'{case}{GEOMETRY_SUFFIX}'}: no such file; name the folder of the "
                "geometry files by --geometry"
            )
        jobs.append((case, path, ViewGeometry.load(found[0]), load_pixel_mm(found[0])))
    written = []
    for case, path, geometry, pixel_mm in tqdm(jobs, unit="case", disable=None):
        probabilities = path.with_name(f"{case}.npz")
        stack = _read_npz(probabilities) if probabilities.is_file() else read_stack(path)[0]
        require_stack_shape(stack, geometry, path, pixel_mm)
        _require_probabilities(stack, path)
        stack = to_detector(stack, geometry, pixel_mm)
        mask = fuse(stack, geometry, FusionRule(rule, threshold))
        target = output / f"{case}{FILE_ENDING}"
        write_volume(mask, geometry.grid, target)
        write_lesion_table(lesion_table(mask, None, geometry.grid), lesion_table_path(target))
        written.append(output / f"{case}{FILE_ENDING}")
    return written


def _read_npz(path: Path) -> np.ndarray:
    """The lesion probabilities (V, H, W) of nnU-Net's `--save_probabilities` file."""
    try:
        with np.load(path) as content:
            return content["probabilities"][LESION]
    except (OSError, KeyError, IndexError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise MipError(f"{path}: is not a nnU-Net probability file ({error})") from None


def _require_probabilities(stack: np.ndarray, path: Path) -> None:
    if np.isin(stack, (0, 1, IGNORE_LABEL)).all() and (stack == IGNORE_LABEL).any():
        raise MipError(
            f"{path}: holds the ignore label {IGNORE_LABEL}, which is neither lesion nor not; fuse "
            "projected labels (project --labels projected, labelsTr_projected of a data set)"
        )
    # Written so that NaN fails too.
    if not (stack.min() >= 0 and stack.max() <= 1):
        raise MipError(
            f"{path}: masks or probabilities between 0 and 1 are expected, found "
            f"{stack.min():g} to {stack.max():g}"
        )
