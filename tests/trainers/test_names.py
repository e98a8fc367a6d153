"""Trainer names: nnU-Net's own search finds every published one, with its settings."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_mip.nnunet.paths import add_own_trainers, trainers_folder
from nnunetv2_mip.plans.presets import preset_names
from nnunetv2_mip.trainers.ablations import variants
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP

# Written out: checkpoints, scores and users' scripts name them.
NAMES = (
    "nnUNetTrainerMIP",
    "nnUNetTrainerMIP_1epoch",
    "nnUNetTrainerMIP_5epochs",
    "nnUNetTrainerMIP_10epochs",
    "nnUNetTrainerMIP_20epochs",
    "nnUNetTrainerMIP_50epochs",
    "nnUNetTrainerMIP_100epochs",
    "nnUNetTrainerMIP_250epochs",
    "nnUNetTrainerMIP_500epochs",
    "nnUNetTrainerMIP_SGD",
    "nnUNetTrainerMIP_demo",
    "nnUNetTrainerMIP_L2S",
    "nnUNetTrainerMIP_L2S3D",
    "nnUNetTrainerMIP_volumes",
    "nnUNetTrainerMIP_recipe",
    "nnUNetTrainerMIP_recipe_10epochs",
    "nnUNetTrainerMIP_recipe_15epochs",
    "nnUNetTrainerMIP_recipe_100epochs",
    "nnUNetTrainerMIP_recipe_L2S",
    "nnUNetTrainerMIP_recipe_allControls",
    "nnUNetTrainerMIP_recipe_diceCE",
    "nnUNetTrainerMIP_recipe_halfPatients",
    "nnUNetTrainerMIP_recipe_halfRate",
    "nnUNetTrainerMIP_recipe_imageDice",
    "nnUNetTrainerMIP_recipe_noAverage",
    "nnUNetTrainerMIP_recipe_noControls",
    "nnUNetTrainerMIP_recipe_noImpulse",
    "nnUNetTrainerMIP_recipe_noSaturation",
    "nnUNetTrainerMIP_recipe_paste",
    "nnUNetTrainerMIP_recipe_poly",
    "nnUNetTrainerMIP_recipe_quarterPatients",
    "nnUNetTrainerMIP_muon",
    "nnUNetTrainerMIP_muon_3epochs",
    "nnUNetTrainerMIP_muon_10epochs",
    "nnUNetTrainerMIP_muon_100epochs",
    "nnUNetTrainerMIP_muon_coarse",
    "nnUNetTrainerMIP_muon_fine",
    "nnUNetTrainerMIP_muon_third",
    "nnUNetTrainerMIP_mixed_coarse",
    "nnUNetTrainerMIP_mixed_fine",
    "nnUNetTrainerMIP_mixed_third",
    "nnUNetTrainerMIP_mixed_images",
    "nnUNetTrainerMIP_muon_half",
    "nnUNetTrainerMIP_muon_double",
    "nnUNetTrainerMIP_muon_half_paste",
    "nnUNetTrainerMIP_muon_allControls",
    "nnUNetTrainerMIP_muon_diceCE",
    "nnUNetTrainerMIP_muon_halfPatients",
    "nnUNetTrainerMIP_muon_imageDice",
    "nnUNetTrainerMIP_muon_noAverage",
    "nnUNetTrainerMIP_muon_noControls",
    "nnUNetTrainerMIP_muon_noImpulse",
    "nnUNetTrainerMIP_muon_noSaturation",
    "nnUNetTrainerMIP_muon_paste",
    "nnUNetTrainerMIP_muon_poly",
    "nnUNetTrainerMIP_muon_quarterPatients",
)
# A fresh process: `nnUNet_extTrainer` names the installed folder, as `nnUNetv2_mip_env` sets it.
SEARCH = """
import contextlib, io, json, os, sys
sys.path[:0] = sys.argv[2:]
from nnunetv2_mip.nnunet.paths import trainers_folder
os.environ["nnUNet_extTrainer"] = str(trainers_folder())
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
found = {}
with contextlib.redirect_stdout(io.StringIO()):
    for name in json.loads(sys.argv[1]):
        trainer = recursive_find_trainer_class_by_name(name)
        found[name] = [trainer.__name__, trainer.epochs]
