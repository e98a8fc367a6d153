"""U-Nets whose features are weighted in space by a cue, the last channel of the input.

The second stage of L2SNet (arXiv 2309.05446), as a soft weight. The cue is an input channel like
the others (`nnunet.second_stage_data`), and weights the features that the decoder gets from the
encoder, as the cue of `localization` does. In training the cue is dropped from some samples, so
that the network works without a cue and with a wrong one.
"""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

from nnunetv2_mip.networks.localization import weighted_features
from nnunetv2_mip.networks.replacement import replacements

# Cue without information: features are neither raised nor damped.
NEUTRAL = 0.5


class _Cued(nn.Module):
    """Shared part of the two networks below.

    Attributes:
        cue_dropout: share of the training samples without a cue: half of those get the neutral
            cue, the others an empty one (0 everywhere).
    """

    encoder: PlainConvEncoder | ResidualEncoder
    decoder: UNetDecoder
    cue_dropout = 0.3

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Logits of the strengths, one a stage.
        self.strengths = nn.Parameter(torch.zeros(len(self.encoder.output_channels)))

    def forward(self, x: torch.Tensor):
        """(B, C, *spatial) whose last channel is the cue → logits, as nnU-Net's networks give."""
        x = self._with_cue(x)
        return self.decoder(weighted_features(self.encoder(x), x[:, -1:], self.strengths))

    def _with_cue(self, x: torch.Tensor) -> torch.Tensor:
        cue = x[:, -1:].clamp(0, 1)
        if self.training and self.cue_dropout > 0:
            draw = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device)
            cue = torch.where(draw < self.cue_dropout, torch.full_like(cue, NEUTRAL), cue)
            cue = torch.where(draw < self.cue_dropout / 2, torch.zeros_like(cue), cue)
        return torch.cat([x[:, :-1], cue], 1)


class CuedUNet(_Cued, PlainConvUNet):
    """nnU-Net's plain U-Net, weighted by the cue."""


class CuedResidualEncoderUNet(_Cued, ResidualEncoderUNet):
    """nnU-Net's residual encoder U-Net, weighted by the cue."""


# nnU-Net's networks that plans name → those of this package in their place.
CUED = replacements([(PlainConvUNet, CuedUNet), (ResidualEncoderUNet, CuedResidualEncoderUNet)])
