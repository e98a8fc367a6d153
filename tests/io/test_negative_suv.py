"""Negative SUV: noise around 0 counts as 0 with a line, other negative values are no SUV."""

from pathlib import Path

import numpy as np
import pytest
from helpers import write_image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.grand_challenge.layout import read_challenge_pet
from nnunetv2_mip.io.volumes import Volume, read_suv, without_negative

SHAPE = (12, 16, 20)


def pet(noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """SUV of a body in air, with noise around 0 everywhere."""
    suv = np.zeros(SHAPE, np.float32)
    suv[2:10, 4:12, 4:16] = 1
    suv[4:6, 6:8, 6:8] = 8
    return suv + np.random.default_rng(seed).normal(0, noise, SHAPE).astype(np.float32)


def hounsfield(air: float = -1000.0, bone: float = 1500.0) -> np.ndarray:
    suv = pet()
    return np.where(suv == 0, air, np.where(suv > 1, bone, 40)).astype(np.float32)


def by_file(array: np.ndarray, folder: Path) -> tuple[Volume, tuple[str, ...]]:
    volume = read_suv(write_image(array, folder / "pet.nii.gz"))
    return volume, volume.warnings


def by_container(array: np.ndarray, folder: Path) -> tuple[Volume, tuple[str, ...]]:
    lines: list[str] = []
    return read_challenge_pet(write_image(array, folder / "pet.mha"), lines.append), tuple(lines)


DOORS = {"file": by_file, "container": by_container}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_noise_of_a_reconstruction_counts_as_0_and_is_told(door, noise, tmp_path):
    array = pet(noise)
    volume, (line,) = DOORS[door](array, tmp_path)
    np.testing.assert_array_equal(volume.array, np.maximum(array, 0))
    count = np.count_nonzero(array < 0)
    assert f"{count} voxels are below 0 (lowest {array.min():.4g}) and read as 0" in line


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("lowest", [-0.05, -2.0, -3.9])
def test_a_few_negative_voxels_count_as_0(door, lowest, tmp_path):
    array = pet()
    array[0, 0, :2] = lowest
    volume, (line,) = DOORS[door](array, tmp_path)
    assert volume.array.min() == 0 and "2 voxels are below 0" in line


@pytest.mark.parametrize("door", DOORS)
def test_rounding_is_not_worth_a_line(door, tmp_path):
    array = pet()
    array[0, 0, :2] = -1e-4
    volume, lines = DOORS[door](array, tmp_path)
    assert volume.array.min() == 0 and lines == ()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "array",
    [
        hounsfield(),
        # Metal, a window of soft tissue, values with their mean taken away, one absurd voxel.
        hounsfield(bone=30000.0),
        hounsfield(-160.0, 240.0),
        pet() - pet().mean(),
        np.where(np.arange(SHAPE[2]) == 0, np.float32(-4), pet()),
    ],
)
def test_what_is_no_suv_is_refused(door, array, tmp_path):
    with pytest.raises(MipError, match=r"pet\.\w+.*: has negative values .* so it is not SUV"):
        DOORS[door](array, tmp_path)


def test_an_array_that_may_not_be_written_stays_as_it_is():
    array = pet()
    array[0, 0, 0] = -0.5
    array.flags.writeable = False
    found, lines = without_negative(array, "scan", -0.5)
    assert found.min() == 0 and array.min() == -0.5 and len(lines) == 1
