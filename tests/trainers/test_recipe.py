"""The recipe trainer through nnU-Net's entry points, and its average of the weights."""

import json
import shutil

import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.training.augmentation import (
    ELASTIC_PX,
)

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


@pytest.fixture
def recipe(with_trainer):
    """A copy of the tiny data with a trainer of two short epochs."""
    return with_trainer("nnUNetTrainerMIP_tinyrecipe", TINY_RECIPE)


def build(own, fold=0):
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        str(own.number), "2d", fold, own.trainer, own.plans, device=torch.device("cpu")
    )


@pytest.mark.slow
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


@pytest.mark.slow
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
