"""Head of a classifier on frozen features: gated attention over views and a linear layer.

Gated attention pooling of a bag of views: Ilse et al., ICML 2018 (arXiv 1802.04712),
a_v = softmax_v(w · (tanh(V x_v) ⊙ sigmoid(U x_v))). The pooled row goes through one linear layer.
Attention starts at equal weights and is fitted only where studies have several views. A head
that is fitted on single images gives all views of a study the same weight.

Scoring needs numpy alone, fitting needs torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax

from nnunetv2_mip.errors import MipError

HIDDEN = 16
STEPS = 150


@dataclass(frozen=True)
class HeadMember:
    """One fitted member of a head.

    Attributes:
        mean, scale: (F,), mean and standard deviation of the features it was fitted on.
        gate_tanh, gate_sigmoid: (K, F), V and U of the attention.
        attention: (K,), w of the attention.
        weight: (F,), bias: of the linear layer.
    """

    mean: np.ndarray
    scale: np.ndarray
    gate_tanh: np.ndarray
    gate_sigmoid: np.ndarray
    attention: np.ndarray
    weight: np.ndarray
    bias: float

    def score(self, features: np.ndarray) -> tuple[float, np.ndarray]:
        """Log odds of a study and the weights of its views, (V,), from features (V, F)."""
        x = (features - self.mean) / self.scale
        gate = np.tanh(x @ self.gate_tanh.T) * expit(x @ self.gate_sigmoid.T)
        weights = softmax(gate @ self.attention)
        return float(weights @ x @ self.weight + self.bias), weights


@dataclass(frozen=True)
class Head:
    """Ensemble of members fitted on parts of the cases; their scores are averaged.

    Attributes:
        members: at least one.
        columns: (F,) int, of the extractor's features.
    """

    members: tuple[HeadMember, ...]
    columns: np.ndarray

    def score(self, features: np.ndarray) -> tuple[float, np.ndarray]:
        """Log odds of a study and the weights of its views, (V,), from all features (V, F)."""
        found = [member.score(features[:, self.columns]) for member in self.members]
        return float(np.mean([score for score, _ in found])), np.mean([w for _, w in found], axis=0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Arrays for a classifier's file; `from_arrays` is the inverse."""
        out = {"columns": self.columns.astype(np.int32)}
        for number, member in enumerate(self.members):
            for name in HeadMember.__dataclass_fields__:
                out[f"{number}.{name}"] = np.asarray(getattr(member, name), np.float32)
        return out

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], source: str) -> "Head":
        """Head from the arrays of a file.

        Args:
            arrays: of `arrays`.
            source: the file, for the error message.

        Raises:
            MipError: arrays are missing or do not fit together.
        """
        try:
            count = 1 + max(int(name.split(".")[0]) for name in arrays if "." in name)
            members = []
            for number in range(count):
                parts = {
                    name: arrays[f"{number}.{name}"] for name in HeadMember.__dataclass_fields__
                }
                bias = float(parts.pop("bias"))
                width, hidden = len(arrays["columns"]), len(parts["attention"])
                shapes: dict[str, tuple[int, ...]] = {
                    "gate_tanh": (hidden, width),
                    "gate_sigmoid": (hidden, width),
                }
                shapes |= dict.fromkeys(("mean", "scale", "weight"), (width,))
                if any(parts[name].shape != shape for name, shape in shapes.items()):
                    raise ValueError("arrays of other sizes than its columns")
                members.append(HeadMember(**parts, bias=bias))
            head = cls(tuple(members), arrays["columns"].astype(int))
            head.score(np.zeros((1, int(head.columns.max()) + 1)))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise MipError(f"{source}: is not a whole classifier: {error}") from None
        return head


def fit_member(
    bags: Sequence[np.ndarray],
    labels: ArrayLike,
    penalty: float,
    seed: int = 0,
    steps: int = STEPS,
) -> HeadMember:
    """Member fitted by penalised logistic regression over bags; deterministic for a seed.

    Both classes have the same total weight. Of every study all bands (vertical crops) are fitted,
    each with an equal share of the study's weight.

    Args:
        bags: of every study (B, V, F) features: bands, views, columns.
        labels: of every study.
        penalty: of the squared weights; multiplied by the number of features, so that the prior
            spread of the score does not depend on it.
        seed: of the attention's initial gates.
        steps: most iterations of the optimiser (L-BFGS).

    Raises:
        MipError: one class alone.
    """
    import torch

    truth = np.asarray(labels, bool)
    if truth.all() or not truth.any():
        raise MipError("a classifier needs studies with lesions and without")
    rows = np.concatenate([bag.reshape(-1, bag.shape[-1]) for bag in bags])
    mean, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    counts = np.concatenate([[bag.shape[1]] * bag.shape[0] for bag in bags])
    # Views on one axis, padded: (bags, most views, F).
    x = np.zeros((len(counts), counts.max(), rows.shape[1]), np.float32)
    start = 0
    for number, count in enumerate(counts):
        x[number, :count] = (rows[start : start + count] - mean) / scale
        start += count
    share = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    bands = [bag.shape[0] for bag in bags]
    weights = torch.from_numpy(np.repeat(share / bands, bands).astype(np.float32))
    target = torch.from_numpy(np.repeat(truth, bands).astype(np.float32))
    there = torch.from_numpy(np.arange(counts.max())[None] < counts[:, None])
    data = torch.from_numpy(x)
    width = rows.shape[1]
    generator = torch.Generator().manual_seed(seed)
    several = bool(counts.max() > 1)

    def start_gate() -> torch.Tensor:
        return torch.randn(HIDDEN, width, generator=generator) / width**0.5

    gates = [start_gate(), start_gate()]
    attention, weight, bias = torch.zeros(HIDDEN), torch.zeros(width), torch.zeros(1)
    learned = [weight, bias, *([attention, *gates] if several else [])]
    for tensor in learned:
        tensor.requires_grad_(True)
    optimiser = torch.optim.LBFGS(learned, max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        pooled = data[:, 0]
        if several:
            gate = torch.tanh(data @ gates[0].T) * torch.sigmoid(data @ gates[1].T)
            odds = (gate @ attention).masked_fill(~there, -torch.inf)
            pooled = (odds.softmax(1)[..., None] * data).sum(1)
        logits = pooled @ weight + bias
        value = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, target, weights, reduction="sum"
        )
        value = value + penalty * width * (weight**2).sum()
        if several:
            value = value + penalty * ((attention**2).sum() + sum((g**2).sum() for g in gates))
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    return HeadMember(
        mean,
        scale,
        gate_tanh=gates[0].detach().numpy(),
        gate_sigmoid=gates[1].detach().numpy(),
        attention=attention.detach().numpy(),
        weight=weight.detach().numpy(),
        bias=float(bias.detach()),
    )
