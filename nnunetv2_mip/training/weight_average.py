"""The exponential moving average of a network's weights (Polyak averaging)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """average ← d · average + (1 − d) · weights after every step.

    Early on d is smaller, (1 + n) / (10 + n) after n steps, so that the average does not remember
    the random start. What is not floating point is copied.

    Args:
        network: its present weights are the start.
        decay: the largest d.

    Attributes:
        weights: the average, name → tensor; a tensor with several names has the first.
        steps: how many were taken in.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in _weights(network)}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights after a step into the average."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _weights(network):
            average = self.weights[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - keep)
            else:
                average.copy_(value)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights with the average; a second time, back again."""
        for name, value in _weights(network):
            held = value.clone()
            value.copy_(self.weights[name])
            self.weights[name].copy_(held)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """The network computes with the average inside the block."""
        self.swap(network)
        try:
            yield
        finally:
            self.swap(network)


def _weights(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor once: nnU-Net's networks list their layers under several names."""
    for named in (network.named_parameters(), network.named_buffers()):
        for name, value in named:
            yield name, value.detach()
