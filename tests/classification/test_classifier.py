"""Classifiers: bundled, of another network, and the modules that need no torch."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_mip.classification.classifier import load_classifier
from nnunetv2_mip.classification.classifier_file import (
    FILE_NAME,
    find_classifier,
    read_classifier,
)
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.model_folder import bundled_model, image_model_folder


def test_bundled_classifier_belongs_to_the_bundled_network(tmp_path, few_threads):
    try:
        path = find_classifier(None)
    except MipError as error:
        pytest.skip(str(error))
    assert path.parent == image_model_folder(bundled_model())
    assert path.stat().st_size <= 2e6
    about, _ = read_classifier(path)
    # No folder of the machine that made it.
    assert about["network"] == "."
    classifier = load_classifier(device="cpu")
    levels = np.zeros((1, 120, 80), np.uint8)
    levels[:, 5:-5, 10:-10] = 40
    score = classifier.score(levels, (2.0, 2.0))
    assert 0 <= score.probability <= 1
    assert list(score.weights) == [1.0]


def test_a_head_of_another_network_is_refused(trained, tiny, tmp_path, capsys, classify):
    out = trained[0]
    other = tmp_path / "model"
    shutil.copytree(tiny.model, other, ignore=shutil.ignore_patterns("validation", "*.png"))
    path = other / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    next(iter(checkpoint["network_weights"].values())).mul_(1.001)
    torch.save(checkpoint, path)
    shutil.copy(out / FILE_NAME, other)
    Image.fromarray(np.full((44, 36), 200, np.uint8)).save(tmp_path / "a.png")
    arguments = ["predict", "-i", tmp_path / "a.png", "-o", tmp_path / "s.csv", "-device", "cpu"]
    for named in (["-m", other], ["-m", out, "--network", other]):
        assert classify(*arguments, *named) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "belongs to another network" in error
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.slow
def test_scores_heads_and_data_need_no_torch():
    code = (
        "import sys; import nnunetv2_mip.classification.classifier, "
        "nnunetv2_mip.classification.metrics, "
        "nnunetv2_mip.classification.folds, nnunetv2_mip.classification.head, "
        "nnunetv2_mip.classification.head_fitting, nnunetv2_mip.classification.data, "
        "nnunetv2_mip.commands.classify; "
        "print([n for n in ('torch', 'nnunetv2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