print(json.dumps([str(trainers_folder()), found]))
"""


def search(*site: str) -> tuple[Path, dict[str, list]]:
    """The trainers' folder of an installation, and name → [name of the class, epochs]."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, json.dumps(NAMES), *site],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, found = json.loads(done.stdout.splitlines()[-1])
    return Path(folder), found


def check(found: dict[str, list]) -> None:
    assert list(found) == list(NAMES)
    assert {name: class_name for name, (class_name, _) in found.items()} == {n: n for n in NAMES}
    epochs = {name: length for name, (_, length) in found.items()}
    for name, length in epochs.items():
        tail = name.rpartition("_")[2]
        if tail.endswith(("epoch", "epochs")):
            assert f"{length}epoch" == tail.removesuffix("s"), name
    assert epochs["nnUNetTrainerMIP_muon_half_paste"] == epochs["nnUNetTrainerMIP"] == 1000


@pytest.mark.slow
def test_every_name_is_found_in_this_installation():
    folder, found = search()
    assert folder == trainers_folder()
    check(found)


@pytest.mark.slow
def test_every_name_is_found_in_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    folder, found = search(str(tmp_path / "site"))
    assert folder == tmp_path / "site" / "nnunetv2_mip" / "trainers"
    check(found)


def test_a_variant_changes_known_settings_only():
    made = variants(nnUNetTrainerMIP, {"fast": {"epochs": 3, "gamma": 1.0}}, __name__)
    (name, trainer), *others = made.items()
    assert (name, trainer.__name__, others) == ("nnUNetTrainerMIP_fast",) * 2 + ([],)
    assert (trainer.epochs, trainer.gamma, trainer.__module__) == (3, 1.0, __name__)
    assert trainer.mro()[1] is nnUNetTrainerMIP
    with pytest.raises(AttributeError, match="epoch_s"):
        variants(nnUNetTrainerMIP, {"typo": {"epoch_s": 3}}, __name__)


@pytest.mark.slow
def test_every_ablation_differs_in_what_it_says(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    add_own_trainers()
    full = recursive_find_trainer_class_by_name("nnUNetTrainerMIP_recipe")
    names = (
        "noAverage",
        "noImpulse",
        "noSaturation",
        "paste",
        "allControls",
        "noControls",
        "poly",
        "halfRate",
        "diceCE",
        "imageDice",
        "halfPatients",
        "quarterPatients",
    )
    for name in names:
        found = recursive_find_trainer_class_by_name(f"nnUNetTrainerMIP_recipe_{name}")
        assert found.__name__ == f"nnUNetTrainerMIP_recipe_{name}"
        own = {key for key in vars(found) if not key.startswith("__")}
        assert own, name
        assert all(getattr(found, key) != getattr(full, key) for key in own), name
        if name == "halfRate":
            continue
        muon = recursive_find_trainer_class_by_name(f"nnUNetTrainerMIP_muon_{name}")
        assert muon.muon_factor == 10, name
        assert all(getattr(muon, key) == getattr(found, key) for key in own), name


@pytest.mark.slow
def test_the_parts_of_muon_are_found_by_name(monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    add_own_trainers()
    factors = {
        "": 10,
        "_3epochs": 10,
        "_coarse": 10,
        "_fine": 10,
        "_third": 10,
        "_half": 5,
        "_double": 20,
        "_half_paste": 5,
    }
    for name, factor in factors.items():
        found = recursive_find_trainer_class_by_name(f"nnUNetTrainerMIP_muon{name}")
        assert (found.__name__, found.muon_factor) == (f"nnUNetTrainerMIP_muon{name}", factor)
        if found.starts_from:
            before = recursive_find_trainer_class_by_name(found.starts_from[0])
            plans = found.starts_from[1]
            assert before.muon_factor == 10
            assert plans.removeprefix("nnUNetMIPPlans_") in preset_names()
