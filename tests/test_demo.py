"""Demo command: every step as a user runs it, on coarse phantoms."""

import json

import imageio.v3 as imageio
import pytest
from PIL import Image

from nnunetv2_mip.commands import demo

TRAINER = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_glimpse(nnUNetTrainerMIP):
    epochs = 1
    iterations_per_epoch = 2
    val_iterations_per_epoch = 1
"""


@pytest.mark.slow
def test_the_demo_from_phantoms_to_pictures(tmp_path, monkeypatch, capsys):
    trainers = tmp_path / "trainers"
    trainers.mkdir()
    (trainers / "nnUNetTrainerMIP_glimpse.py").write_text(TRAINER)
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers))
    out = tmp_path / "demo"
    sizes = ["--train", "4", "--test", "2", "--views", "2", "--spacing", "10"]
    with pytest.raises(SystemExit) as ended:
        demo.main(["-o", str(out), *sizes, "-tr", "nnUNetTrainerMIP_glimpse"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err + (out / "demo.log").read_text()[-2000:]
    report = json.loads((out / "metrics.json").read_text())
    assert report["kind"] == "volume"
    assert len(report["cases"]) == 2
    # The test seed, 1047.
    assert all(case.startswith("PETCT_0417") for case in report["cases"])
    assert "mean 3D Dice on unseen patients" in said.out
    assert "nnUNetv2_train 100 2d 0" in said.out
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 500
    assert len(imageio.imread(out / "rotating_mip.gif", index=None)) >= 16
    assert len(list((out / "predictions").glob("*.nii.gz"))) == 2
    with pytest.raises(SystemExit) as again:
        demo.main(["-o", str(out)])
    assert again.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_step_that_fails_is_named_with_its_log(tmp_path, capsys):
    out = tmp_path / "demo"
    with pytest.raises(SystemExit) as ended:
        demo.main(["-o", str(out), "--train", "0"])
    assert ended.value.code == 2
    assert "demo.log" in capsys.readouterr().err
