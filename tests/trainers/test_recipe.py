"""The recipe trainer's parts, and the trainer itself through nnU-Net's entry points."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.paths import add_own_trainers, trainers_folder
from nnunetv2_mip.plans.presets import preset_names
from nnunetv2_mip.training.augmentation import (
    ELASTIC_PX,
    ImpulseNoiseTransform,
    LesionPasteTransform,
    SaturationTransform,
    lesions_of,
)
from nnunetv2_mip.training.lr_schedules import WarmupCosine
from nnunetv2_mip.training.sampling import part_of_patients, repeated_for_share

TINY_RECIPE = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_tinyrecipe(nnUNetTrainerMIP_recipe):
    epochs = 2
    iterations_per_epoch = 3
    val_iterations_per_epoch = 1
    muon_factor = 10.0
    paste_probability = 1.0
    impulse_probability = 1.0
    saturation_probability = 1.0
"""

# So slow that what it started from can be seen at its end.
TINY_SECOND = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP_recipe import nnUNetTrainerMIP_recipe


class nnUNetTrainerMIP_tinysecond(nnUNetTrainerMIP_recipe):
    epochs = 1
    iterations_per_epoch = 2
    val_iterations_per_epoch = 1
    learning_rate = 1e-9
    deformation = (1.0, 1.0, 1.0)
    starts_from = ("nnUNetTrainerMIP_tiny", "nnUNetMIPPlans_tiny")
