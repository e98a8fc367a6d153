"""Learning rate schedules in nnU-Net's unit, the epoch, which may be fractional."""

import math

from torch.optim import Optimizer


class WarmupCosine:
    """Linear warm-up to the learning rate, then cosine decay to 0.

    SGDR without restarts (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        optimizer: all its groups get the same rate.
        rate: the highest learning rate.
        epochs: of the whole training.
        warmup: share of the training that goes up.
    """

    def __init__(self, optimizer: Optimizer, rate: float, epochs: float, warmup: float):
        self.optimizer = optimizer
        self.rate = rate
        self.epochs = epochs
        self.warmup = warmup
        self.step(0)

    def rate_at(self, epoch: float) -> float:
        """Learning rate after `epoch` epochs; above 0 at the start."""
        done = min(1.0, epoch / self.epochs)
        if done < self.warmup:
            return self.rate * max(done / self.warmup, 1e-2)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / (1 - self.warmup)))

    def step(self, epoch: float) -> None:
        """Set the rate of all groups."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_at(epoch)
