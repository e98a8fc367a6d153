"""Learning rate schedules, by hand."""

import math

import pytest
import torch
from torch import nn

from nnunetv2_mip.training.lr_schedules import WarmupCosine


def test_warmup_then_cosine():
    optimizer = torch.optim.AdamW(nn.Linear(1, 1).parameters(), 1.0)
    schedule = WarmupCosine(optimizer, 2.0, epochs=10, warmup=0.1)
    rates = []
    for epoch in (0, 0.5, 1, 5.5, 10):
        schedule.step(epoch)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02, 1.0, 2.0, 1 + math.cos(math.pi / 2), 0.0], abs=1e-9)
