"""What the tests of DICOM objects share: orientations, positions of voxels, other programs."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

# Image Orientation (Patient) of the slices.
ORIENTATIONS = {
    "head first": [1, 0, 0, 0, 1, 0],
    "head first, prone": [-1, 0, 0, 0, -1, 0],
    "feet first": [-1, 0, 0, 0, 1, 0],
    "rows reversed": [1, 0, 0, 0, -1, 0],
    "rows and columns swapped": [0, 1, 0, 1, 0, 0],
    "slightly oblique": [1, 0.0005, 0, -0.0005, 1, 0],
    "coronal": [1, 0, 0, 0, 0, -1],
    "sagittal": [0, 1, 0, 0, 0, -1],
}
# Row and column spacing, mm.
PIXELS = {"square": [4, 4], "not square": [5, 2.5]}
AXIAL = list(ORIENTATIONS)[:6]


def lesions_on(shape: tuple[int, int, int]) -> np.ndarray:
    """Mask (z, y, x) without symmetry: parts that meet at corners, a part with holes, one voxel."""
    mask = np.zeros(shape, np.uint8)
    mask[1:4, 2:5, 3:9] = 1
    mask[6:9, 2:9, 2:9] = 1
    mask[7, 4:6, 4:6] = mask[7, 7, 6] = mask[8, 3, 4] = 0
    mask[10, 2:4, 2:4] = mask[10, 4:6, 4:6] = 1
    mask[10, 2, 8] = mask[10, 3, 7] = 1
    mask[-2, 1, -1] = 1
    return mask


def positions(image: sitk.Image) -> set[tuple[float, ...]]:
    """Positions (x, y, z) of the voxels that are set, in tenths of mm."""
    voxels = np.argwhere(sitk.GetArrayFromImage(image))[:, ::-1]
    return {
        tuple(np.round(image.TransformIndexToPhysicalPoint([int(i) for i in voxel]), 1) + 0.0)
        for voxel in voxels
    }


def other_program(name: str, *options: object) -> subprocess.CompletedProcess:
    """Run of a program of the `test` extra; skips the test where it is not installed."""
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (extra `test`)")
    command = [path, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def invalid(path: Path) -> list[str]:
    """What David Clunie's dciodvfy finds wrong in a file: its errors."""
    found = other_program("dciodvfy", "-new", path)
    return [line for line in (found.stdout + found.stderr).splitlines() if "Error" in line]
