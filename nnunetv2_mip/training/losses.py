"""DiceFocal: foreground soft Dice plus the focal cross-entropy of the true class.

The weights 1 : 10 come from TS-Code-Net (Med. Phys. 2023, doi 10.1002/mp.16438); focal loss is Lin
et al. (arXiv 1708.02002), here with softmax and without α.
"""

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import nn


class DiceFocalLoss(nn.Module):
    """`weight_dice` · (1 − Dice) + `weight_focal` · mean over annotated pixels of (1 − p_t)^γ · CE.

    Dice is nnU-Net's soft Dice over the foreground classes: (2·I + s) / (T + P + s). The loss is
    ≥ 0 and is 0 for a perfect answer and for a batch without any annotated pixel. Sums are taken
    over the batches of all processes where `ddp` is set, so that the gradients (which DDP averages)
    are those of one process with the whole batch.

    With `recall_weight` r other than a half, missed foreground costs r / (1 − r) times what false
    foreground costs: the Dice becomes a Tversky index (Salehi et al., arXiv 1706.05721) of weights
    1 − r for false and r for missed, and the focal term of foreground pixels is multiplied by
    r / (1 − r).

    Shape:
        net_output: (B, C, *spatial) logits of any floating dtype; half precision is computed in
            float32.
        target: (B, 1, *spatial) class indices of any dtype, 0 is background.
        result: a scalar.

    Args:
        weight_dice: factor of the Dice term.
        weight_focal: factor of the focal term.
        gamma: exponent γ; 0 gives plain cross-entropy. Between 0 and 1 the gradient is unbounded.
        batch_dice: one Dice for the batch; otherwise the mean over its images.
        ignore_label: target value of pixels that count nowhere.
        smooth: s above.
        ddp: sum over the processes of torch.distributed.
        recall_weight: r above, between 0 and 1.

    Raises:
        ValueError: gamma below 0 or between 0 and 1, recall_weight not between 0 and 1.
    """

    def __init__(
        self,
        weight_dice: float = 1.0,
        weight_focal: float = 10.0,
        gamma: float = 2.0,
        batch_dice: bool = True,
        ignore_label: int | None = None,
        smooth: float = 1e-5,
        ddp: bool = False,
        recall_weight: float = 0.5,
    ):
        super().__init__()
        if not 0 < recall_weight < 1:
            raise ValueError(f"recall_weight {recall_weight}: must lie between 0 and 1")
        if gamma != 0 and gamma < 1:
            raise ValueError(f"gamma {gamma}: must be 0 or at least 1")
        self.weight_dice = weight_dice
        self.weight_focal = weight_focal
        self.gamma = gamma
        self.batch_dice = batch_dice
        self.ignore_label = ignore_label
        self.smooth = smooth
        self.ddp = ddp
        self.recall_weight = recall_weight

    def forward(self, net_output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # Under autocast the network's output is in half precision; its sums over pixels overflow.
        half = net_output.dtype in (torch.float16, torch.bfloat16)
        log_p = torch.log_softmax(net_output.float() if half else net_output, dim=1)
        target = target.long()
        if self.ignore_label is None:
            annotated = torch.ones_like(target, dtype=log_p.dtype)
        else:
            known = target != self.ignore_label
            target = torch.where(known, target, 0)
            annotated = known.to(log_p.dtype)

        log_pt = log_p.gather(1, target)
        # 1 − p_t without cancellation, where p_t is near 1 (nearly everywhere).
        missing = (-torch.expm1(log_pt)).clamp_min(0)
        focal = missing**self.gamma * -log_pt * annotated
        if self.recall_weight != 0.5:
            focal = focal * torch.where(
                target > 0, self.recall_weight / (1 - self.recall_weight), 1
            )
        focal = focal.sum()
        pixels = annotated.sum()

        spatial = tuple(range(2, log_p.ndim))
        classes = torch.arange(1, log_p.shape[1], device=target.device)
        truth = (target == classes.view(1, -1, *[1] * len(spatial))).to(log_p.dtype) * annotated
        predicted = log_p[:, 1:].exp()
        # (B, C − 1) each
        intersect = (predicted * truth).sum(spatial)
        # Twice the areas weighted by the costs of missed and of false foreground: T + P where they
        # are equal.
        union = 2 * self.recall_weight * truth.sum(spatial)
        union = union + 2 * (1 - self.recall_weight) * (predicted * annotated).sum(spatial)

        if self.batch_dice:
            # Dice of summed areas
            intersect, union = intersect.sum(0), union.sum(0)
            focal, pixels, intersect, union = self._over_processes(focal, pixels, intersect, union)
            dice = self._dice(intersect, union).mean()
        else:
            # Mean of the images' Dice
            per_image = self._dice(intersect, union).mean(1)
            images = torch.full_like(pixels, len(per_image))
            focal, pixels, dice, images = self._over_processes(
                focal, pixels, per_image.sum(), images
            )
            dice = dice / images
        return self.weight_dice * (1 - dice) + self.weight_focal * focal / pixels.clamp_min(1)

    def _dice(self, intersect: torch.Tensor, union: torch.Tensor) -> torch.Tensor:
        return (2 * intersect + self.smooth) / (union + self.smooth).clamp_min(1e-8)

    def _over_processes(self, *sums: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The sums over all processes, in one gathering; unchanged without `ddp`."""
        if not self.ddp:
            return sums
        packed = torch.cat([item.reshape(-1) for item in sums])
        total = AllGatherGrad.apply(packed).sum(0)
        parts = total.split([item.numel() for item in sums])
        return tuple(part.reshape(item.shape) for part, item in zip(parts, sums))
