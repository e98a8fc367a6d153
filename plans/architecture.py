"""Network of a configuration within a preset's limits: stages, architecture, memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_mip.networks import stored_name
from nnunetv2_mip.networks.attention import AttendingPlainConvUNet, AttendingResidualEncoderUNet
from nnunetv2_mip.plans.presets import Preset

# Bottleneck maps keep this many pixels along each edge, as in nnU-Net.
MIN_EDGE_PX = 4


def stages_within(
    preset: Preset, spacing: Sequence[float] | np.ndarray, patch: Sequence[int]
) -> tuple:
    """nnU-Net's strides, kernels, padded patch and divisor, in at most the preset's stages.

    Args:
        preset: the limits.
        spacing: of the image's axes, mm.
        patch: size along the same axes, pixels.
    """
    most_stages = len(preset.features_per_stage)
    # The limit is one for each axis: with unequal spacings the axes are not halved together, and
    # the stages can be more than either axis needs.
    for halvings in range(most_stages - 1, -1, -1):
        _, strides, *others = get_pool_and_conv_props(spacing, patch, MIN_EDGE_PX, halvings)
        if len(strides) <= most_stages:
            break
    return strides, *others


def architecture_plan(preset: Preset, strides: Sequence, kernels: Sequence) -> dict:
    """Entry `architecture` of a configuration in nnU-Net's plans.

    Args:
        preset: features, convolutions or residual blocks, and attention.
        strides, kernels: of every stage, from `stages_within`.
    """
    stages, dimensions = len(strides), len(strides[0])
    depth: dict[str, Any]
    blocks, attention = preset.residual_blocks, preset.decoder_attention
    if blocks is None:
        network = PlainConvUNet if attention is None else AttendingPlainConvUNet
        depth = {
            "n_conv_per_stage": [preset.convs_per_stage] * stages,
            "n_conv_per_stage_decoder": [preset.convs_per_stage] * (stages - 1),
        }
    else:
        network = ResidualEncoderUNet if attention is None else AttendingResidualEncoderUNet
        depth = {
            "n_blocks_per_stage": list(blocks[:stages]),
            "n_conv_per_stage_decoder": [1] * (stages - 1),
        }
    if attention is not None:
        depth["decoder_attention"] = attention
    return {
        "network_class_name": stored_name(network),
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(preset.features_per_stage[:stages]),
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [list(kernel) for kernel in kernels],
            "strides": [list(stride) for stride in strides],
            **depth,
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def feature_map_values(
    architecture: dict, patch: Sequence[int], input_channels: int, labels: int
) -> float:
    """Values of the feature maps of one training image: nnU-Net's estimate of memory.

    nnU-Net's own method sets the number of threads to `nnUNet_n_proc_DA`, which may be 0.

    Args:
        architecture: from `architecture_plan`.
        patch: padded patch size, pixels.
        input_channels, labels: numbers of channels of the network's input and output.
    """
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        input_channels,
        labels,
        allow_init=False,
    )
    return float(network.compute_conv_feature_map_size(patch))