"""


def test_impulse_noise_takes_the_share_asked_for():
    torch.manual_seed(0)
    image = torch.rand(1, 200, 200)
    noised = ImpulseNoiseTransform((0.08, 0.08), [-3.0], [7.0])(image=image.clone())["image"]
    changed = noised != image
    assert changed.float().mean() == pytest.approx(0.08, abs=0.01)
    assert set(noised[changed].tolist()) == {-3.0, 7.0}
    assert (noised == 7).float().mean() == pytest.approx(0.04, abs=0.01)


def test_saturation_keeps_the_ends():
    image = torch.linspace(-1, 3, 50).reshape(1, 5, 10)
    brighter = SaturationTransform((2.0, 2.0), [-1.0], [3.0])(image=image.clone())["image"]
    assert (brighter.min(), brighter.max()) == (-1, 3)
    assert (brighter == 3).float().mean() == pytest.approx(0.5, abs=0.05)
    darker = SaturationTransform((0.5, 0.5), [-1.0], [3.0])(image=image.clone())["image"]
    torch.testing.assert_close(darker, -1 + (image + 1) / 2)


def body_image(size=(60, 40), level=0.0):
    image = np.full((1, *size), -1.0, np.float32)
    image[:, 5:-5, 5:-5] = level
    return image


def test_lesions_are_pasted_as_a_maximum_and_on_the_body():
    source = body_image()
    mask = np.zeros(source.shape[1:], np.int16)
    mask[20:26, 15:20] = 1
    mask[40, 30] = 1  # too small to be worth it
    source[0][mask == 1] = 4.0
    (lesion,) = lesions_of(source, mask, source[0] > -0.5)
    assert (int(lesion.mask.sum()), lesion.place[0]) == (30, pytest.approx((23 - 5) / 49))

    paste = LesionPasteTransform([[lesion], []], body_above=-0.5)
    generator = np.random.default_rng(0)
    for _ in range(20):
        image, labels = body_image(level=0.2), np.zeros(mask.shape, np.int16)
        before = image.copy()
        assert paste.paste(image, labels, generator) == 1
        assert labels.sum() == 30
        assert (image >= before).all()
        assert (image[0][labels == 1] == 4).all()
        # Only the lesion and its halo changed, where the body is.
        assert (before[0][labels == 1] == np.float32(0.2)).mean() >= 0.8
    bright, labels = body_image(level=9.0), np.zeros(mask.shape, np.int16)
    paste.paste(bright, labels, generator)
    hidden = body_image(level=9.0)[0] == 9
    assert (bright[0][hidden] == 9).all()
    assert not labels[hidden].any(), "hidden behind brighter uptake"


def test_paste_leaves_an_image_without_body_alone():
    lesion_source = body_image()
    mask = np.zeros(lesion_source.shape[1:], np.int16)
    mask[20:26, 15:20] = 1
    bank = [lesions_of(lesion_source, mask, lesion_source[0] > -0.5)]
    image = torch.full((1, 30, 30), -1.0)
    data = {"image": image, "segmentation": torch.zeros((1, 30, 30), dtype=torch.int16)}
    result = LesionPasteTransform(bank, body_above=-0.5)(**data)
    assert torch.equal(result["image"], image)
    assert not result["segmentation"].any()


@pytest.mark.parametrize(("share", "got"), [(0.2, 0.2), (0.5, 0.5), (0.31, 0.31)])
def test_controls_are_drawn_with_the_share(share, got):
    cases = [f"p{i}" for i in range(106)] + [f"c{i}" for i in range(48)]
    drawn = repeated_for_share(cases, {f"c{i}" for i in range(48)}, share)
    assert sum(case[0] == "c" for case in drawn) / len(drawn) == pytest.approx(got, abs=0.02)
    assert set(drawn) == set(cases)


def test_shares_at_the_edges():
    assert repeated_for_share(["a", "b"], ["b"], 0) == ["a"]
    assert repeated_for_share(["a", "b"], [], 0.3) == ["a", "b"]
    assert repeated_for_share(["a", "b"], ["a", "b"], 0.3) == ["a", "b"]
    with pytest.raises(MipError, match="control share"):
        repeated_for_share(["a", "b"], ["b"], 1.0)


def test_a_part_of_the_patients_keeps_their_cases_together_and_all_controls():
    # Patients p0 to p9 with two cases with lesions each; p0 has one without, c0 and c1 no other.
    patients = {f"p{i}_{k}": f"p{i}" for i in range(10) for k in range(2)}
    lesions = set(patients)
    patients |= {"p0_2": "p0", "c0_0": "c0", "c1_0": "c1"}
    parts = {s: part_of_patients(list(patients), patients, lesions, s) for s in (0.01, 0.25, 0.5)}
    for share, number in ((0.01, 1), (0.25, 3), (0.5, 5)):
        kept = {patients[case] for case in parts[share]} - {"c0", "c1"}
        assert len(kept) == number
        assert parts[share] == [c for c in patients if patients[c] in kept | {"c0", "c1"}]
    assert set(parts[0.01]) < set(parts[0.25]) < set(parts[0.5])
    assert part_of_patients(list(patients), patients, lesions, 1) == list(patients)
    for share in (0, 1.5):
        with pytest.raises(MipError, match="patient share"):
            part_of_patients(list(patients), patients, lesions, share)


def test_warmup_then_cosine():
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), 1.0)
    schedule = WarmupCosine(optimizer, 2.0, epochs=10, warmup=0.1)
    rates = []
    for epoch in (0, 0.5, 1, 5.5, 10):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02, 1.0, 2.0, 1 + math.cos(math.pi / 2), 0.0], abs=1e-9)


@pytest.fixture
def recipe(with_trainer):
    """A copy of the tiny data with a trainer of two short epochs."""
    return with_trainer("nnUNetTrainerMIP_tinyrecipe", TINY_RECIPE)


def build(own, fold=0):
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        str(own.number), "2d", fold, own.trainer, own.plans, device=torch.device("cpu")
    )


def test_training_saves_the_average_and_resumes(recipe, run_nnunet_training):
    run_nnunet_training(recipe, fold=0)
    fold = recipe.model / "fold_0"
    assert (fold / "validation" / "summary.json").is_file()
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert checkpoint["average_steps"] == 6
    live, averaged = checkpoint["live_weights"], checkpoint["network_weights"]
    assert any(not torch.equal(live[name], averaged[name]) for name in live)

    resumed = build(recipe)
    resumed.load_checkpoint(str(fold / "checkpoint_final.pth"))
    assert resumed.average.steps == 6
    for name, value in resumed.network.state_dict().items():
        torch.testing.assert_close(value, live[name])
    for name, value in resumed.average.module.state_dict().items():
        torch.testing.assert_close(value, averaged[name])
    by_muon = [g for g in resumed.optimizer.param_groups if g["muon_factor"] is not None]
    assert by_muon
    for group in by_muon:
        assert all(resumed.optimizer.state[kernel]["momentum"].any() for kernel in group["params"])


@pytest.fixture
def second(with_trainer):
    return with_trainer("nnUNetTrainerMIP_tinysecond", TINY_SECOND)


def test_a_second_part_starts_from_all_weights_of_the_first(second, tiny, run_nnunet_training):
    """Outputs too, which nnU-Net's -pretrained_weights leaves random."""
    shutil.copytree(tiny.model, second.results / tiny.model.name)
    run_nnunet_training(second, fold=0)
    first, after = (
        torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        for model in (tiny.model, second.model)
    )
    assert any(".seg_layers." in name for name in first)
    for name, value in first.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)


