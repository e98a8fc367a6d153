"""The localization head: regions, loss, network, and training through nnU-Net's entry points."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.networks.localization import (
    LocalizationLoss,
    LocalizingResidualEncoderUNet,
    LocalizingUNet,
    coarse_stage,
    cue_of,
    lesion_regions,
)
from nnunetv2_mip.training.losses import DiceFocalLoss

TINY_L2S = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP_L2S import nnUNetTrainerMIP_L2S


class nnUNetTrainerMIP_tinyL2S(nnUNetTrainerMIP_L2S):
    epochs = 4
    iterations_per_epoch = 3
    val_iterations_per_epoch = 1

    def initialize(self):
        super().initialize()
        self.save_every = 1
"""
SHAPE = {
    "input_channels": 1,
    "n_stages": 4,
    "features_per_stage": [4, 6, 8, 8],
    "conv_op": nn.Conv2d,
    "kernel_sizes": [[3, 3]] * 4,
    "strides": [[1, 1], [2, 2], [2, 2], [2, 2]],
    "num_classes": 2,
    "n_conv_per_stage_decoder": [1, 1, 1],
    "conv_bias": True,
    "norm_op": nn.InstanceNorm2d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}
NETWORKS = [
    (PlainConvUNet, LocalizingUNet, {"n_conv_per_stage": [1] * 4}),
    (ResidualEncoderUNet, LocalizingResidualEncoderUNet, {"n_blocks_per_stage": [1] * 4}),
]


def network_of(network, more, deep_supervision=True):
    torch.manual_seed(0)
    return network(**SHAPE, **more, deep_supervision=deep_supervision)


def test_regions_are_dilated_but_never_over_ignored_pixels():
    target = torch.zeros(1, 1, 16, 16, dtype=torch.int16)
    target[0, 0, 5, 5] = 1
    target[0, 0, :, 8:12] = 2
    target[0, 0, 0, 15] = 1
    regions = lesion_regions(target, (4, 4), ignore_label=2)[0, 0]
    # The pixel (5, 5) reaches rows and columns 3 to 7; columns 8 to 11 are ignored whole, and the
    # lesion of the corner reaches columns 13 to 15.
    expected = [[1, 1, 2, 1], [1, 1, 2, 0], [0, 0, 2, 0], [0, 0, 2, 0]]
    assert regions.tolist() == expected


def test_a_coarse_pixel_with_ignored_ones_and_no_lesion_is_ignored():
    target = torch.zeros(1, 1, 4, 8)
    target[0, 0, 0, 0] = 2
    assert lesion_regions(target, (1, 2), ignore_label=2).tolist() == [[[[2, 0]]]]
    assert lesion_regions(target, (1, 2), ignore_label=None).tolist() == [[[[1, 0]]]]


def test_regions_of_a_volume():
    target = torch.zeros(1, 1, 8, 8, 8)
    target[0, 0, 1, 1, 1] = 1
    regions = lesion_regions(target, (2, 2, 2), None)
    assert regions.sum() == 1 and regions[0, 0, 0, 0, 0] == 1


def test_the_cue_is_about_four_pixels_wide():
    assert coarse_stage([[1, 1], [2, 2], [2, 2], [2, 2]]) == 2
    assert coarse_stage([1, 2, 2]) == 2
    assert coarse_stage([[1, 1], [2, 2]]) == 1
    assert coarse_stage([[1, 1, 1], [1, 2, 2], [2, 2, 2]]) == 2


def test_recall_weight_by_hand():
    """p = 0.5 for a lesion, 0.2 for a background pixel, r = 0.75.

    Tversky: 2·0.5 / (2·0.75·1 + 2·0.25·0.7) = 1 / 1.85; focal: 3·0.5²·ln 2 and 0.2²·ln(1/0.8).
    """
    p = torch.tensor([0.5, 0.2], dtype=torch.float64)
    logits = torch.stack([1 - p, p]).log().reshape(1, 2, 1, 2)
    target = torch.tensor([1, 0]).reshape(1, 1, 1, 2)
    loss = DiceFocalLoss(smooth=0, recall_weight=0.75)(logits, target)
    focal = 3 * 0.25 * np.log(2) + 0.04 * np.log(1.25)
    assert loss.item() == pytest.approx(1 - 1 / 1.85 + 10 * focal / 2)
    with pytest.raises(ValueError, match="recall_weight"):
        DiceFocalLoss(recall_weight=1.0)


