"""A model of its own for single images within a model folder."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_refused

from nnunetv2_mip.commands import export_model as export_command
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.export import export_model
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, IMAGE_MODEL, image_model_folder

LEVELS = np.random.default_rng(1).integers(0, 256, (64, 48)).astype(np.uint8)


@pytest.fixture
def both(tiny_model: Path, tmp_path: Path) -> Path:
    """Trained model, and a model for images that marks everything, at a threshold of its own."""
    images = tmp_path / "images"
    shutil.copytree(tiny_model, images)
    path = images / "fold_0" / CHECKPOINT
    content = torch.load(path, weights_only=False)
    weights = content["network_weights"]
    for name in [name for name in weights if "seg_layers" in name]:
        weights[name] = torch.zeros_like(weights[name])
        if name.endswith("bias"):
            weights[name][1] = 1.0
    torch.save(content, path)
    replace(InferenceConfig.load(images), threshold=0.7).save(images)
    return export_model(tiny_model, tmp_path / "both", [0], images=images)


def test_images_are_predicted_by_their_own_model(both: Path, tiny_model: Path):
    predictor, alone = (MIPPredictor.from_model_folder(x, device="cpu") for x in (both, tiny_model))
    mask, probability = predictor.predict_image(LEVELS)
    # Log odds of 1 everywhere: the logistic function of 1.
    assert probability == pytest.approx(np.full(LEVELS.shape, 1 / (1 + np.exp(-1))), abs=1e-3)
    assert mask.all()
    stack = predictor.view_probabilities(LEVELS[None], (4.0, 4.0))
    assert stack == pytest.approx(alone.view_probabilities(LEVELS[None], (4.0, 4.0)), abs=5e-3)
    assert stack.std() > 0


def test_settings_of_images_are_their_own(both: Path, tiny_model: Path):
    predictor = MIPPredictor.from_model_folder(both, device="cpu")
    assert predictor.for_images.config.threshold == 0.7
    assert predictor.config == InferenceConfig.load(tiny_model)
    stricter = predictor.override(threshold=0.8)
    assert not stricter.predict_image(LEVELS)[0].any()
    assert (stricter.config.threshold, stricter.for_images.config.threshold) == (0.8, 0.8)
    alone = MIPPredictor.from_model_folder(tiny_model, device="cpu")
    assert alone.for_images is alone


def test_a_copy_takes_the_image_model_along(both: Path, tmp_path: Path):
    again = export_model(both, tmp_path / "again", [0])
    for folder in (both, again):
        assert image_model_folder(folder) == folder / IMAGE_MODEL
        assert InferenceConfig.load(folder / IMAGE_MODEL).threshold == 0.7
    assert image_model_folder(again / IMAGE_MODEL) == again / IMAGE_MODEL


def test_a_copy_without_its_image_model_is_not_written(tiny_model: Path, tmp_path: Path, capsys):
    missing, out = tmp_path / "missing", tmp_path / "out"
    options = ("-m", tiny_model, "-o", out, "-f", "0", "--images", missing)
    assert_refused(capsys, missing, export_command, *options)
    assert not out.exists()
