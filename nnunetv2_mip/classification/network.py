"""Classification networks with gated attention over views (torch).

`ViewClassifier` has the encoder of a trained segmentation network, which is fine-tuned.
`CompactClassifier` is trained from scratch: a small U-shaped network whose cells of 4 × 4 pixels
also learn the position of lesions, where the data set has masks. The input of both is that of the
segmentation network (`MIPPredictor.network_input`), cropped to the body and with a pixel size of
their own. Pooling is over the body alone, without air.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nnunetv2_mip.classification.features import body_window
from nnunetv2_mip.conventions import BODY_LEVEL
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.inference.sliding_window import pad_to_size
from nnunetv2_mip.training.cpu import has_bfloat16_arithmetic

HIDDEN = 16
DROPOUT = 0.3
# Numbers of cells with the highest odds, whose mean odds are features of a view.
CELL_COUNTS = (1, 4, 16)
COMPACT_WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True)
class StudyImages:
    """Network input of a study.

    Attributes:
        views: (V, C, h, w) float32, standardised.
        body: (V, 1, h, w) float32, 1 in the body.
        lesions: (V, 1, h, w) float32, share of a pixel that is lesion; None without masks.
    """

    views: torch.Tensor
    body: torch.Tensor
    lesions: torch.Tensor | None = None


class ViewAttention(nn.Module):
    """Gated attention over views (arXiv 1802.04712), with equal weights at the start."""

    def __init__(self, width: int):
        super().__init__()
        self.gate_tanh, self.gate_sigmoid = nn.Linear(width, HIDDEN), nn.Linear(width, HIDDEN)
        self.attention = nn.Linear(HIDDEN, 1, bias=False)
        nn.init.zeros_(self.attention.weight)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (N, V, F) pooled to (N, F), and the weights (N, V)."""
        gate = torch.tanh(self.gate_tanh(rows)) * torch.sigmoid(self.gate_sigmoid(rows))
        weights = self.attention(gate).squeeze(-1).softmax(dim=1)
        return (weights[..., None] * rows).sum(1), weights


class ViewClassifier(nn.Module):
    """Trained encoder, pooling in space, attention over views, linear layer."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        # A list, in the encoders of nnU-Net.
        channels: Any = encoder.output_channels
        width = 2 * int(channels[-1])
        self.norm = nn.LayerNorm(width)
        self.pool = ViewAttention(width)
        self.dropout = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(width, 1)

    def forward(
        self, views: torch.Tensor, body: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Logits (N,) and weights (N, V) of views (N, V, C, H, W) with body (N, V, 1, H, W)."""
        stages = self.encoder(views.flatten(0, 1))
        last = stages[-1] if isinstance(stages, list | tuple) else stages
        rows = self.norm(_mean_and_peak(last, body.flatten(0, 1)))
        pooled, weights = self.pool(rows.unflatten(0, views.shape[:2]))
        return self.linear(self.dropout(pooled)).squeeze(-1), weights, None


class CompactClassifier(nn.Module):
    """Small U-shaped network with strides 2 to 16 and lesion odds for cells of 4 × 4 pixels."""

    def __init__(self, channels: int):
        super().__init__()
        first, *widths = COMPACT_WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 4, stride=2, padding=1), *_tail(first), *_conv(first, first)
        )
        self.down = nn.ModuleList(
            nn.Sequential(*_conv(before, width, 2), *_conv(width, width))
            for before, width in zip(COMPACT_WIDTHS, widths)
        )
        self.narrow = nn.ModuleList(
            nn.Conv2d(deep, width, 1) for deep, width in zip(widths[:0:-1], widths[-2::-1])
        )
        self.up = nn.ModuleList(nn.Sequential(*_conv(width, width)) for width in widths[-2::-1])
        self.cells = nn.Conv2d(widths[0], 1, 1)
        width = 2 * widths[-1] + widths[0]
        self.norm = nn.LayerNorm(width)
        self.pool = ViewAttention(width + len(CELL_COUNTS))
        self.dropout = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(width + len(CELL_COUNTS), 1)

    def forward(
        self, views: torch.Tensor, body: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (N,), weights (N, V), and log odds of cells (N, V, 1, H / 4, W / 4)."""
        # Twice as fast where the device multiplies in bfloat16; scores are computed in float32.
        fast = self.training and (views.is_cuda or has_bfloat16_arithmetic())
        with torch.autocast(views.device.type, torch.bfloat16, enabled=fast):
            deepest, x = self._stages(views.flatten(0, 1))
        deepest, x = deepest.float(), x.float()
        cells = self.cells(x)
        mask = body.flatten(0, 1)
        weight = functional.adaptive_avg_pool2d(mask, _size(x)) > 0
        suspicion = torch.sigmoid(cells) * weight
        suspect = (x * suspicion).sum((2, 3)) / suspicion.sum((2, 3)).clamp_min(1e-6)
        odds = cells.masked_fill(~weight, -20.0).flatten(1).sort(descending=True).values
        tops = torch.stack([odds[:, :count].mean(1) for count in CELL_COUNTS], dim=1)
        rows = torch.cat([_mean_and_peak(deepest, mask), suspect], dim=1)
        rows = torch.cat([self.norm(rows), tops / 4], dim=1)
        pooled, weights = self.pool(rows.unflatten(0, views.shape[:2]))
        logits = self.linear(self.dropout(pooled)).squeeze(-1)
        return logits, weights, cells.unflatten(0, views.shape[:2])

    def _stages(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Deepest stage of the encoder and last stage of the decoder, of views (N V, C, H, W)."""
        stages = [self.stem(x)]
        for step in self.down:
            stages.append(step(stages[-1]))
        deepest = x = stages.pop()
        for narrow, up in zip(self.narrow, self.up):
            skip = stages.pop()
            x = up(skip + functional.interpolate(narrow(x), skip.shape[2:]))
        return deepest, x


def _conv(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1), *_tail(after)]


