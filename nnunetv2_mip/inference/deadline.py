"""Deadline of an inference: time limit and cancellation, asked between passes of the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Cancelled(Exception):
    """Cancellation of an inference: its result is not wanted any more."""


@dataclass(frozen=True)
class WorkDone:
    """Copies and folds averaged in a prediction, and those planned by `inference.json`.

    Attributes:
        copies: copies averaged by test-time augmentation (the original counts as one).
        planned_copies: copies that `inference.json` asks for.
        folds: networks averaged.
        planned_folds: networks of the model.
    """

    copies: int
    planned_copies: int
    folds: int
    planned_folds: int

    @property
    def degraded(self) -> bool:
        """True if fewer copies or folds were averaged than planned."""
        return self.copies < self.planned_copies or self.folds < self.planned_folds

    def __str__(self) -> str:
        return f"copies={self.copies}/{self.planned_copies} folds={self.folds}/{self.planned_folds}"


class Deadline:
    """Deadline without a limit, and base class of those with one.

    A subclass may raise `Cancelled` in `check`, block in `check` while more urgent work needs the
    device, and return False from `allows` when the time is short.

    Attributes:
        work_done: set by the predictor when a prediction is complete.
        windows: number of calls of `check` if nothing is left out; increased by the predictor.

    A 3D configuration over the view axis is run by nnU-Net itself. Both attributes then keep their
    initial values.
    """

    work_done: WorkDone | None = None
    windows: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context in which a network runs; work before and after it is outside."""
        yield

    def check(self) -> None:
        """Check before each window of each pass.

        Raises:
            Cancelled: the result is not wanted any more.
        """

    def allows(self, seconds: float) -> bool:
        """True if the time left is enough for `seconds` more."""
        return True
