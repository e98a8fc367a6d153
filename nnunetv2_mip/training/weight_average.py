"""Exponential moving average of a network's weights (Polyak averaging), with a warm-up.

torch's `AveragedModel` holds the average. Added to it are the warm-up and the exchange of weights
with the network, by which nnU-Net's own code validates and saves the average.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class WeightAverage(AveragedModel):
    """Average of a network's weights: average ← d · average + (1 − d) · weights after every step.

    Early on d is smaller, (1 + n) / (10 + n) after n steps, so that the random start is soon
    forgotten. Buffers that are not floating point are copied.

    Args:
        network: its present weights are the start.
        decay: the largest d.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__(network, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        # torch copies the weights where it has averaged none: the start is the first.
        self.steps = 0

    @property
    def steps(self) -> int:
        """Number of steps in the average."""
        return int(self.n_averaged) - 1

    @steps.setter
    def steps(self, steps: int) -> None:
        self.n_averaged.fill_(steps + 1)

    @torch.no_grad()
    def _average(self, averages: _Tensors, weights: _Tensors, averaged: torch.Tensor | int) -> None:
        """Take tensors of one data type into the average; `averaged` counts the start."""
        steps = int(averaged)
        keep = min(self.decay, (1 + steps) / (10 + steps))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - keep)
        else:
            torch._foreach_copy_(averages, weights)

    @torch.no_grad()
    def swap(self, network: nn.Module) -> None:
        """Exchange the network's weights with the average; a second time, back again."""
        own, other = (
            chain(module.parameters(), module.buffers()) for module in (self.module, network)
        )
        for average, weight in zip(own, other):
            held = weight.clone()
            weight.copy_(average)
            average.copy_(held)

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """The network computes with the average inside the block."""
        self.swap(network)
        try:
            yield
        finally:
            self.swap(network)
