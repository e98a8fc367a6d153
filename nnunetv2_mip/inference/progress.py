"""Progress bar of a prediction: cases, or the windows of the network where there is one case."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from nnunetv2_mip.inference.deadline import Deadline

if TYPE_CHECKING:
    from typing import Self

# While the number of windows is not known yet.
_WORDS_ONLY = "{desc}"


class PredictionBar(Deadline):
    """Deadline without a limit that shows on a terminal how far a prediction is.

    Of several cases it counts the cases, and says how far the current one is. Of one case it counts
    the windows of the network. Before and after them it says what is done. Where stderr is no
    terminal nothing is shown.

    Args:
        cases: number of inputs.
        unit: noun for a case.
    """

    def __init__(self, cases: int, unit: str = "case"):
        from tqdm import tqdm

        self._several, self._counting = cases > 1, False
        self._checked = 0
        if self._several:
            self._bar = tqdm(total=cases, unit=unit, disable=None)
        else:
            self._bar = tqdm(unit="window", disable=None, bar_format=_WORDS_ONLY, leave=False)

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def say(self, words: str) -> None:
        """Show what is done now, as `loading the model`."""
        if self._several:
            self._bar.set_postfix_str(words)
            return
        self._counting, self._bar.bar_format = False, _WORDS_ONLY
        self._bar.set_description_str(words)

    def warn(self, line: str) -> None:
        """Print a warning on stderr, above the bar."""
        self._bar.write(f"warning: {line}", file=sys.stderr)

    def check(self) -> None:
        """Count a window, which is about to be computed."""
        if self._bar.disable:
            return
        self._checked += 1
        if self._several:
            self._bar.set_postfix_str(f"window {self._checked}/{self.windows}", refresh=False)
            # Draws the words as often as the bar may be drawn.
            self._bar.update(0)
            return
        if not self._counting:
            self._counting, self._bar.bar_format = True, None
            self._bar.set_description("network", refresh=False)
            # The time left is that of the windows, without what was before them.
            self._bar.reset(total=self.windows)
        self._bar.total = self.windows
        self._bar.update()
        if self._checked == self.windows:
            self._bar.refresh()

    def case_done(self) -> None:
        """Count a case; the windows of the next one begin at 0."""
        self.windows = self._checked = 0
        if self._several:
            self._bar.set_postfix_str("", refresh=False)
            self._bar.update()


@contextmanager
def shown(words: str) -> Iterator[None]:
    """Context during which words stand on the terminal, for work without a count."""
    from tqdm import tqdm

    with tqdm(desc=words, bar_format=_WORDS_ONLY, leave=False, disable=None):
        yield
