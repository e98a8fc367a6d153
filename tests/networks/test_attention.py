"""Attention in nnU-Net's decoder: the mathematics, and through training and prediction."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_mip.commands import plan_and_preprocess
from nnunetv2_mip.inference.export import export_model
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.networks.attention import (
    DECODER_ATTENTION,
    AttendingPlainConvUNet,
    AttendingResidualEncoderUNet,
    AttentionGate,
    ScSE,
)

COMMON = {
    "input_channels": 1,
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": nn.Conv2d,
    "kernel_sizes": [[3, 3]] * 3,
    # Not square: gates follow the strides axis by axis.
    "strides": [[1, 1], [2, 2], [2, 1]],
    "num_classes": 2,
    "n_conv_per_stage_decoder": [2, 1],
    "conv_bias": True,
    "norm_op": nn.InstanceNorm2d,
    "norm_op_kwargs": {"affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
    "deep_supervision": True,
}
BRIEF_TRAINER = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_brief(nnUNetTrainerMIP):
    epochs = 1
    iterations_per_epoch = 2
    val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""
PAIRS = {
    "plain": (PlainConvUNet, AttendingPlainConvUNet, {"n_conv_per_stage": [1, 2, 1]}),
    "residual": (
        ResidualEncoderUNet,
        AttendingResidualEncoderUNet,
        {"n_blocks_per_stage": [1, 2, 1]},
    ),
}


def build(kind, attention):
    stock, attending, depth = PAIRS[kind]
    torch.manual_seed(3)
    if attention is None:
        return stock(**COMMON, **depth)
    network = attending(**COMMON, **depth, decoder_attention=attention)
    network.apply(network.initialize)
    return network


def test_a_gate_is_the_formula_of_its_paper():
    gate = AttentionGate(4, 6, nn.Conv2d, (2, 1))
    skip, gating = torch.randn(2, 4, 8, 6), torch.randn(2, 6, 4, 6)
    theta = torch.einsum("oihw,bihwxy->boxy", gate.theta.weight, _windows(skip))
    phi = torch.einsum("oi,bixy->boxy", gate.phi.weight[:, :, 0, 0], gating)
    phi = phi + gate.phi.bias.view(1, -1, 1, 1)
    psi = torch.einsum("oi,bixy->boxy", gate.psi.weight[:, :, 0, 0], torch.relu(theta + phi))
    alpha = torch.sigmoid(psi + gate.psi.bias.view(1, -1, 1, 1))
    alpha = nn.functional.interpolate(alpha, (8, 6), mode="bilinear")
    torch.testing.assert_close(gate(skip, gating), alpha * skip)


def _windows(x):
    """(B, C, 2, 1, rows / 2, columns): what a stride of (2, 1) sees."""
    return torch.stack([x[:, :, 0::2], x[:, :, 1::2]], 2)[:, :, :, None]


def test_scse_is_the_formula_of_its_paper():
    block, x = ScSE(6, nn.Conv2d), torch.randn(2, 6, 5, 4)
    squeezed = x.mean((2, 3)) @ block.squeeze.weight[:, :, 0, 0].T + block.squeeze.bias
    excited = torch.relu(squeezed) @ block.excite.weight[:, :, 0, 0].T + block.excite.bias
    place = torch.einsum("i,bixy->bxy", block.place.weight[0, :, 0, 0], x) + block.place.bias
    expected = x * torch.sigmoid(excited)[:, :, None, None] + x * torch.sigmoid(place)[:, None]
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("attention", DECODER_ATTENTION)
def test_with_open_gates_it_is_nnunets_network(kind, attention):
    network, stock = build(kind, attention), build(kind, None)
    missing = stock.load_state_dict(network.state_dict(), strict=False)
    assert not missing.missing_keys
    added = missing.unexpected_keys
    assert added and all(key.startswith(("decoder.gates", "decoder.recal")) for key in added)
    x = torch.randn(2, 1, 16, 8)
    closed = network(x)
    with torch.no_grad():
        for gate in network.decoder.gates or []:
            gate.psi.weight.zero_()
            gate.psi.bias.fill_(30)
        for block in network.decoder.recalibrations or []:
            # One half by channel and one half by place.
            for layer in (block.excite, block.place):
                layer.weight.zero_()
                layer.bias.zero_()
    for ours, theirs, before in zip(network(x), stock(x), closed):
        torch.testing.assert_close(ours, theirs)
        assert not torch.allclose(ours, before)


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("attention", DECODER_ATTENTION)
def test_deep_supervision_and_gradients(kind, attention):
    network = build(kind, attention)
    answers = network(torch.randn(1, 1, 16, 8))
    assert [tuple(answer.shape) for answer in answers] == [(1, 2, 16, 8), (1, 2, 8, 4)]
    sum(answer.square().mean() for answer in answers).backward()
    assert all(weight.grad is not None for weight in network.parameters())
    network.decoder.deep_supervision = False
    torch.testing.assert_close(network(torch.zeros(1, 1, 16, 8)).shape, (1, 2, 16, 8))
    stock = build(kind, None)
    size = (16, 8)
    assert network.compute_conv_feature_map_size(size) > stock.compute_conv_feature_map_size(size)


def test_an_unknown_attention():
    with pytest.raises(ValueError, match="gates, scse"):
        build("plain", "squeeze")


@pytest.fixture
def attending(tiny, tmp_path, monkeypatch, run_nnunet_training):
    """Plan and train the tiny data set with changes of its preset, through the commands."""

    def make(name, **changes):
        for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(tiny.base / folder, tmp_path / folder)
        (tmp_path / "trainers").mkdir()
        (tmp_path / "trainers" / "nnUNetTrainerMIP_brief.py").write_text(BRIEF_TRAINER)
        own = replace(
            tiny,
            base=tmp_path,
            plans=f"nnUNetMIPPlans_{name}",
            trainer="nnUNetTrainerMIP_brief",
        )
        for variable, value in own.environment.items():
            monkeypatch.setenv(variable, value)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(json.loads(tiny.preset.read_text()) | changes))
        words = ["-d", str(own.number), "--preset", str(path), "-np", "1"]
        with pytest.raises(SystemExit) as caught:
            plan_and_preprocess.main(words)
        assert not caught.value.code
        run_nnunet_training(own, 0)
        return own

    return make


@pytest.mark.slow
def test_gates_train_and_nnunet_predicts_as_we_do(attending, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point

    own = attending("gates", decoder_attention="gates")
    (tmp_path / "in").mkdir()
    shutil.copy(own.raw / "imagesTr" / "ann_1_0000.nii.gz", tmp_path / "in")
    words = [own.number, "-i", tmp_path / "in", "-o", tmp_path / "out", "-f", 0, "-c", "2d"]
    words += ["-tr", own.trainer, "-p", own.plans, "-device", "cpu", "--save_probabilities"]
    monkeypatch.setattr("sys.argv", ["nnUNetv2_predict", "-d", *map(str, words)])
    predict_entry_point()
    theirs = np.load(tmp_path / "out" / "ann_1.npz")["probabilities"][1]

    predictor = MIPPredictor.from_model_folder(own.model, [0], device="cpu")
    levels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "in" / "ann_1_0000.nii.gz")))
    ours = predictor.view_probabilities(levels, (5.0, 4.0))
    # nnU-Net adds its windows up in half precision.
    np.testing.assert_allclose(ours, theirs, atol=1e-2)
    assert np.abs(ours - theirs).mean() < 1e-3


@pytest.mark.slow
def test_scse_in_the_residual_network_trains_and_is_exported(attending, tmp_path):
    own = attending("scse", decoder_attention="scse", residual_blocks=[1, 1, 1])
    levels = np.random.default_rng(0).integers(0, 255, (44, 36)).astype(np.uint8)
    trained = MIPPredictor.from_model_folder(own.model, [0], device="cpu")
    assert isinstance(trained._nnunet.network, AttendingResidualEncoderUNet)
    export_model(own.model, tmp_path / "small", [0])
    small = MIPPredictor.from_model_folder(tmp_path / "small", [0], device="cpu")
    np.testing.assert_allclose(
        small.predict_image(levels)[1], trained.predict_image(levels)[1], atol=5e-3
    )
