"""Attention U-Nets: nnU-Net's own networks with attention gates or scSE in the decoder.

Plans name these classes (`network_class_name`), and nnU-Net imports them from here: a model with
them runs only where this package is installed. Deep supervision is nnU-Net's.
"""

from collections.abc import Sequence

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn
from torch.nn import functional

# What a preset's `decoder_attention` may be.
DECODER_ATTENTION = ("gates", "scse")
# Channels of a gate's and of scSE's inner layer, as a share of those they work on.
INNER_SHARE = 2


class AttentionGate(nn.Module):
    """Additive attention on a skip connection (Oktay et al., arXiv 1804.03999, figure 2).

    α = sigmoid(ψ(relu(θ(skip) + φ(gating)))) is computed on the grid of the gating signal and
    brought to that of the skip linearly; the result is α · skip.

    Args:
        skip_channels, gating_channels: of the two inputs.
        conv_op: torch.nn.Conv2d or Conv3d.
        stride: how many times finer the skip is, for each axis.

    Shape:
        skip: (B, C, *spatial); gating: (B, G, *spatial / stride); result: as skip.
    """

    def __init__(
        self, skip_channels: int, gating_channels: int, conv_op: type, stride: Sequence[int]
    ):
        super().__init__()
        inner = max(1, skip_channels // INNER_SHARE)
        stride = tuple(stride)
        self.theta = conv_op(skip_channels, inner, stride, stride, bias=False)
        self.phi = conv_op(gating_channels, inner, 1, bias=True)
        self.psi = conv_op(inner, 1, 1, bias=True)
        self.mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(stride)]

    def forward(self, skip: torch.Tensor, gating: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.theta(skip) + self.phi(gating))
        alpha = torch.sigmoid(self.psi(inner))
        return skip * functional.interpolate(alpha, size=skip.shape[2:], mode=self.mode)


class ScSE(nn.Module):
    """Concurrent spatial and channel squeeze and excitation (Roy et al., arXiv 1803.02579).

    The sum of the features weighted by channel and of the features weighted by pixel.

    Shape:
        (B, C, *spatial) → the same.
    """

    def __init__(self, channels: int, conv_op: type):
        super().__init__()
        inner = max(1, channels // INNER_SHARE)
        self.squeeze = conv_op(channels, inner, 1, bias=True)
        self.excite = conv_op(inner, channels, 1, bias=True)
        self.place = conv_op(channels, 1, 1, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spatial = tuple(range(2, x.ndim))
        mean = x.mean(spatial, keepdim=True)
        by_channel = torch.sigmoid(self.excite(functional.relu(self.squeeze(mean))))
        return x * (by_channel + torch.sigmoid(self.place(x)))


class AttendingDecoder(UNetDecoder):
    """nnU-Net's U-Net decoder with an attention gate on every skip, or scSE after every stage.

    Takes what `UNetDecoder` takes.

    Raises:
        ValueError: `attention` is not one of `DECODER_ATTENTION`.
    """

    def __init__(self, encoder, *args, attention: str, **kwargs):
        if attention not in DECODER_ATTENTION:
            known = ", ".join(DECODER_ATTENTION)
            raise ValueError(f"decoder_attention {attention!r}: choose one of {known}")
        super().__init__(encoder, *args, **kwargs)
        self.gates = self.recalibrations = None
        # From the coarsest stage to the finest, as the stages are.
        pairs = list(zip(encoder.output_channels[-2::-1], encoder.output_channels[:0:-1]))
        if attention == "gates":
            self.gates = nn.ModuleList(
                AttentionGate(skip, below, encoder.conv_op, _per_axis(encoder, stride))
                for (skip, below), stride in zip(pairs, encoder.strides[:0:-1])
            )
        else:
            self.recalibrations = nn.ModuleList(ScSE(skip, encoder.conv_op) for skip, _ in pairs)

    def forward(self, skips):
        """The finest output, or all outputs, finest first, with deep supervision.

        Args:
            skips: the encoder's outputs, finest first.
        """
        x, answers = skips[-1], []
        for number, (up, stage, head) in enumerate(
            zip(self.transpconvs, self.stages, self.seg_layers)
        ):
            skip = skips[-(number + 2)]
            if self.gates is not None:
                skip = self.gates[number](skip, x)
            x = stage(torch.cat((up(x), skip), 1))
            if self.recalibrations is not None:
                x = self.recalibrations[number](x)
            if self.deep_supervision or number == len(self.stages) - 1:
                answers.append(head(x))
        return answers[::-1] if self.deep_supervision else answers[0]

    def compute_conv_feature_map_size(self, input_size):
        """Number of feature map values as nnU-Net counts them, those of the attention included."""
        total = super().compute_conv_feature_map_size(input_size)
        size = np.array(input_size)
        # Finest first: a stage's map of its skip's size, and what is weighted.
        for channels, stride in zip(self.encoder.output_channels[:-1], self.encoder.strides):
            size = size // np.array(stride)
            total += np.int64(channels + 1) * np.prod(size, dtype=np.int64)
        return total


class AttendingPlainConvUNet(PlainConvUNet):
    """nnU-Net's plain U-Net with `AttendingDecoder`.

    Args:
        decoder_attention: "gates" or "scse"; all others as `PlainConvUNet`.
    """

    decoder: UNetDecoder

    def __init__(self, *args, decoder_attention: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder = _attending(self.decoder, decoder_attention)


class AttendingResidualEncoderUNet(ResidualEncoderUNet):
    """nnU-Net's residual encoder U-Net with `AttendingDecoder`.

    Args:
        decoder_attention: "gates" or "scse"; all others as `ResidualEncoderUNet`.
    """

    decoder: UNetDecoder

    def __init__(self, *args, decoder_attention: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.decoder = _attending(self.decoder, decoder_attention)


def _attending(decoder: UNetDecoder, attention: str) -> AttendingDecoder:
    """`AttendingDecoder` with the layers of a decoder of nnU-Net."""
    encoder = decoder.encoder
    attending = AttendingDecoder(
        encoder,
        decoder.num_classes,
        [len(stage.convs) for stage in decoder.stages],
        decoder.deep_supervision,
        attention=attention,
    )
    for name in ("stages", "transpconvs", "seg_layers"):
        setattr(attending, name, getattr(decoder, name))
    return attending


def _per_axis(encoder, stride) -> tuple[int, ...]:
    """Stride for each axis; nnU-Net may give one number for all."""
    dimensions = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}[encoder.conv_op]
    return tuple(np.broadcast_to(stride, dimensions).tolist())
