"""Localization to segmentation in one network: a coarse lesion cue weights a U-Net in space.

L2SNet (arXiv 2309.05446) first finds lesions in 2D; their location then guides a second network.
Here both stages share one encoder and are trained together. A localizer reads the coarse stages of
the encoder and predicts lesion regions, the cue. The cue weights the features that the decoder gets
from the encoder, stage by stage, with a learned strength: features are raised near lesions and
damped far from them. Gradients flow through the cue.

Plans name these classes and checkpoints are loaded into them: they are part of the installed
package.
"""

from collections.abc import Sequence

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn
from torch.nn import functional

from nnunetv2_mip.networks.replacement import replacements
from nnunetv2_mip.training.losses import DiceFocalLoss

# The cue's pixels are about this many of the image's wide: coarse regions, not outlines.
CUE_STRIDE = 4
CUE_CHANNELS = 32
# Lesion regions are the lesions dilated by this many pixels.
DILATION_PX = 2
_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


class Localizer(nn.Module):
    """Head for coarse lesion regions: the encoder's stages at one resolution, summed and convolved.

    The sum over scales is that of a feature pyramid (Lin et al., arXiv 1612.03144).

    Args:
        encoder: of the U-Net; its attributes `output_channels`, `strides`, `conv_op`, … are read.

    Shape:
        skips: the encoder's features, finest first.
        result: (B, 2, *coarse) logits of background and lesion region.
    """

    def __init__(self, encoder: PlainConvEncoder | ResidualEncoder):
        super().__init__()
        self.first = coarse_stage(encoder.strides)
        conv = encoder.conv_op
        self.lateral = nn.ModuleList(
            conv(channels, CUE_CHANNELS, 1) for channels in encoder.output_channels[self.first :]
        )
        self.mix = ConvDropoutNormReLU(
            conv,
            CUE_CHANNELS,
            CUE_CHANNELS,
            3,
            1,
            conv_bias=True,
            norm_op=encoder.norm_op,
            norm_op_kwargs=encoder.norm_op_kwargs,
            nonlin=encoder.nonlin,
            nonlin_kwargs=encoder.nonlin_kwargs,
        )
        self.answer = conv(CUE_CHANNELS, 2, 1)

    def forward(self, skips: Sequence[torch.Tensor]) -> torch.Tensor:
        size = skips[self.first].shape[2:]
        total: torch.Tensor | int = 0
        for lateral, features in zip(self.lateral, skips[self.first :]):
            total = total + _resized(lateral(features), size)
        return self.answer(self.mix(total))


class LocalizingDecoder(UNetDecoder):
    """nnU-Net's decoder; the cue of a `Localizer` weights the features from the encoder.

    Features of stage s are multiplied by 1 + g_s (2 cue − 1), 0 < g_s < 1 learned (0.5 at first).

    With deep supervision the result is the list of segmentation logits, finest first, and the
    localizer's logits as its last entry; without it the segmentation logits alone, so that nnU-Net
    predicts with it as with any network.
    """

    def __init__(self, encoder: PlainConvEncoder | ResidualEncoder, *args, **kwargs):
        super().__init__(encoder, *args, **kwargs)
        self.localizer = Localizer(encoder)
        # Logits of the strengths g.
        self.strengths = nn.Parameter(torch.zeros(len(encoder.output_channels)))

    def forward(self, skips: Sequence[torch.Tensor]):
        logits = self.localizer(skips)
        segmentation = super().forward(self.weighted(skips, cue_of(logits)))
        return [*segmentation, logits] if self.deep_supervision else segmentation

    def weighted(self, skips: Sequence[torch.Tensor], cue: torch.Tensor) -> list[torch.Tensor]:
        """The features of every stage, weighted by the cue (B, 1, *coarse)."""
        return weighted_features(skips, cue, self.strengths)


def weighted_features(
    skips: Sequence[torch.Tensor], cue: torch.Tensor, strengths: torch.Tensor
) -> list[torch.Tensor]:
    """Features multiplied by 1 + g (2 cue − 1): raised where the cue is, damped elsewhere.

    Args:
        skips: (B, C, *spatial) of every stage.
        cue: (B, 1, *spatial) in [0, 1], on any grid.
        strengths: logits of g, one a stage.
    """
    weighted = []
    for features, strength in zip(skips, torch.sigmoid(strengths)):
        here = _resized(cue, features.shape[2:])
        weighted.append(features * (1 + strength * (2 * here - 1)).to(features.dtype))
    return weighted