@pytest.mark.parametrize(("plain", "localizing", "more"), NETWORKS)
def test_without_strength_it_is_nnunets_network(plain, localizing, more):
    ours, stock = network_of(localizing, more), network_of(plain, more)
    shared = {name: w for name, w in ours.state_dict().items() if name in stock.state_dict()}
    stock.load_state_dict(shared)
    image = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        *segmentation, logits = ours(image)
        assert [tuple(s.shape) for s in segmentation] == [
            (2, 2, 32, 48),
            (2, 2, 16, 24),
            (2, 2, 8, 12),
        ]
        assert logits.shape == (2, 2, 8, 12)
        assert not torch.allclose(segmentation[0], stock(image)[0])
        ours.decoder.strengths.fill_(-torch.inf)
        for mine, theirs in zip(ours(image)[:-1], stock(image)):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("plain", "localizing", "more"), NETWORKS)
def test_without_deep_supervision_it_answers_like_any_network(plain, localizing, more):
    network = network_of(localizing, more).eval()
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        *segmentation, logits = network(image)
        network.decoder.deep_supervision = False
        answer = network(image)
        torch.testing.assert_close(answer, segmentation[0])
    cue = cue_of(logits)
    assert cue.shape == (1, 1, 8, 8)
    assert cue.min() >= 0 and cue.max() <= 1


@pytest.mark.parametrize(("plain", "localizing", "more"), NETWORKS)
def test_the_segmentation_depends_on_the_cue(plain, localizing, more):
    """Other outputs of the localizer, with the same encoder and decoder: another segmentation."""
    network = network_of(localizing, more, deep_supervision=False).eval()
    image, answers = torch.randn(1, 1, 32, 32), []
    with torch.no_grad():
        for shift in (0.0, 8.0, -8.0):
            network.decoder.localizer.answer.bias.copy_(torch.tensor([-shift, shift]))
            answers.append(network(image))
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])


