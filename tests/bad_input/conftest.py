"""Good inputs of every kind, for tests that spoil one of them."""

from pathlib import Path

import numpy as np
import pytest
from bad_input.inputs import RELEASE, SHAPE, STUDY, seg_array, suv_array
from helpers import run, save_png, write_image

from nnunetv2_mip.commands import project


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    """A good input of every kind, and an empty nnUNet_raw."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    write_image(suv_array(), tmp_path / STUDY / "SUV.nii.gz")
    write_image(seg_array(), tmp_path / STUDY / "SEG.nii.gz")
    release = tmp_path / "release"
    write_image(np.full(SHAPE, -900, np.int16), release / "imagesTr" / f"{RELEASE}_0000.nii.gz")
    write_image(suv_array(), release / "imagesTr" / f"{RELEASE}_0001.nii.gz")
    write_image(seg_array(), release / "labelsTr" / f"{RELEASE}.nii.gz")
    picture = np.full((12, 9), 255, np.uint8)
    picture[3:6, 3:6] = 20
    mask = np.where(picture < 30, 255, 0).astype(np.uint8)
    save_png(picture, tmp_path / "png/patients/imgs/patient_001.png")
    save_png(mask, tmp_path / "png/patients/labels/segmentation_001.png")
    save_png(picture, tmp_path / "png/controls/imgs/control_001.png")
    return tmp_path


@pytest.fixture
def views(inputs) -> Path:
    """Views that `project` wrote."""
    study = inputs / STUDY
    arguments = ("--seg", study / "SEG.nii.gz", "--views", 4)
    assert run(project, "-i", study / "SUV.nii.gz", "-o", inputs / "views", *arguments) == 0
    return inputs / "views"
