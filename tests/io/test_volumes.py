"""Volumes: canonical axes, the way back to the source grid, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.nifti import read_nifti_voxels
from nnunetv2_mip.io.volumes import (
    body_median_suv,
    read_mask,
    read_suv,
    read_volume,
    suv_warning,
    without_suffix,
    write_volume,
)

AXIS_ORDERS = ("LPS", "LSP", "PLS", "PSL", "SLP", "SPL")
OPPOSITE = {"L": "R", "P": "A", "S": "I"}


def lps_image(shape=(4, 5, 6), spacing=(1.0, 2.0, 3.0), seed=0) -> sitk.Image:
    array = np.random.default_rng(seed).random(shape).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((5.0, -6.0, 7.0))
    return image


def all_codes() -> list[str]:
    codes = []
    for order in AXIS_ORDERS:
        for flips in range(8):
            letters = [OPPOSITE[c] if flips >> i & 1 else c for i, c in enumerate(order)]
            codes.append("".join(letters))
    return codes


@pytest.mark.parametrize("code", all_codes())
@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_any_axis_codes_give_the_same_patient_and_come_back_exactly(code, ending, tmp_path):
    reference = lps_image()
    stored = sitk.DICOMOrient(reference, code)
    source, copy = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    sitk.WriteImage(stored, str(source))
    volume = read_volume(source)
    assert np.array_equal(volume.array, sitk.GetArrayFromImage(reference))
    assert volume.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    write_volume(volume.array, volume.grid, copy)
    before, after = sitk.ReadImage(str(source)), sitk.ReadImage(str(copy))
    assert np.array_equal(sitk.GetArrayFromImage(before), sitk.GetArrayFromImage(after))
    assert before.GetSpacing() == after.GetSpacing()
    assert before.GetOrigin() == after.GetOrigin()
    assert before.GetDirection() == after.GetDirection()


@given(code=st.sampled_from(all_codes()), shape=st.tuples(*[st.integers(1, 5)] * 3))
@settings(max_examples=60, deadline=None)
def test_to_and_from_canonical_are_inverse(code, shape):
    image = sitk.DICOMOrient(lps_image(shape), code)
    grid = SourceGrid.of_image(image)
    stored = sitk.GetArrayFromImage(image)
    canonical = grid.to_canonical(stored)
    assert canonical.shape == grid.shape_zyx == shape
    assert np.array_equal(grid.from_canonical(canonical), stored)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_integer_files_with_a_scale_are_read_as_itk_reads_them(ending, tmp_path):
    path = tmp_path / f"v{ending}"
    image = sitk.Cast(lps_image() * 100, sitk.sitkInt16)
    sitk.WriteImage(image, str(path))
    assert np.array_equal(read_volume(path).array, sitk.GetArrayFromImage(image))


def test_nifti_slope_and_intercept_are_applied(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "v.nii.gz"
    stored = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    stored.header.set_slope_inter(0.5, 2.0)
    nibabel.save(stored, path)
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"))
    assert expected.max() == pytest.approx(23 * 0.5 + 2.0)
    assert np.allclose(read_volume(path).array, expected)


def _write(path: Path, array: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (-5.0, "negative")],
)
def test_values_that_cannot_be_suv_are_refused(value, message, ending, tmp_path):
    array = np.ones((3, 4, 5), np.float32)
    array[1, 2, 3] = value
    path = _write(tmp_path / f"suv{ending}", array)
    with pytest.raises(MipError, match=message) as caught:
        read_suv(path)
    assert str(path) in str(caught.value)


def test_rounding_below_zero_is_clipped(tmp_path):
    array = np.ones((3, 4, 5), np.float32)
    array[0, 0, 0] = -1e-5
    assert read_suv(_write(tmp_path / "suv.nii.gz", array)).array.min() == 0


def test_what_is_no_volume_is_refused(tmp_path):
    flat = _write(tmp_path / "flat.nii.gz", np.ones((4, 5), np.float32))
    moving = _write(tmp_path / "4d.nii.gz", np.ones((2, 3, 4, 5), np.float32))
    colour = tmp_path / "colour.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 4, 5, 2)), isVector=True), str(colour))
    dark = _write(tmp_path / "dark.nii.gz", np.zeros((3, 4, 5), np.float32))
    turned = lps_image()
    turned.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    oblique = tmp_path / "oblique.nii.gz"
    sitk.WriteImage(turned, str(oblique))
    reasons = [
        (flat, "dimensions|values per voxel|empty"),
        (moving, "dimensions|several values"),
        (colour, "several values"),
        (dark, "empty"),
        (oblique, "oblique"),
    ]
    for path, reason in reasons:
        with pytest.raises(MipError, match=reason) as caught:
            read_suv(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(share, tmp_path):
    whole = _write(
        tmp_path / "whole.nii.gz",
        np.random.default_rng(0).random((20, 20, 20)).astype(np.float32),
    )
    cut = tmp_path / "cut.nii.gz"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MipError, match=r"cut\.nii\.gz"):
        read_suv(cut)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = _write(
        tmp_path / "v.nii.gz", np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(MipError, match="damaged"):
        read_suv(path)


def test_a_mask_must_be_binary_and_on_the_same_grid(tmp_path):
    suv = read_suv(_write(tmp_path / "suv.nii.gz", np.ones((3, 4, 5), np.float32)))
    seg = np.zeros((3, 4, 5), np.uint8)
    seg[1, 1, 1] = 255
    assert read_mask(_write(tmp_path / "seg.nii.gz", seg), suv).array.sum() == 1
    seg[2, 2, 2] = 3
    with pytest.raises(MipError, match="not a binary mask"):
        read_mask(_write(tmp_path / "many.nii.gz", seg), suv)
    with pytest.raises(MipError, match="another grid"):
        read_mask(_write(tmp_path / "other.nii.gz", seg[:2]), suv)
    moved = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    moved.SetOrigin((0.5, 0, 0))
    sitk.WriteImage(moved, str(tmp_path / "moved.nii.gz"))
    with pytest.raises(MipError, match="another grid"):
        read_mask(tmp_path / "moved.nii.gz", suv)


def test_the_unit_is_judged_by_the_body_not_by_the_air(tmp_path):
    body = np.zeros((20, 20, 20), np.float32)
    body[5:15, 5:15, 5:15] = 0.8
    assert body_median_suv(body) == pytest.approx(0.8)
    good = read_suv(_write(tmp_path / "suv.nii.gz", body))
    assert suv_warning(good) is None
    activity = read_suv(_write(tmp_path / "bqml.nii.gz", body * 4000))
    assert "Bq/ml" in suv_warning(activity)


def test_a_gzip_of_several_members_is_read_whole(tmp_path):
    """bgzip and concatenated files; the size at the end is that of the last member only."""
    array = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "plain.nii"))
    content = (tmp_path / "plain.nii").read_bytes()
    for cuts in ((100,), (len(content) // 2,), (200, 600, 700), (len(content) - 3,)):
        parts = [content[a:b] for a, b in zip((0, *cuts), (*cuts, len(content)))]
        path = tmp_path / "members.nii.gz"
        path.write_bytes(b"".join(gzip.compress(part) for part in parts))
        found = read_nifti_voxels(path)
        np.testing.assert_array_equal(found.reshape(array.shape), array)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/case_0000.nii.gz", "case_0000"),
        ("CASE.NII.GZ", "CASE"),
        ("case.v2.mha", "case.v2"),
        ("case.png", "case.png"),
        ("case", "case"),
    ],
)
def test_a_name_loses_its_image_suffix_only(path, name):
    assert without_suffix(path) == without_suffix(Path(path)) == name


def test_the_first_suffix_that_fits_is_taken_off():
    assert without_suffix("case.v2.mha", (".v2.mha", ".mha")) == "case"
    assert without_suffix("case.png", (".png",)) == "case"
