"""The network over a stack of views: windows, mirrored copies and folds, as far as time allows.

The logits of all windows, copies and folds are averaged as nnU-Net does (Gaussian weights within
overlapping windows). A pass is one fold on one copy of all views. First come the views as they
are through every fold, then one mirrored copy after the other; where the deadline leaves no time
for the next, the complete ones are the answer.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from nnunetv2_mip.inference.deadline import Deadline, WorkDone
from nnunetv2_mip.inference.engine import Network

# A view of more than so many patches is not shown to the network in one piece: memory.
MOST_PATCHES_AT_ONCE = 8


@dataclass(frozen=True)
class Windows:
    """How views are cut for the network.

    Attributes:
        patch: (rows, columns) the network was trained on.
        multiple: (rows, columns) that the network's strides divide.
        whole: show a view in one piece, padded to `multiple` and at least to the patch (as in
            training: instance norms see the padding); else in patches that overlap by half.
    """

    patch: tuple[int, int]
    multiple: tuple[int, int]
    whole: bool

    def size_for(self, shape: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of a window for views of `shape`."""
        if self.whole:
            size = self.whole_size(shape)
            if math.prod(size) <= MOST_PATCHES_AT_ONCE * math.prod(self.patch):
                return size
        return self.patch

    def whole_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Rows and columns that hold views of `shape` in one piece, as padded in training."""
        rows, columns = (
            max(p, math.ceil(n / m) * m) for n, m, p in zip(shape, self.multiple, self.patch)
        )
        return rows, columns


def mirrored_copies(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """The axes to flip for every copy, the copy as it is first.

    Args:
        axes: that may be mirrored, 0 for rows and 1 for columns; None for no mirroring.
    """
    own = tuple(axes or ())
    return [c for n in range(len(own) + 1) for c in itertools.combinations(own, n)]


@torch.inference_mode()
def run_passes(
    network: Network,
    data: torch.Tensor,
    classes: int,
    windows: Windows,
    copies: Sequence[tuple[int, ...]],
    deadline: Deadline,
) -> torch.Tensor:
    """Average the logits of all copies and folds.

    Args:
        network: the folds.
        data: (C, V, H, W) float32, preprocessed.
        classes: number of logits.
        windows: how views are cut.
        copies: from `mirrored_copies`.
        deadline: checked before every window; its `work_done` is set.

    Returns:
        logits (classes, V, H, W) float32 on the CPU.

    Raises:
        Cancelled: raised by the deadline.
    """
    size = windows.size_for(data.shape[2:])
    padded, inner = pad_to_size(data, size)
    one_pass = _Pass(network, padded, classes, size, deadline)
    # Of a cascade the windows of both stages.
    deadline.windows += len(copies) * len(network) * data.shape[1] * len(one_pass.windows)
    total, folds = one_pass.run_folds(copies[0])
    complete = 1
    for copy in copies[1:]:
        if folds < len(network) or not deadline.allows(one_pass.seconds * len(network)):
            break
        more, run = one_pass.run_folds(copy)
        if run < len(network):
            # Part of a mirrored copy would weigh the folds unequally.
            break
        total.add_(more)
        complete += 1
    total /= complete * folds
    deadline.work_done = WorkDone(complete, len(copies), folds, len(network))
    return total[(slice(None), slice(None), *inner)].cpu()


class _Pass:
    """One fold on one copy of all views."""

    def __init__(self, network, data, classes, size, deadline):
        self.network, self.data, self.deadline = network, data.to(network.device), deadline
        self.classes, self.size = classes, size
        # Of the pass that took longest: what the next one may take.
        self.seconds = 0.0
        self.windows = list(_windows(data.shape[2:], size))
        self.weight = self.weights = None
        if len(self.windows) > 1:
            self.weight = _gaussian(size).to(network.device)
            self.weights = torch.zeros(data.shape[2:], device=network.device)
            for rows, columns in self.windows:
                self.weights[rows, columns] += self.weight

    def run_folds(self, axes: tuple[int, ...]) -> tuple[torch.Tensor, int]:
        """Sum of the folds' logits (K, V, H, W), and the number of folds there was time for."""
        total, folds = self.run(0, axes), 1
        while folds < len(self.network) and self.deadline.allows(self.seconds):
            total.add_(self.run(folds, axes))
            folds += 1
        return total, folds

    def run(self, fold: int, axes: tuple[int, ...]) -> torch.Tensor:
        """Logits (K, V, H, W), on the device."""
        flips = [axis + 2 for axis in axes]
        views = self.data.shape[1]
        out = self.data.new_zeros((self.classes, *self.data.shape[1:]))
        seconds = 0.0
        for view, (rows, columns) in itertools.product(range(views), self.windows):
            self.deadline.check()
            start = time.perf_counter()
            piece = self.data[:, view, rows, columns][None]
            answer = self.network.logits(piece.flip(flips) if flips else piece, fold)
            answer = (answer.flip(flips) if flips else answer)[0, : self.classes]
            if self.weight is not None:
                answer = answer * self.weight
            out[:, view, rows, columns] += answer
            seconds += time.perf_counter() - start
        if out.is_cuda:
            # Kernels were only put in line until here.
            start = time.perf_counter()
            torch.cuda.synchronize(out.device)
            seconds += time.perf_counter() - start
        self.seconds = max(self.seconds, seconds)
        return out if self.weights is None else out.div_(self.weights)


def pad_to_size(
    data: torch.Tensor, size: tuple[int, int], offset: tuple[int, int] | None = None
) -> tuple[torch.Tensor, tuple[slice, slice]]:
    """Images padded with zeros to at least `size`, and the rows and columns they then fill.

    Args:
        data: (…, H, W).
        size: (rows, columns).
        offset: rows above and columns to the left; None for the middle.
    """
    missing = [max(0, want - have) for want, have in zip(size, data.shape[-2:])]
    above, left = offset or (missing[0] // 2, missing[1] // 2)
    rows, columns = data.shape[-2:]
    inner = (slice(above, above + rows), slice(left, left + columns))
    widths = (left, missing[1] - left, above, missing[0] - above)
    return (functional.pad(data, widths) if any(widths) else data), inner


def _windows(shape: Sequence[int], size: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """nnU-Net's windows: they overlap by half or more and reach every border."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    for row, column in itertools.product(*compute_steps_for_sliding_window(shape, size, 0.5)):
        yield slice(row, row + size[0]), slice(column, column + size[1])


def _gaussian(size: tuple[int, int]) -> torch.Tensor:
    """nnU-Net's weights of a window."""
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    return compute_gaussian(
        size, 1 / 8, value_scaling_factor=10, dtype=torch.float32, device=torch.device("cpu")
    )