def _tail(width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width, affine=True), nn.LeakyReLU(inplace=True)]


def _size(images: torch.Tensor) -> tuple[int, int]:
    """(rows, columns) of images (N, C, H, W)."""
    return images.shape[2], images.shape[3]


def _mean_and_peak(stage: torch.Tensor, body: torch.Tensor) -> torch.Tensor:
    """Mean and maximum (N, 2 C) of a stage (N, C, h, w) over the body (N, 1, H, W)."""
    weight = functional.adaptive_avg_pool2d(body, _size(stage))
    mean = (stage * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)
    # A crop of air alone has no maximum.
    peak = stage.masked_fill(weight <= 0, -1e4).amax((2, 3)).clamp_min(-10)
    return torch.cat([mean, peak], dim=1)


def new_network(predictor: MIPPredictor, from_scratch: bool, seed: int = 0) -> nn.Module:
    """New `CompactClassifier`, or `ViewClassifier` with the predictor's encoder, on its device.

    Raises:
        MipError: the network has no encoder, or works on volumes.
    """
    torch.manual_seed(seed)
    if predictor.windows is None:
        raise MipError("a classifier needs a 2D network; this model's works on volumes")
    module = predictor.network.torch_module(0)
    if from_scratch:
        channels = next(weight.shape[1] for weight in module.parameters() if weight.ndim == 4)
        return CompactClassifier(channels).to(predictor.device)
    encoder = getattr(module, "encoder", None)
    if encoder is None or not hasattr(encoder, "output_channels"):
        raise MipError("a classifier needs a network with an encoder, as nnU-Net's have")
    return ViewClassifier(copy.deepcopy(encoder).float()).to(predictor.device)


def study_images(
    predictor: MIPPredictor,
    levels: np.ndarray,
    pixel_mm: tuple[float, float],
    shown_mm: float | None = None,
    mask: np.ndarray | None = None,
) -> StudyImages:
    """Network input of a stack of views.

    Args:
        levels: (C, V, H, W) or (V, H, W), 0–255.
        pixel_mm: (row, column) spacing.
        shown_mm: pixel size of the input; None for the segmentation network's own.
        mask: (V, H, W), lesions are 1; None where there is none.
    """
    suv = levels if levels.ndim == 3 else levels[0]
    rows, columns = body_window(suv)
    if shown_mm is not None:
        # The predictor resamples to its own pixel size; a scaled spacing makes it `shown_mm`.
        row_mm, column_mm = (mm * own / shown_mm for mm, own in zip(pixel_mm, predictor.pixel_mm))
        pixel_mm = row_mm, column_mm
    views = predictor.network_input(levels[..., rows, columns], pixel_mm)
    views = views.transpose(0, 1).contiguous()
    size = views.shape[2:]

    def resized(part: np.ndarray) -> torch.Tensor:
        image = torch.from_numpy(part[:, rows, columns].astype(np.float32))[:, None]
        return functional.interpolate(image, size, mode="area")

    body = (resized(suv > BODY_LEVEL) > 0.5).float()
    return StudyImages(views, body, None if mask is None else resized(mask == 1))


@torch.inference_mode()
def score_images(
    network: nn.Module, images: StudyImages, window: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """Log odds of a study and weights of its views (V,); means of it and its mirror image."""
    rows, columns = (max(w, padded_length(n)) for n, w in zip(images.views.shape[2:], window))
    pieces = [
        pad_to_size(part, (rows, columns))[0][None].to(device_of(network))
        for part in (images.views, images.body)
    ]
    mirrored = [piece.flip(-1) for piece in pieces]
    answers = [network.eval()(*pair)[:2] for pair in (pieces, mirrored)]
    logit = sum(float(logits) for logits, _ in answers) / 2
    return logit, sum(weights[0].cpu().numpy() for _, weights in answers) / 2


def device_of(network: nn.Module) -> torch.device:
    """Device of the network's weights."""
    return next(network.parameters()).device


def padded_length(size: float) -> int:
    """Smallest number of pixels, at least `size`, that the strides divide."""
    return max(32, -(-int(np.ceil(size)) // 32) * 32)


def network_arrays(network: nn.Module) -> dict[str, np.ndarray]:
    """Weights in half precision, as a classifier's file holds them."""
    return {
        name: (value.half() if value.is_floating_point() else value).cpu().numpy()
        for name, value in network.state_dict().items()
    }


def network_from_arrays(
    predictor: MIPPredictor, arrays: dict[str, np.ndarray], from_scratch: bool, source: object
) -> nn.Module:
    """Network with the weights of a classifier's file.

    Args:
        predictor: the segmentation model.
        arrays: of `network_arrays`.
        from_scratch: see `new_network`.
        source: the file, for the error message.

    Raises:
        MipError: the weights do not fit.
    """
    network = new_network(predictor, from_scratch)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except RuntimeError:
        raise MipError(f"{source}: its weights do not fit the network they belong to") from None
    return network.float().eval()
