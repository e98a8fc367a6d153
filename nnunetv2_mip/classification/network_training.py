"""Training of the classification networks (torch).

Augmentation: random vertical crops, left-right mirroring, brightness and noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.nn import functional

from nnunetv2_mip.classification.network import StudyImages, device_of, padded_length
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.sliding_window import pad_to_size
from nnunetv2_mip.training.muon import MuonAdamW

# Smallest share of the body's height in a training crop.
MIN_CROP_HEIGHT = 0.75
# Most draws of a crop until it shows a lesion of a study with lesions.
MAX_CROP_DRAWS = 10
EPOCHS = 44
VIEWS_A_STEP = 4
BATCH = 8
# Decay of the moving average of the weights, which is the trained network.
EMA_DECAY = 0.99
# Share of a cell's area from which on it is a lesion.
LESION_SHARE = 0.1
CELL_WEIGHT = 1.0


@dataclass(frozen=True)
class Schedule:
    """Length and learning rates of a training.

    Attributes:
        epochs: passes over the studies.
        rate: learning rate of AdamW, for all but an encoder that is fine-tuned.
        muon_factor: Muon's learning rate over `rate`, for the kernels of a network from scratch.
        encoder_rate: learning rate of AdamW, for an encoder that is fine-tuned.
        decay: weight decay.
    """

    epochs: int = EPOCHS
    rate: float = 1e-3
    muon_factor: float = 10.0
    encoder_rate: float = 1e-4
    decay: float = 0.01


def window_for(images: Sequence[StudyImages]) -> tuple[int, int]:
    """Window (rows, columns) of the training, which holds the tallest and the widest body.

    In a smaller window a crop could have the label of lesions that it does not show.
    """
    rows, columns = (max(study.views.shape[axis] for study in images) for axis in (2, 3))
    return padded_length(rows), padded_length(columns)


def train_network(
    network: nn.Module,
    images: Sequence[StudyImages],
    labels: ArrayLike,
    window: tuple[int, int],
    schedule: Schedule,
    seed: int = 0,
    after_epoch: Callable[[], object] = lambda: None,
) -> nn.Module:
    """Trained network: the moving average of the weights, in evaluation mode.

    Both classes have the same weight in the loss.

    Args:
        network: is trained in place.
        images, labels: of N studies.
        window: (rows, columns), of `window_for`.
        schedule: length and learning rates.
        seed: of the crops and of their order.
        after_epoch: called after every epoch.

    Raises:
        MipError: one class alone.
    """
    truth, device = np.asarray(labels, bool), device_of(network)
    if truth.all() or not truth.any():
        raise MipError("a classifier needs studies with lesions and without")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    share = np.where(truth, 0.5 * len(truth) / truth.sum(), 0.5 * len(truth) / (~truth).sum())
    optimiser = _optimiser(network, schedule)
    steps = schedule.epochs * -(-len(truth) // BATCH)
    rates = [group["lr"] for group in optimiser.param_groups]
    curve = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=max(steps, 2), cycle_momentum=False
    )
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY)
    )
    network.train()
    for _ in range(schedule.epochs):
        order = rng.permutation(len(truth))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            views, body, lesions = training_batch([images[i] for i in batch], window, rng)
            views, body = views.to(device), body.to(device)
            with torch.enable_grad():
                logits, _, cells = network(views, body)
                loss = functional.binary_cross_entropy_with_logits(
                    logits,
                    torch.from_numpy(truth[batch].astype(np.float32)).to(device),
                    torch.from_numpy(share[batch].astype(np.float32)).to(device),
                )
                if cells is not None and lesions is not None:
                    loss = loss + CELL_WEIGHT * _cell_loss(cells, body, lesions.to(device))
                optimiser.zero_grad()
                loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            curve.step()
            average.update_parameters(network)
        after_epoch()
    return average.module.eval()


def _optimiser(network: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Muon for a network from scratch; AdamW for an encoder that is fine-tuned."""
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        return MuonAdamW(network, schedule.rate, schedule.muon_factor, schedule.decay)
    known = {id(parameter) for parameter in encoder.parameters()}
    others = [p for p in network.parameters() if id(p) not in known]
    return torch.optim.AdamW(
        [
            {"params": list(encoder.parameters()), "lr": schedule.encoder_rate},
            {"params": others, "lr": schedule.rate},
        ],
        weight_decay=schedule.decay,
    )


def _cell_loss(cells: torch.Tensor, body: torch.Tensor, lesions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and soft Dice loss of the body's cells, without those of little lesion."""
    size = (cells.shape[-2], cells.shape[-1])
    share = functional.adaptive_avg_pool2d(lesions.flatten(0, 1), size)
    inside = functional.adaptive_avg_pool2d(body.flatten(0, 1), size) > 0
    target = (share > LESION_SHARE).float()
    counted = inside & ((share <= 0) | (share > LESION_SHARE))
    odds = cells.flatten(0, 1)
    entropy = functional.binary_cross_entropy_with_logits(odds, target, reduction="none")
    entropy = (entropy * counted).sum() / counted.sum().clamp_min(1)
    predicted = torch.sigmoid(odds) * counted
    dice = (2 * (predicted * target).sum() + 1) / (predicted.sum() + (target * counted).sum() + 1)
    return 5 * entropy + 1 - dice


def training_batch(
    studies: Sequence[StudyImages], window: tuple[int, int], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Augmented crops of N studies: views (N, V, C, H, W), bodies and (where known) lesions.

    V is the same for all studies, at most `VIEWS_A_STEP`.
    """
    count = min(VIEWS_A_STEP, min(len(study.views) for study in studies))
    crops = []
    for study in studies:
        crop = _crop(study, count, window, rng)
        rows, columns = crop[0].shape[2:]
        if rng.random() < 0.5:
            crop = [x.flip(3) for x in crop]
        crop[0] = crop[0] * float(rng.uniform(0.9, 1.1)) + float(rng.uniform(-0.1, 0.1))
        noise = torch.from_numpy(rng.standard_normal(crop[0].shape, np.float32))
        crop[0] = crop[0] + 0.05 * noise
        offset = (
            int(rng.integers(0, window[0] - rows + 1)),
            int(rng.integers(0, window[1] - columns + 1)),
        )
        crops.append([pad_to_size(x, window, offset)[0] for x in crop])
    whole = all(len(crop) == 3 for crop in crops)
    views, body, *lesions = (torch.stack(x) for x in zip(*(c[: 2 + whole] for c in crops)))
    return views, body, lesions[0] if lesions else None


def _crop(
    study: StudyImages, count: int, window: tuple[int, int], rng: np.random.Generator
) -> list[torch.Tensor]:
    """Views, body and (where known) lesions of a random vertical crop of a study.

    The crop has the label of the whole study. So, of a study with known lesions, crops are drawn
    until one shows a lesion, at most `MAX_CROP_DRAWS` times.
    """
    parts = [x for x in (study.views, study.body, study.lesions) if x is not None]
    height, width = study.views.shape[2:]
    has_lesion = study.lesions is not None and bool(study.lesions.any())
    crop = []
    for _ in range(MAX_CROP_DRAWS):
        chosen = np.sort(rng.choice(len(study.views), count, replace=False))
        rows = min(window[0], max(1, round(height * rng.uniform(MIN_CROP_HEIGHT, 1))))
        columns = min(window[1], width)
        top = int(rng.integers(0, height - rows + 1))
        left = int(rng.integers(0, width - columns + 1))
        part = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
        crop = [x[chosen][part] for x in parts]
        if not has_lesion or bool(crop[2].any()):
            break
    return crop
