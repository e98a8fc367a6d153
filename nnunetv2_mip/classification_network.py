"""A classifier that is trained as a whole: an encoder, gated attention over views, a linear layer.

The encoder is that of a trained segmentation network, fine-tuned, or one of the same form trained
from scratch. It is shown what the segmentation network would be shown (`MIPPredictor.network_input`
of the body), on pixels that may be coarser. Guards against shortcuts: random vertical crops, mirrored
sides, brightness and noise; features are means and maxima over the body, air is in none.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nnunetv2_mip.classification_features import cropped_to_body
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.predictor import MIPPredictor
from nnunetv2_mip.scale import BODY_LEVEL

HIDDEN = 16
DROPOUT = 0.3
# Least share of the body's height that a training crop keeps.
LEAST_HEIGHT = 0.75
VIEWS_A_STEP = 4
BATCH = 8


@dataclass(frozen=True)
class Images:
    """A study as the encoder is shown it.

    Attributes:
        views: (V, C, h, w) float32, standardised.
        body: (V, 1, h, w) float32, 1 in the body.
    """

    views: torch.Tensor
    body: torch.Tensor


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the studies.
        rate: of AdamW, for the head and for an encoder from scratch.
        encoder_rate: for an encoder that is fine-tuned.
        decay: AdamW's weight decay.
    """

    epochs: int = 12
    rate: float = 1e-3
    encoder_rate: float = 1e-4
    decay: float = 0.01


class ViewClassifier(nn.Module):
    """Encoder, pooling in space, gated attention over views (arXiv 1802.04712), linear layer."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder
        width = 2 * int(encoder.output_channels[-1])
        self.gate_tanh, self.gate_sigmoid = nn.Linear(width, HIDDEN), nn.Linear(width, HIDDEN)
        self.attention = nn.Linear(HIDDEN, 1, bias=False)
        # Equal weights to begin with.
        nn.init.zeros_(self.attention.weight)
        self.dropout = nn.Dropout(DROPOUT)
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 1)

    def forward(self, views: torch.Tensor, body: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N,) and weights (N, V) of views (N, V, C, H, W) with body (N, V, 1, H, W)."""
        count = views.shape[:2]
        stages = self.encoder(views.flatten(0, 1))
        last = stages[-1] if isinstance(stages, list | tuple) else stages
        weight = functional.adaptive_avg_pool2d(body.flatten(0, 1), last.shape[2:])
        mean = (last * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1e-6)
        peak = last.masked_fill(weight <= 0, -1e4).amax((2, 3))
        rows = self.norm(torch.cat([mean, peak], dim=1)).unflatten(0, count)
        gate = torch.tanh(self.gate_tanh(rows)) * torch.sigmoid(self.gate_sigmoid(rows))
        weights = self.attention(gate).squeeze(-1).softmax(dim=1)
        pooled = (weights[..., None] * rows).sum(1)
        return self.linear(self.dropout(pooled)).squeeze(-1), weights


def new_network(predictor: MIPPredictor, from_scratch: bool, seed: int = 0) -> ViewClassifier:
    """A classifier with the predictor's first encoder, or with fresh weights in the same form.

    Raises:
        MipError: the network has no encoder, or works on volumes.
    """
    if predictor.windows is None:
        raise MipError("a classifier needs a 2D network; this model's works on volumes")
    encoder = getattr(predictor.network.torch_module(0), "encoder", None)
    if encoder is None or not hasattr(encoder, "output_channels"):
        raise MipError("a classifier needs a network with an encoder, as nnU-Net's have")
    torch.manual_seed(seed)
    encoder = copy.deepcopy(encoder)
    if from_scratch:
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return ViewClassifier(encoder.float())


def network_images(
    predictor: MIPPredictor, levels: np.ndarray, pixel_mm: tuple[float, float], coarser: int = 1
) -> Images:
    """A stack as the encoder is shown it.

    Args:
        levels: (C, V, H, W) or (V, H, W), 0–255.
        pixel_mm: (row, column) spacing.
        coarser: the network's pixels times this.
    """
    levels = cropped_to_body(levels)
    views = predictor.network_input(levels, pixel_mm).transpose(0, 1).contiguous()
    suv = levels if levels.ndim == 3 else levels[0]
    body = torch.from_numpy((suv > BODY_LEVEL).astype(np.float32))[:, None]
    body = (functional.interpolate(body, views.shape[2:], mode="area") > 0.5).float()
    if coarser > 1:
        views = functional.avg_pool2d(views, coarser, ceil_mode=True)
        body = (functional.avg_pool2d(body, coarser, ceil_mode=True) > 0.5).float()
    return Images(views, body)


