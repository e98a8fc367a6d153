"""Time and interest: what an inference asks between two passes of the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Effort:
    """How much of the recipe an answer has.

    Attributes:
        copies, of_copies: copies averaged (as it is, mirrored), and those the recipe asks for.
        folds, of_folds: networks averaged, and those the model has.
    """

    copies: int
    of_copies: int
    folds: int
    of_folds: int

    @property
    def degraded(self) -> bool:
        """Whether less was done than the recipe asks for."""
        return self.copies < self.of_copies or self.folds < self.of_folds

    def __str__(self) -> str:
        return f"copies={self.copies}/{self.of_copies} folds={self.folds}/{self.of_folds}"


class Watch:
    """Asked between passes of the network. This one has all the time in the world.

    A subclass may raise `Cancelled` from `check`, wait in it (to let something more urgent have
    the device), and say in `has` that there is no time for more.

    Attributes:
        effort: what the answer was made with, once there is one.
        windows: how many times `check` will be called when nothing is cut short.

    Where nnU-Net itself runs the network over views (a 3D configuration), both stay as they are.
    """

    effort: Effort | None = None
    windows: int = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Entered while a network runs, and left for what comes before and after."""
        yield

    def check(self) -> None:
        """Called before every window of every pass.

        Raises:
            Cancelled: the answer is not wanted any more.
        """

    def has(self, seconds: float) -> bool:
        """Whether so many more seconds may be spent."""
        return True
