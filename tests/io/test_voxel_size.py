"""Voxel sizes that no patient's image has, the same rule for every format."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import write_image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import read_mask, read_suv, read_volume, write_volume
from nnunetv2_mip.io.voxel_size import in_plausible_unit

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
ENDINGS = [".nii.gz", ".mha", ".nrrd"]


def grid(spacing: float | tuple, size: tuple = (30, 24, 40), origin: float = 5.0) -> SourceGrid:
    spacing = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    return SourceGrid(size, spacing, (origin,) * 3, IDENTITY)


@pytest.mark.parametrize("unit", [0.001, 0.1, 1000.0])
@pytest.mark.parametrize("ending", ENDINGS)
def test_metres_centimetres_and_micrometres_are_recognised_and_told(unit, ending, tmp_path):
    suv = np.ones((40, 24, 30), np.float32)
    spacing, origin = (4.0, 4.0, 3.0), (-60.0, 20.0, -500.0)
    other = [tuple(value * unit for value in values) for values in (spacing, origin)]
    source = write_image(suv, tmp_path / f"suv{ending}", *other, "RAS")
    volume = read_suv(source)
    assert volume.spacing_mm == pytest.approx((3, 4, 4))
    (line,) = volume.warnings
    assert line.startswith(f"{source}: has voxels of") and "are read as 4 x 4 x 3 mm" in line
    # A mask in mm lies on it, and a mask that is written has the lengths of the source.
    read_mask(write_image(suv.astype(np.uint8), tmp_path / f"seg{ending}", spacing, origin), volume)
    write_volume(suv.astype(np.uint8), volume.grid, tmp_path / f"out{ending}")
    before, after = (sitk.ReadImage(str(p)) for p in (source, tmp_path / f"out{ending}"))
    assert after.GetSpacing() == pytest.approx(before.GetSpacing(), rel=1e-6)
    assert after.GetOrigin() == pytest.approx(before.GetOrigin(), rel=1e-6)


@pytest.mark.parametrize(
    "spacing",
    [0.05, (0.1, 4.0, 4.0), 100.0, 400.0],
)
def test_sizes_of_no_image_are_refused(spacing):
    with pytest.raises(MipError, match=r"^scan: has voxels of .* which no PET has; write it"):
        in_plausible_unit(grid(spacing), "scan")


@pytest.mark.parametrize(
    ("spacing", "size", "word"),
    [
        # A mouse, or a body in cm.
        ((0.204, 0.204, 0.3), (400, 400, 326), "too small for a patient"),
        (0.8, (128, 128, 159), "too small for a patient"),
        (4.0, (2, 2, 2), "too small for a patient"),
    ],
)
def test_doubt_is_told_and_the_header_stands(spacing, size, word):
    found, (line,) = in_plausible_unit(grid(spacing, size), "scan")
    assert found.spacing == grid(spacing, size).spacing
    assert word in line


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        ((2.04, 2.04, 3.0), (400, 400, 326)),
        # A brain, a long axial field of view, CT, one thick slice, and a stack of views.
        ((1.22, 1.22, 1.22), (256, 256, 207)),
        ((1.65, 1.65, 1.65), (440, 440, 1200)),
        ((0.98, 0.98, 0.6), (512, 512, 1500)),
        ((4.0, 4.0, 50.0), (128, 128, 1)),
        ((2.0, 2.0, 1000.0), (300, 400, 48)),
        ((1.0, 1.0, 1.0), (200, 200, 200)),
    ],
)
def test_usual_sizes_are_taken_in_silence(spacing, size):
    assert in_plausible_unit(grid(spacing, size), "scan") == (grid(spacing, size), [])


def test_a_header_that_was_lost_is_told(tmp_path):
    path = tmp_path / "suv.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((40, 40, 40), np.float32)), str(path))
    (line,) = read_suv(path).warnings
    assert "voxels of 1 x 1 x 1 mm at the origin" in line


def headed(path: Path, head: str, array: np.ndarray) -> Path:
    """File with a header in text before its voxels."""
    path.write_bytes(head.encode() + array.tobytes())
    return path


NRRD = "NRRD0004\ntype: float\ndimension: 3\nsizes: 30 24 40\nencoding: raw\nendian: little\n{}\n\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "DimSize = 30 24 40\nElementType = MET_FLOAT\n{}\nElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize(
    ("name", "head", "told"),
    [
        ("a.nrrd", NRRD.format("spacings: 4 4 3"), "has no orientation"),
        (
            "b.nrrd",
            NRRD.format("space: 3D-right-handed\nspace directions: (4,0,0) (0,4,0) (0,0,3)"),
            "has no orientation",
        ),
        ("c.nrrd", NRRD.format("space: LPS\nspace directions: (4,0,0) (0,4,0) (0,0,3)"), None),
        ("d.mha", MHA.format("ElementSpacing = 4 4 3"), "has no orientation"),
        (
            "e.mha",
            MHA.format("ElementSpacing = 4 4 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1"),
            None,
        ),
    ],
)
def test_mha_and_nrrd_without_orientation_are_told(name, head, told, tmp_path, capfd):
    volume = read_suv(headed(tmp_path / name, head, np.ones((40, 24, 30), np.float32)))
    assert volume.grid.spacing == (4, 4, 3)
    assert [told in line for line in volume.warnings] == ([True] if told else [])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.nrrd", NRRD.format("spacings: 4 4 0")),
        ("b.mha", MHA.format("ElementSpacing = 4 0 3")),
    ],
)
def test_a_voxel_size_of_0_is_named(name, head, tmp_path):
    path = headed(tmp_path / name, head, np.ones((40, 24, 30), np.float32))
    with pytest.raises(MipError, match="has a voxel size of 0 in its header") as refused:
        read_volume(path)
    assert str(path) in str(refused.value) and "truncated" not in str(refused.value)