class _Localizing(nn.Module):
    """Shared part of the two networks below; their other base builds encoder and decoder."""

    encoder: PlainConvEncoder | ResidualEncoder
    decoder: UNetDecoder

    def __init__(self, *args, n_conv_per_stage_decoder, deep_supervision=False, **kwargs):
        super().__init__(
            *args,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            deep_supervision=deep_supervision,
            **kwargs,
        )
        self.decoder = LocalizingDecoder(
            self.encoder,
            self.decoder.num_classes,
            n_conv_per_stage_decoder,
            deep_supervision,
            nonlin_first=kwargs.get("nonlin_first", False),
        )


class LocalizingUNet(_Localizing, PlainConvUNet):
    """nnU-Net's plain U-Net with a `LocalizingDecoder`."""


class LocalizingResidualEncoderUNet(_Localizing, ResidualEncoderUNet):
    """nnU-Net's residual encoder U-Net with a `LocalizingDecoder`."""


# nnU-Net's networks that plans name → those of this package in their place.
LOCALIZING = replacements(
    [
        (PlainConvUNet, LocalizingUNet),
        (ResidualEncoderUNet, LocalizingResidualEncoderUNet),
    ]
)


class LocalizationLoss(nn.Module):
    """Loss of the segmentation plus `cue_weight` times that of the cue.

    The cue is compared with coarse lesion regions (`lesion_regions`) by a DiceFocal loss in which
    missed regions cost more than false ones.

    Args:
        segmentation: loss of the segmentation at all its scales.
        cue: loss of the cue.
        cue_weight: its factor.
        ignore_label: of the truth.

    Shape:
        net_output: the list that `LocalizingDecoder` gives.
        target: list of (B, 1, *spatial) truths, finest first.
    """

    def __init__(
        self,
        segmentation: nn.Module,
        cue: DiceFocalLoss,
        cue_weight: float = 1.0,
        ignore_label: int | None = None,
    ):
        super().__init__()
        self.segmentation = segmentation
        self.cue = cue
        self.cue_weight = cue_weight
        self.ignore_label = ignore_label

    def forward(self, net_output: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
        *segmentation, logits = net_output
        regions = lesion_regions(target[0], logits.shape[2:], self.ignore_label)
        return self.segmentation(segmentation, target) + self.cue_weight * self.cue(logits, regions)


def lesion_regions(
    target: torch.Tensor, size: Sequence[int], ignore_label: int | None
) -> torch.Tensor:
    """Truth of the cue: the lesions, dilated, on a coarser grid.

    Dilation does not spread over ignored pixels. A coarse pixel is lesion where any of its pixels
    belongs to a region, else ignored where any is ignored, else background.

    Args:
        target: (B, 1, *spatial) labels; every label but 0 and `ignore_label` is lesion.
        size: of the coarse grid; divides that of `target`.
        ignore_label: of `target`.

    Returns:
        (B, 1, *size) of 0, 1, and `ignore_label` where it is given.
    """
    pool = _POOL[target.ndim - 2]
    ignored = torch.zeros_like(target, dtype=torch.bool)
    if ignore_label is not None:
        ignored = target == ignore_label
    lesion = ((target > 0) & ~ignored).float()
    near = pool(lesion, 2 * DILATION_PX + 1, stride=1, padding=DILATION_PX)
    near = near * ~ignored
    factor = [full // coarse for full, coarse in zip(target.shape[2:], size)]
    regions = pool(near, factor)
    if ignore_label is not None:
        unknown = pool(ignored.float(), factor)
        regions = torch.where((regions == 0) & (unknown > 0), float(ignore_label), regions)
    return regions


def coarse_stage(strides: Sequence[Sequence[int] | int]) -> int:
    """The first encoder stage whose pixels are `CUE_STRIDE` of the image's wide along some axis.

    Args:
        strides: of every stage against the one before, as nnU-Net plans them.
    """
    reached = 1.0
    for stage, stride in enumerate(strides):
        reached *= max(stride) if isinstance(stride, Sequence) else stride
        if reached >= CUE_STRIDE:
            return stage
    return len(strides) - 1


def cue_of(logits: torch.Tensor) -> torch.Tensor:
    """(B, 1, *coarse) probability of a lesion region from the localizer's logits."""
    return torch.softmax(logits.float(), 1)[:, 1:]


def _resized(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if features.shape[2:] == tuple(size):
        return features
    mode = "trilinear" if features.ndim == 5 else "bilinear"
    return functional.interpolate(features, tuple(size), mode=mode, align_corners=False)