def test_features_are_raised_where_the_cue_is():
    network = network_of(LocalizingUNet, NETWORKS[0][2])
    skips = [torch.ones(1, c, 32 // s, 32 // s) for c, s in ((4, 1), (6, 2), (8, 4), (8, 8))]
    cue = torch.zeros(1, 1, 8, 8)
    cue[..., :4] = 1
    for features in network.decoder.weighted(skips, cue):
        width = features.shape[-1]
        assert (features[..., 0] == 1.5).all() and (features[..., width - 1] == 0.5).all()


def test_the_segmentation_teaches_the_localizer():
    """Gradients of the segmentation alone reach the localizer, through the cue."""
    network = network_of(LocalizingUNet, NETWORKS[0][2])
    *segmentation, _ = network(torch.randn(1, 1, 32, 32))
    segmentation[0].square().sum().backward()
    assert network.decoder.localizer.answer.weight.grad.abs().sum() > 0
    assert (network.decoder.strengths.grad != 0).all()


def whole_loss(ignore_label=2, ddp=False):
    def part(**more):
        return DiceFocalLoss(ignore_label=ignore_label, ddp=ddp, **more)

    segmentation = DeepSupervisionWrapper(part(), (1.0, 0.0))
    return LocalizationLoss(segmentation, part(recall_weight=0.7), 0.5, ignore_label)


def case_of(batch=3):
    generator = torch.Generator().manual_seed(0)
    sizes = ((16, 16), (8, 8), (4, 4))
    outputs = [torch.randn(batch, 2, *s, generator=generator, dtype=torch.float64) for s in sizes]
    truth = torch.randint(0, 3, (batch, 1, 16, 16), generator=generator)
    truth[:, :, :8] = 0
    return outputs, [truth, truth[:, :, ::2, ::2]]


def test_the_loss_is_the_sum_of_its_parts():
    outputs, target = case_of()
    *segmentation, cue = outputs
    regions = lesion_regions(target[0], (4, 4), 2)
    parts = DiceFocalLoss(ignore_label=2)(segmentation[0], target[0])
    parts = parts + 0.5 * DiceFocalLoss(ignore_label=2, recall_weight=0.7)(cue, regions)
    assert whole_loss()(outputs, target).item() == pytest.approx(parts.item())


def test_an_ignored_patch_has_no_loss_and_a_graph():
    outputs, target = case_of()
    for output in outputs:
        output.requires_grad_()
    target = [torch.full_like(truth, 2) for truth in target]
    loss = whole_loss()(outputs, target)
    loss.backward()
    assert loss.item() == 0
    assert all((output.grad == 0).all() for output in (outputs[0], outputs[2]))


WORKER = """
import sys
import torch
from torch import distributed as dist
sys.path.insert(0, sys.argv[3])
from test_localization import case_of, whole_loss

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
part = slice(0, 1) if rank == 0 else slice(1, None)
outputs, target = case_of()
outputs = [output[part].requires_grad_() for output in outputs]
value = whole_loss(ddp=True)(outputs, [truth[part] for truth in target])
value.backward()
# DDP averages the gradients of the processes.
torch.save([value.item(), outputs[0].grad / 2, outputs[2].grad / 2], f"{folder}/rank{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    from pathlib import Path

    here = str(Path(__file__).parent)
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path), here])
        for rank in range(2)
    ]
    try:
        assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    outputs, target = case_of()
    for output in outputs:
        output.requires_grad_()
    expected = whole_loss()(outputs, target)
    expected.backward()
    parts = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    assert [part[0] for part in parts] == pytest.approx([expected.item()] * 2, abs=1e-9)
    for place, output in ((1, outputs[0]), (2, outputs[2])):
        joined = torch.cat([part[place] for part in parts])
        torch.testing.assert_close(joined, output.grad, atol=1e-9, rtol=0)


@pytest.fixture
def l2s(with_trainer):
    return with_trainer("nnUNetTrainerMIP_tinyL2S", TINY_L2S)


@pytest.mark.slow
def test_killed_training_resumes_and_predicts(l2s, tmp_path, monkeypatch):
    """`nnUNetv2_train` as a process, killed after its first checkpoint, then `--c`."""
    from nnunetv2.run.run_training import run_training_entry

    command = [str(l2s.number), "2d", "0", "-tr", l2s.trainer, "-p", l2s.plans, "-device", "cpu"]
    fold = l2s.model / "fold_0"
    code = "from nnunetv2.run.run_training import run_training_entry; run_training_entry()"
    training = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 240
        while not (fold / "checkpoint_latest.pth").is_file() and time.monotonic() < end:
            assert training.poll() is None
            time.sleep(0.05)
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()
    # Checkpoints appear whole, whenever the kill came.
    epoch = torch.load(fold / "checkpoint_latest.pth", weights_only=False)["current_epoch"]
    assert 0 < epoch < 4
    assert not (fold / "checkpoint_final.pth").exists()
    monkeypatch.setattr("sys.argv", ["nnUNetv2_train", *command, "--c"])
    run_training_entry()
    final = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    assert final["current_epoch"] == 4
    assert len(final["logging"]["train_losses"]) == 4
    log = "".join(path.read_text() for path in sorted(fold.glob("training_log_*.txt")))
    assert f"Epoch {epoch}" in log
    assert json.loads((fold / "validation" / "summary.json").read_text())

    from nnunetv2_mip.inference.predictor import MIPPredictor

    predictor = MIPPredictor.from_model_folder(l2s.model, folds=(0,), device="cpu")
    image = sitk.ReadImage(str(l2s.raw / "imagesTr" / "bob_1_0000.nii.gz"))
    levels = sitk.GetArrayFromImage(image)[None]
    ours = predictor.view_probabilities(levels, (5.0, 4.0))
    assert ours.shape == levels.shape[1:]

    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    monkeypatch.setattr(
        "sys.argv",
        ["nnUNetv2_predict", "-i", str(l2s.raw / "imagesTr"), "-o", str(tmp_path / "out")]
        + ["-d", str(l2s.number), "-tr", l2s.trainer, "-p", l2s.plans, "-c", "2d", "-f", "0"]
        + ["-device", "cpu", "-npp", "0", "-nps", "0", "--save_probabilities"],
    )
    predict_entry_point()
    stock = np.load(tmp_path / "out" / "bob_1.npz")["probabilities"][1]
    np.testing.assert_allclose(ours, stock, atol=0.02)


def test_plans_with_another_network_are_refused(l2s):
    path = l2s.preprocessed / f"{l2s.plans}.json"
    plans = json.loads(path.read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["network_class_name"] = "torch.nn.Identity"
    path.write_text(json.dumps(plans))
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(
        str(l2s.number), "2d", 0, l2s.trainer, l2s.plans, device=torch.device("cpu")
    )
    with pytest.raises(MipError, match=r"no variant of the network torch\.nn\.Identity"):
        trainer.initialize()