def window_of(predictor: MIPPredictor, coarser: int) -> tuple[int, int]:
    """(rows, columns) of what is trained on: the network's patch on coarser pixels."""
    windows = predictor.windows
    rows, columns = (
        max(m, -(-p // (coarser * m)) * m) for p, m in zip(windows.patch, windows.multiple)
    )
    return rows, columns


def train_network(
    network: ViewClassifier,
    images: Sequence[Images],
    labels: Sequence[bool],
    window: tuple[int, int],
    schedule: Schedule,
    fresh_encoder: bool,
    seed: int = 0,
) -> ViewClassifier:
    """Train in place; both classes weigh the same. Returns the network, ready to score.

    Raises:
        MipError: one class alone.
    """
    truth = np.asarray(labels, bool)
    if truth.all() or not truth.any():
        raise MipError("a classifier needs studies with lesions and without")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    share = np.where(truth, 0.5 * len(truth) / truth.sum(), 0.5 * len(truth) / (~truth).sum())
    encoder = list(network.encoder.parameters())
    known = {id(parameter) for parameter in encoder}
    others = [p for p in network.parameters() if id(p) not in known]
    rates = [schedule.rate if fresh_encoder else schedule.encoder_rate, schedule.rate]
    optimiser = torch.optim.AdamW(
        [{"params": part, "lr": rate} for part, rate in zip((encoder, others), rates)],
        weight_decay=schedule.decay,
    )
    steps = schedule.epochs * -(-len(truth) // BATCH)
    curve = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=max(steps, 2))
    network.train()
    for _ in range(schedule.epochs):
        order = rng.permutation(len(truth))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            views, body = _batch([images[i] for i in batch], window, rng)
            with torch.enable_grad():
                logits, _ = network(views, body)
                loss = functional.binary_cross_entropy_with_logits(
                    logits,
                    torch.from_numpy(truth[batch].astype(np.float32)),
                    torch.from_numpy(share[batch].astype(np.float32)),
                )
                optimiser.zero_grad()
                loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            curve.step()
    return network.eval()


@torch.inference_mode()
def score_images(
    network: ViewClassifier, images: Images, window: tuple[int, int]
) -> tuple[float, np.ndarray]:
    """Log odds of a study and the weights of its views, (V,)."""
    size = _size_for(images.views.shape[2:], window)
    pieces = [_placed(part, size) for part in (images.views, images.body)]
    logit, weights = network.eval()(pieces[0][None], pieces[1][None])
    return float(logit), weights[0].numpy()


def _size_for(shape: Sequence[int], window: tuple[int, int]) -> tuple[int, int]:
    """The window, or for larger images the next size that the strides divide."""
    rows, columns = (max(w, -(-n // 32) * 32) for n, w in zip(shape, window))
    return rows, columns


def _placed(
    image: torch.Tensor, size: tuple[int, int], offset: tuple[int, int] | None = None
) -> torch.Tensor:
    """Padded with zeros to `size`, in the middle or at `offset`."""
    missing = [want - have for want, have in zip(size, image.shape[2:])]
    before = offset or [m // 2 for m in missing]
    widths = (before[1], missing[1] - before[1], before[0], missing[0] - before[0])
    return functional.pad(image, widths)


def _batch(
    studies: Sequence[Images], window: tuple[int, int], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (N, V, C, H, W) and their bodies; of every study as many views as all of them have."""
    count = min(VIEWS_A_STEP, min(len(study.views) for study in studies))
    views, bodies = [], []
    for study in studies:
        chosen = np.sort(rng.choice(len(study.views), count, replace=False))
        height, width = study.views.shape[2:]
        rows = min(window[0], max(1, round(height * rng.uniform(LEAST_HEIGHT, 1))))
        columns = min(window[1], width)
        top = int(rng.integers(0, height - rows + 1))
        left = int(rng.integers(0, width - columns + 1))
        part = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
        view, body = study.views[chosen][part], study.body[chosen][part]
        if rng.random() < 0.5:
            view, body = view.flip(3), body.flip(3)
        view = view * float(rng.uniform(0.9, 1.1)) + float(rng.uniform(-0.1, 0.1))
        view = view + 0.05 * torch.from_numpy(rng.standard_normal(view.shape, np.float32))
        offset = (
            int(rng.integers(0, window[0] - rows + 1)),
            int(rng.integers(0, window[1] - columns + 1)),
        )
        views.append(_placed(view, window, offset))
        bodies.append(_placed(body, window, offset))
    return torch.stack(views), torch.stack(bodies)


def network_arrays(network: ViewClassifier) -> dict[str, np.ndarray]:
    """The weights as a file holds them, in half precision."""
    return {
        name: value.half().numpy() if value.is_floating_point() else value.numpy()
        for name, value in network.state_dict().items()
    }


def network_from_arrays(
    predictor: MIPPredictor, arrays: dict[str, np.ndarray], source: object
) -> ViewClassifier:
    """The way back; raises MipError where the weights do not fit the predictor's encoder."""
    network = new_network(predictor, from_scratch=False)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    except RuntimeError:
        raise MipError(f"{source}: its weights do not fit the network they belong to") from None
    return network.float().eval()
