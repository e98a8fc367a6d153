"""Lines on stderr of the commands, used in a usual way, where stderr is no terminal.

All run one after the other in one fresh process with Python's own filters of warnings, so that
everything is caught that a user would see: warnings of libraries, lines of ITK, progress bars.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import save_png
from tqdm import tqdm

from nnunetv2_mip.commands.plan_and_preprocess import _WithoutBars
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT

STS_001 = Path(os.environ.get("NNUNETV2_MIP_TEST_DATA", "-")) / "petct" / "STS_001"
# What the commands say of inputs and models.
OWN_LINE = re.compile(r"(warning|left out): ")
RUNNER = """
import glob, importlib, json, sys
for name, *words in json.loads(sys.argv[1]):
    words = [glob.glob(word)[0] if "*" in word else word for word in words]
    sys.stdout.flush()
    print(f"\\n<{name}>", file=sys.stderr, flush=True)
    try:
        importlib.import_module(f"nnunetv2_mip.commands.{name}").main(words)
    except SystemExit as ended:
        print(f"{name} {words[:1]}: {ended.code}", flush=True)
"""


def run_all(commands: list[list[str]], folder, environment: dict) -> dict[str, str]:
    """Text on stderr of every command, by its name and number; all end with exit code 0."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\w+ \[.*\]: 0$", done.stdout, re.M)) == len(commands), (
        done.stdout + done.stderr
    )
    parts = re.split(r"\n<(\w+)>\n", done.stderr)
    # What is before the first command, then names and texts by turns.
    assert parts[0] == ""
    return {f"{n}: {name}": text for n, (name, text) in enumerate(zip(parts[1::2], parts[2::2]))}


def noise(found: dict[str, str]) -> dict[str, list[str]]:
    """Lines that are none of the commands' own, by command; ends of lines and bars as well."""
    return {
        name: lines
        for name, text in found.items()
        if (lines := [line for line in text.splitlines() if not OWN_LINE.match(line)])
    }


@pytest.fixture
def environment(tiny, tmp_path) -> dict[str, str]:
    """A user's environment with the tiny trainer and an empty nnUNet_raw and _preprocessed."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    folders = {
        name: str(tmp_path / name)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    return {**own, **folders}


def write_images(folder, count: int = 4) -> None:
    """PNGs, masks and controls in the folders of DM i AI."""
    rng = np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(190, 235, (60, 40)).astype(np.uint8)
        mask = np.zeros_like(image)
        mask[20 + number : 30 + number, 15:25] = 255
        image[mask == 255] = 20
        save_png(image, folder / "patients" / "imgs" / f"patient_{number:03d}.png")
        save_png(mask, folder / "patients" / "labels" / f"segmentation_{number:03d}.png")
        control = np.full((60, 40), 215, np.uint8)
        save_png(control, folder / "controls" / "imgs" / f"control_{number:03d}.png")


@pytest.mark.slow
def test_commands_on_studies_write_no_noise(tiny, environment, tmp_path):
    model = tiny.model
    environment["nnUNet_results"] = str(tiny.results.parent)
    commands = [
        ["phantom", "-o", "phantoms", "-n", "3", "--spacing", "12"],
        ["phantom", "-o", "challenge", "-n", "1", "--spacing", "12", "--layout", "grand-challenge"],
        ["convert_autopet", "-i", "phantoms", "-d", "902", "--views", "3", "-np", "2"],
        ["plan_and_preprocess", "-d", "902", "--preset", tiny.preset, "-np", "1"],
        ["predict", "-i", "phantoms", "-o", "masks", "-m", model, "--views", "3"],
        ["evaluate", "-i", "masks", "-g", "phantoms", "-o", "scores.json", "-np", "1"],
        ["report", "-i", "masks", "-g", "phantoms", "-o", "report.html", "--views", "4"],
        ["project", "-i", "phantoms/*0/*/SUV.nii.gz", "--seg", "phantoms/*0/*/SEG.nii.gz"]
        + ["-o", "views", "--views", "4"],
        ["fuse", "-i", "views", "--views_file", "seg.nii.gz", "-o", "fused.nii.gz"],
        ["info"],
        ["env"],
        # The last one: it sets limits of its process.
        ["grand_challenge", "-i", "challenge/*/input", "-o", "answer", "-m", model]
        + ["-device", "cpu", "--budget", "10000"],
    ]
    assert noise(run_all(commands, tmp_path, environment)) == {}


@pytest.mark.slow
def test_commands_on_images_write_no_noise(tiny, environment, tmp_path):
    write_images(tmp_path / "data")
    model = tiny.model
    # Of a trainer of the package: nnU-Net looks through all of its own before it finds it.
    shutil.copytree(model, tmp_path / "own")
    path = tmp_path / "own" / "fold_0" / CHECKPOINT
    torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerMIP"}, path)
    commands = [
        ["convert_dmiai", "-i", "data", "-d", "903"],
        ["predict", "-i", "data/patients/imgs", "-o", "masks", "-m", model, "--save_pictures"],
        ["evaluate", "-i", "masks", "-g", "data/patients/labels", "-o", "scores.json"],
        ["classify", "train", "-d", "903", "-o", "classifier", "--network", model],
        ["classify", "predict", "-i", "data/patients/imgs", "-o", "s.csv", "-m", "classifier"],
        ["export_model", "-m", model, "-o", "exported", "-f", "0"],
        ["export_model", "-m", "own", "-o", "own_exported", "-f", "0"],
    ]
    assert noise(run_all(commands, tmp_path, environment)) == {}


@pytest.mark.slow
@pytest.mark.skipif(not STS_001.is_dir(), reason="NNUNETV2_MIP_TEST_DATA has no petct/STS_001")
def test_commands_on_dicom_write_no_noise(tiny, environment, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom is not installed")
    commands = [
        ["predict", "-i", STS_001 / "dicom", "-o", "masks", "-m", tiny.model, "--views", "2"]
        + ["--dicom", "seg", "rtstruct", "sr"],
        ["project", "-i", STS_001 / "dicom", "-o", "views", "--views", "2"],
    ]
    assert noise(run_all(commands, tmp_path, environment)) == {}


def test_what_counts_as_noise():
    found = {
        "a": "warning: one study has no CT\nleft out: b: no PET\n",
        "b": "\r  0%|          | 0/3 [00:00<?, ?case/s]\n",
        "c": "x.py:1: FutureWarning: soon\n  call()\n",
        "d": "",
    }
    assert set(noise(found)) == {"b", "c"}


def test_bars_of_nnunet_are_dropped_and_warnings_kept():
    stream = io.StringIO()
    with contextlib.redirect_stderr(_WithoutBars(stream)):
        # As nnU-Net does: whether stderr is a terminal is not asked.
        for _ in tqdm(range(3), disable=False):
            pass
        print("warning: one\n", file=sys.stderr)
    assert stream.getvalue() == "warning: one\n\n"
