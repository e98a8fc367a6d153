"""The bundled model on a real SUV volume, with the settings that ship."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnunetv2_mip.evaluation.metrics import dice
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.io.read_study import read_study
from nnunetv2_mip.io.volumes import read_mask
from nnunetv2_mip.nnunet.model_folder import (
    BUNDLED,
    bundled_model,
    image_model_folder,
    models_folder,
)

pytestmark = pytest.mark.skipif(
    not (models_folder() / BUNDLED).is_dir(), reason="the bundled model was removed"
)


def test_settings_of_volumes_and_of_images():
    folder = bundled_model()
    volumes, images = (InferenceConfig.load(x) for x in (folder, image_model_folder(folder)))
    assert volumes.fusion.outline_share == 0.4 and volumes.regions is not None
    assert images.regions is None and volumes.healthy_image is None


@pytest.mark.slow
def test_the_sarcoma_is_marked_and_the_ureter_is_not():
    """STS_001: a faint sarcoma of 366 ml in the thigh, a filled ureter, myocardium, a bladder."""
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set (real data for tests)")
    folder = Path(data) / "petct" / "STS_001"
    if not folder.is_dir():
        pytest.skip(f"{folder}: not there")
    study = read_study(folder / "SUV.nii.gz")
    truth = read_mask(folder / "SEG.nii.gz").array > 0
    predictor = MIPPredictor.from_model_folder(bundled_model(), device="cpu")
    mask = predictor.predict_study(study).mask > 0
    assert dice(mask, truth) >= 0.8
    regions, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert set(np.unique(regions[truth])) >= set(range(1, count + 1))