def test_a_second_part_without_the_first(second, run_nnunet_training):
    with pytest.raises(MipError, match=r"nnUNetv2_train 901 2d 0 .* -tr nnUNetTrainerMIP_tiny$"):
        run_nnunet_training(second, fold=0)


def test_a_second_part_of_another_network(second, tiny, run_nnunet_training):
    folder = second.results / tiny.model.name / "fold_0"
    folder.mkdir(parents=True)
    torch.save({"network_weights": {}}, folder / "checkpoint_final.pth")
    with pytest.raises(MipError, match="another one than that of the plans"):
        run_nnunet_training(second, fold=0)


def test_images_are_deformed_as_often_as_asked(second):
    trainer = build(second)
    trainer.initialize()
    rotation, dummy, patch, axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    composed = trainer.get_training_transforms(patch, rotation, None, axes, dummy)
    spatial = next(t for t in composed.transforms if isinstance(t, SpatialTransform))
    image = torch.zeros(1, *patch)
    drawn = [spatial.get_parameters(image=image) for _ in range(20)]
    assert all(p["affine"] is not None and p["elastic_offsets"] is not None for p in drawn)
    least, most = ELASTIC_PX
    for shifts in (p["elastic_offsets"].abs().amax((0, 1)) for p in drawn):
        assert ((shifts > least - 0.01) & (shifts < most + 0.01)).all()


def test_the_bank_opens_training_cases_only(recipe, monkeypatch):
    """Fold 0 trains on bob and eve: ann's lesions must not be in the bank."""
    for path in (recipe.preprocessed / f"{recipe.plans}_2d").glob("ann_*"):
        if path.suffix == ".b2nd":
            path.write_bytes(b"must not be read")
    trainer = build(recipe)
    trainer.initialize()
    trainer.dataset_class = None
    trainer.get_tr_and_val_datasets()
    bank = trainer._lesion_bank(body_above=-0.7)
    # Three views of bob; eve has no lesion.
    assert [len(lesions) for lesions in bank] == [1, 1, 1]


def test_a_share_of_the_patients_is_learned_from(recipe):
    trainer = build(recipe, fold="all")
    whole = trainer.do_split()
    trainer.patient_share = 0.5
    training, validation = trainer.do_split()
    # eve has no lesion and stays; one of ann and bob does.
    assert {case[:3] for case in whole[0]} == {"ann", "bob", "eve"}
    assert {case[:3] for case in training} in ({"ann", "eve"}, {"bob", "eve"})
    assert validation == whole[1]
    loaded = trainer.get_tr_and_val_datasets()[0].identifiers
    assert set(loaded) == set(training)


def test_a_data_set_without_lesion_flags_says_so(recipe):
    path = recipe.preprocessed / "dataset.json"
    content = json.loads(path.read_text())
    del content["mip"]["has_lesion"]
    path.write_text(json.dumps(content))
    with pytest.raises(MipError, match="has_lesion"):
        build(recipe).get_tr_and_val_datasets()


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
