"""Muon optimiser: momentum steps with all singular values of a kernel's step about equal.

Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
`torch.optim.Muon` takes matrices only, of which a convolutional network has hardly any.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from nnunetv2_mip.training.cpu import has_bfloat16_arithmetic

MOMENTUM = 0.95
# Coefficients of the quintic polynomial and number of its applications, from the source: singular
# values of 0.0005 to 1 end between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(matrix: torch.Tensor, iterations: int = ITERATIONS) -> torch.Tensor:
    """Approximation of U Vᵀ of the singular value decomposition U S Vᵀ by Newton-Schulz iteration.

    Args:
        matrix: (rows, columns), not all zero.
        iterations: of the polynomial. In bfloat16 where the device multiplies in it.

    Returns:
        of the same shape and type; singular values between about 0.7 and 1.2.
    """
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    fast = matrix.is_cuda or has_bfloat16_arithmetic()
    x = (matrix.T if tall else matrix).to(torch.bfloat16 if fast else matrix.dtype)
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


class MuonAdamW(torch.optim.AdamW):
    """Muon for convolutions, AdamW for everything else, with one learning rate and schedule.

    A kernel is taken as the matrix (filters, input channels × kernel size). Its step is
    rate · `muon_factor` · √max(1, rows / columns) times the orthogonalised momentum (Nesterov), its
    weight decay is decoupled, as AdamW's.

    Args:
        network: whose parameters are trained; those that need no gradient are left out.
        lr: AdamW's learning rate.
        muon_factor: Muon's rate over `lr`.
        weight_decay: of both.
    """

    def __init__(self, network: nn.Module, lr: float, muon_factor: float, weight_decay: float):
        trained = [p for p in network.parameters() if p.requires_grad]
        kernels = {id(kernel) for kernel in _hidden_kernels(network)}
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if id(p) not in kernels], "muon_factor": None},
            {"params": [p for p in trained if id(p) in kernels], "muon_factor": muon_factor},
        ]
        super().__init__([g for g in groups if g["params"]], lr, weight_decay=weight_decay)

    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon_factor"] is not None:
                self._step_by_muon(group)
        self.param_groups = [g for g in groups if g["muon_factor"] is None]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    @torch.no_grad()
    def _step_by_muon(self, group: dict) -> None:
        rate = group["lr"] * group["muon_factor"]
        for kernel in group["params"]:
            if kernel.grad is None:
                continue
            state = self.state[kernel]
            if not state:
                # Adam's way of loading a state asks for the step of every weight.
                state["step"] = torch.tensor(0.0)
                state["momentum"] = torch.zeros_like(kernel)
            state["momentum"].lerp_(kernel.grad, 1 - MOMENTUM)
            direction = kernel.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
            rows, columns = direction.shape
            kernel.mul_(1 - group["lr"] * group["weight_decay"])
            kernel.add_(
                orthogonalised(direction).view_as(kernel),
                alpha=-rate * math.sqrt(max(1, rows / columns)),
            )


def _hidden_kernels(network: nn.Module) -> Iterator[torch.Tensor]:
    """Kernels of convolutions over neighbouring pixels and more than one channel.

    Left out: the first layer (one image channel), the outputs (1 × 1) and the transposed
    convolutions.
    """
    for layer in network.modules():
        if (
            isinstance(layer, (nn.Conv2d, nn.Conv3d))
            and layer.in_channels > 1
            and math.prod(layer.kernel_size) > 1
        ):
            yield layer.weight
