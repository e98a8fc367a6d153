"""Bad studies: exit code 2, one line that names the file, nothing left behind."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from bad_input.inputs import RELEASE, SHAPE, STUDY, seg_array, suv_array, write_garbage
from helpers import assert_refused, paths_below, run, truncate, write_image

from nnunetv2_mip.commands import convert_autopet, convert_dmiai, predict, project


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_the_good_input_is_good(workers, inputs):
    np_ = ("-np", workers)
    assert run(convert_autopet, "-i", inputs / "tree", "-d", 1, "--views", 2, *np_) == 0
    assert run(convert_autopet, "-i", inputs / "release", "-d", 2, "--views", 2, *np_) == 0
    assert run(convert_dmiai, "-i", inputs / "png", "-d", 3, *np_) == 0
    assert run(project, "-i", inputs / STUDY / "SUV.nii.gz", "-o", inputs / "v", "--views", 2) == 0
    assert len(list((inputs / "nnUNet_raw").iterdir())) == 3


def set_voxel(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        array = suv_array()
        array[1, 2, 3] = value
        write_image(array, path)

    return spoil


def flip_a_bit(path: Path) -> None:
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    write_image(noise, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut_inside_gzip(path: Path) -> None:
    """A gzip stream that ends well, with too few voxels in it."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))


def oblique(path: Path) -> None:
    image = sitk.GetImageFromArray(suv_array())
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))


BAD_SUV = {
    "nan": (set_voxel(np.nan), "NaN"),
    "infinite": (set_voxel(np.inf), "infinite"),
    "negative": (set_voxel(-3), "negative"),
    "four dimensions": (
        lambda p: write_image(np.ones((2, *SHAPE), np.float32), p),
        "dimensions|several",
    ),
    "two dimensions": (lambda p: write_image(np.ones((9, 9), np.float32), p), "dimensions|several"),
    "all zero": (lambda p: write_image(np.zeros(SHAPE, np.float32), p), "empty"),
    "one voxel": (lambda p: write_image(np.ones((1, 1, 1), np.float32), p), "empty"),
    "truncated": (truncate, "truncated"),
    "almost whole": (lambda p: truncate(p, 0.97), "truncated"),
    "no byte": (lambda p: p.write_bytes(b""), "truncated|damaged"),
    "truncated inside": (cut_inside_gzip, "truncated"),
    "flipped bit": (flip_a_bit, "damaged"),
    "no image": (write_garbage, "neither gzipped nor NIfTI"),
    "oblique": (oblique, "oblique"),
}
BAD_SEG = {
    "smaller grid": (lambda p: write_image(seg_array()[1:], p), "another grid"),
    "moved": (lambda p: write_image(seg_array(), p, origin=(0, 2, 0)), "another grid"),
    "other spacing": (lambda p: write_image(seg_array(), p, spacing=(4, 4, 4)), "another grid"),
    "three values": (lambda p: write_image(seg_array() + np.eye(10, dtype=np.uint8), p), "binary"),
    "truncated": (truncate, "truncated"),
    "four dimensions": (
        lambda p: write_image(np.ones((2, *SHAPE), np.uint8), p),
        "dimensions|several",
    ),
}


def says(pattern: str, line: str) -> bool:
    return any(word in line for word in pattern.split("|"))


@pytest.mark.parametrize("layout", ["tree", "release"])
@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_converted(fault, layout, inputs, capsys):
    release = inputs / "release" / "imagesTr" / f"{RELEASE}_0001.nii.gz"
    path = inputs / STUDY / "SUV.nii.gz" if layout == "tree" else release
    spoil, reason = BAD_SUV[fault]
    spoil(path)
    line = assert_refused(capsys, path, convert_autopet, "-i", inputs / layout, "-d", 1)
    assert says(reason, line)
    assert paths_below(inputs / "nnUNet_raw") == set()


@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_projected(fault, inputs, capsys):
    path = inputs / STUDY / "SUV.nii.gz"
    BAD_SUV[fault][0](path)
    line = assert_refused(capsys, path, project, "-i", path, "-o", inputs / "v")
    assert says(BAD_SUV[fault][1], line)
    assert not (inputs / "v").exists()


@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_predicted(fault, inputs, capsys, tiny_model):
    path = inputs / STUDY / "SUV.nii.gz"
    BAD_SUV[fault][0](path)
    model = ("-m", tiny_model, "-device", "cpu")
    line = assert_refused(capsys, path, predict, "-i", path, "-o", inputs / "out", *model)
    assert says(BAD_SUV[fault][1], line)
    assert not (inputs / "out").exists()


