"""Exported and bundled models through the real predict command."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import run
from PIL import Image

from nnunetv2_mip.commands import export_model as export_command
from nnunetv2_mip.commands import predict
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.export import export_model
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.nnunet.model_folder import BUNDLED, bundled_model, models_folder

LARGEST_MB = 20


@pytest.fixture
def exported(tiny_model, tmp_path):
    folder = tmp_path / "exported"
    assert run(export_command, "-m", tiny_model, "-o", folder, "-f", 0) == 0
    return folder


def test_half_weights_predict_what_the_trained_model_does(tiny_model, exported, monkeypatch):
    levels = np.random.default_rng(0).integers(0, 256, (44, 36)).astype(np.uint8)
    _, expected = MIPPredictor.from_model_folder(tiny_model, [0], device="cpu").predict_image(
        levels
    )
    # Without nnU-Net's variables or our trainers: what a user who only predicts has.
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.delenv(variable, raising=False)
    predictor = MIPPredictor.from_model_folder(exported, device="cpu")
    _, found = predictor.predict_image(levels)
    assert np.abs(found - expected).max() < 5e-3
    assert not np.array_equal(found, np.zeros_like(found))


def test_what_is_exported(tiny_model, exported):
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    assert names == {
        "dataset.json",
        "plans.json",
        "inference.json",
        "fold_0/checkpoint_final.pth",
    }
    path = exported / "fold_0" / "checkpoint_final.pth"
    # Plain tensors and numbers: nothing in it can run code.
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["network_weights"]
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["trained_by"] == "nnUNetTrainerMIP_tiny"
    unique = {value.data_ptr(): value.numel() for value in weights.values()}
    assert path.stat().st_size < 2 * sum(unique.values()) + 60_000
    for text in (exported / "dataset.json", exported / "plans.json"):
        assert "ann" not in json.dumps(json.loads(text.read_text())).split('"')
        assert "patients" not in text.read_text()


def test_export_refuses_what_it_cannot_do(tiny_model, exported, tmp_path, capsys):
    assert run(export_command, "-m", tiny_model, "-o", exported, "-f", 0) == 2
    assert "exists" in capsys.readouterr().err
    assert run(export_command, "-m", tiny_model, "-o", tmp_path / "new", "-f", 3) == 2
    assert "fold_3" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "fold_0" / "checkpoint_final.pth").write_bytes(b"no")
    with pytest.raises(MipError, match="not a checkpoint"):
        export_model(broken, tmp_path / "new", [0])
    assert not (tmp_path / "new").exists()


def test_without_the_bundled_model_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "nnunetv2_mip.nnunet.model_folder.models_folder", lambda: tmp_path / "models"
    )
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(tmp_path / "a.png")
    assert run(predict, "-i", tmp_path / "a.png", "-o", tmp_path / "out.png") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no bundled model" in error
    assert "-m FOLDER" in error
    assert not (tmp_path / "out.png").exists()


needs_bundle = pytest.mark.skipif(
    not (models_folder() / BUNDLED).is_dir(), reason="the bundled model was removed"
)


@needs_bundle
@pytest.mark.slow
def test_the_bundled_model_segments_a_png(tmp_path, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.delenv(variable, raising=False)
    pixels = np.full((300, 400), 255, np.uint8)
    pixels[30:270, 100:300] = 215
    pixels[120:150, 180:205] = 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert run(predict, "-i", tmp_path / "a.png", "-o", tmp_path / "m.png", "-device", "cpu") == 0
    mask = np.asarray(Image.open(tmp_path / "m.png"))
    assert mask.shape == pixels.shape
    assert set(np.unique(mask)) <= {0, 255}


@needs_bundle
def test_the_bundled_model_is_small_and_names_nobody():
    folder = bundled_model()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_MB * 1e6
    assert {"MODEL_CARD.md", "NOTICE", "inference.json", "plans.json", "dataset.json"} <= {
        path.name for path in files
    }
    assert InferenceConfig.load(folder).channels == ("suv",)
    for path in files:
        if path.suffix == ".json":
            assert "patient_" not in path.read_text("utf-8")
            assert "/" + "work" not in path.read_text("utf-8")
    for path in folder.rglob("fold_*/*.pth"):
        torch.load(path, weights_only=True)
