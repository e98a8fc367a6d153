"""Bad DM-i-AI PNGs: exit code 2, one line that names the file, nothing left behind."""

import shutil

import numpy as np
import pytest
from bad_input.inputs import MASK, PATIENTS, PICTURE, write_garbage
from helpers import assert_refused, paths_below, save_png, truncate

from nnunetv2_mip.commands import convert_dmiai


def values(*numbers: int) -> np.ndarray:
    array = np.zeros((12, 9), np.uint8)
    array[0, : len(numbers)] = numbers
    return array


BAD_PNG = {
    "mask of another size": (lambda h: save_png(values()[:, 1:], h / MASK), MASK, "8x12 pixels"),
    "transposed mask": (lambda h: save_png(values().T, h / MASK), MASK, "12x9 pixels"),
    "mask of 0 and 1": (lambda h: save_png(values(1), h / MASK), MASK, "only 0 and 255"),
    "soft mask": (lambda h: save_png(values(255, 128, 7), h / MASK), MASK, "only 0 and 255"),
    "truncated mask": (lambda h: truncate(h / MASK), MASK, "truncated"),
    "truncated picture": (lambda h: truncate(h / PICTURE), PICTURE, "truncated"),
    "no picture": (lambda h: write_garbage(h / PICTURE), PICTURE, "no PNG"),
    "empty file": (lambda h: (h / PICTURE).write_bytes(b""), PICTURE, "no PNG"),
    "no mask": (lambda h: (h / MASK).unlink(), PATIENTS / "labels" / PICTURE.name, "no such file"),
    "misnamed mask": (
        lambda h: (h / MASK).rename(h / PATIENTS / "labels" / "segmentation_1.png"),
        PATIENTS / "labels" / PICTURE.name,
        "no such file",
    ),
    "mask without picture": (
        lambda h: save_png(values(), h / PATIENTS / "labels" / "segmentation_002.png"),
        PATIENTS / "labels" / "segmentation_002.png",
        "mask of no image",
    ),
    "no pictures": (lambda h: (h / PICTURE).unlink(), PATIENTS / "imgs", "no PNG"),
    "no labels folder": (
        lambda h: shutil.rmtree(h / PATIENTS / "labels"),
        PATIENTS / "labels",
        "no such folder",
    ),
    "no patients folder": (
        lambda h: shutil.rmtree(h / PATIENTS),
        PATIENTS / "imgs",
        "no such folder",
    ),
    "one name twice": (
        lambda h: save_png(values(), h / "png/controls/imgs/patient_001.png"),
        "png",
        "same case name patient_001",
    ),
}


@pytest.mark.parametrize("fault", BAD_PNG)
def test_bad_pngs_are_not_converted(fault, inputs, capsys):
    spoil, named, reason = BAD_PNG[fault]
    spoil(inputs)
    data = ("-i", inputs / "png", "-d", 1, "--controls")
    # Without the controls nothing good is left to wait for a second run.
    count = "all" if fault == "one name twice" else 0
    line = assert_refused(capsys, inputs / named, convert_dmiai, *data, count)
    assert reason in line
    if fault != "mask without picture":
        assert paths_below(inputs / "nnUNet_raw") == set()
    else:
        assert not (inputs / "nnUNet_raw" / "Dataset001_DMIAI").exists()


def test_more_controls_than_there_are(inputs, capsys):
    arguments = ("-i", inputs / "png", "-d", 1, "--controls", 5)
    line = assert_refused(capsys, inputs / "png/controls/imgs", convert_dmiai, *arguments)
    assert "holds 1 PNGs" in line
    assert paths_below(inputs / "nnUNet_raw") == set()