@pytest.mark.parametrize("fault", BAD_SEG)
def test_a_bad_mask_is_not_used(fault, inputs, capsys):
    suv, seg = inputs / STUDY / "SUV.nii.gz", inputs / STUDY / "SEG.nii.gz"
    spoil, reason = BAD_SEG[fault]
    spoil(seg)
    line = assert_refused(capsys, seg, convert_autopet, "-i", inputs / "tree", "-d", 1)
    assert says(reason, line)
    if reason == "another grid":
        assert str(suv) in line
    assert paths_below(inputs / "nnUNet_raw") == set()
    line = assert_refused(capsys, seg, project, "-i", suv, "--seg", seg, "-o", inputs / "v")
    assert says(reason, line)
    assert not (inputs / "v").exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.slow
def test_a_bad_study_beside_a_good_one_leaves_only_whole_work(workers, inputs, capsys):
    """The good study waits, whole, for the second run; there is no data set yet."""
    bad = inputs / "tree" / "PETCT_b" / "s" / "SUV.nii.gz"
    set_voxel(np.nan)(bad)
    write_image(seg_array(), bad.with_name("SEG.nii.gz"))
    arguments = ("-i", inputs / "tree", "-d", 1, "--views", 2, "-np", workers)
    line = assert_refused(capsys, bad, convert_autopet, *arguments)
    assert "1 of 2 cases cannot be converted" in line
    partial = ".Dataset001_AutoPETMIP.partial"
    case = "PETCT_a_first_study"
    assert paths_below(inputs / "nnUNet_raw") == {
        partial,
        f"{partial}/imagesTr",
        f"{partial}/imagesTr/{case}_0000.nii.gz",
        f"{partial}/imagesTr/{case}_geometry.json",
        f"{partial}/imagesTr/{case}_lesions.json",
        f"{partial}/labelsTr",
        f"{partial}/labelsTr/{case}.nii.gz",
        f"{partial}/manifest.json",
        f"{partial}/records",
        f"{partial}/records/{case}.json",
    }


def remove(name: str) -> Callable[[Path], str]:
    def spoil(inputs: Path) -> str:
        (inputs / name).unlink()
        return name

    return spoil


def rename(old: str, new: str, named: str) -> Callable[[Path], str]:
    def spoil(inputs: Path) -> str:
        (inputs / old).rename(inputs / new)
        return named

    return spoil


IMAGES, LABELS = "release/imagesTr", "release/labelsTr"
MISSING = {
    "no SUV": ("tree", remove(f"{STUDY}/SUV.nii.gz")),
    "no SEG": ("tree", rename(f"{STUDY}/SEG.nii.gz", "x", f"{STUDY}/SUV.nii.gz")),
    "small letters": (
        "tree",
        rename(f"{STUDY}/SUV.nii.gz", f"{STUDY}/suv.nii.gz", f"{STUDY}/SUV.nii.gz"),
    ),
    "misnamed mask": (
        "tree",
        rename(f"{STUDY}/SEG.nii.gz", f"{STUDY}/mask.nii.gz", f"{STUDY}/SUV.nii.gz"),
    ),
    "release without SUV": ("release", remove(f"{IMAGES}/{RELEASE}_0001.nii.gz")),
    "release without label": (
        "release",
        rename(f"{LABELS}/{RELEASE}.nii.gz", "x", f"{IMAGES}/{RELEASE}_0001.nii.gz"),
    ),
    "release without channel number": (
        "release",
        rename(
            f"{IMAGES}/{RELEASE}_0001.nii.gz",
            f"{IMAGES}/{RELEASE}.nii.gz",
            f"{IMAGES}/{RELEASE}_0001.nii.gz",
        ),
    ),
    "no folder": ("nowhere", lambda inputs: "nowhere"),
    "a file": (f"{STUDY}/SUV.nii.gz", lambda inputs: f"{STUDY}/SUV.nii.gz"),
    "a folder without studies": ("png", lambda inputs: "png"),
}


@pytest.mark.parametrize("fault", MISSING)
def test_missing_and_misnamed_files_of_studies(fault, inputs, capsys):
    source, spoil = MISSING[fault]
    named = spoil(inputs)
    assert_refused(capsys, inputs / named, convert_autopet, "-i", inputs / source, "-d", 1)
    assert paths_below(inputs / "nnUNet_raw") == set()


@pytest.mark.parametrize("fault", ["no SUV", "small letters", "no folder"])
def test_missing_files_of_studies_when_predicting(fault, inputs, capsys):
    source, spoil = MISSING[fault]
    named = spoil(inputs)
    arguments = ("-i", inputs / source, "-o", inputs / "out", "-m", inputs)
    assert_refused(capsys, inputs / named, predict, *arguments)
    assert not (inputs / "out").exists()
