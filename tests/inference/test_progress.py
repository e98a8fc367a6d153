"""Progress bars of predictions: on a terminal, and nothing where stderr is none."""

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest

from nnunetv2_mip.inference.progress import PredictionBar, shown


class Terminal(io.StringIO):
    """Text written to a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch) -> Callable[[], Terminal]:
    """Makes stderr a terminal; called in the test, because pytest replaces stderr before it."""

    def make() -> Terminal:
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return make


def work(bar: PredictionBar, windows: int) -> None:
    bar.windows += windows
    for _ in range(windows):
        bar.check()


def test_one_case_counts_the_windows_of_the_network(on_terminal):
    terminal = on_terminal()
    with PredictionBar(1) as bar:
        bar.say("loading the model")
        # Both stages of a cascade.
        work(bar, 2)
        work(bar, 3)
        bar.warn("odd")
        bar.case_done()
    text = terminal.getvalue()
    assert text.index("loading the model") < text.index("network") < text.index("5/5")
    assert "warning: odd\n" in text
    # Nothing is left of the bar.
    assert text.split("\r")[-1].strip() == ""


def test_several_cases_are_counted_and_the_current_one_tells_its_window(on_terminal):
    terminal = on_terminal()
    with PredictionBar(2, "study") as bar:
        # Drawn at once, however fast the work.
        bar._bar.mininterval = 0
        bar.say("loading the model")
        for _ in range(2):
            work(bar, 4)
            bar.case_done()
    text = terminal.getvalue()
    assert "loading the model" in text and "window 4/4" in text
    assert "2/2" in text and "study" in text


def test_words_stand_while_work_goes_on(on_terminal):
    terminal = on_terminal()
    with shown("projecting"):
        assert "projecting" in terminal.getvalue()
    assert terminal.getvalue().split("\r")[-1].strip() == ""


def test_nothing_but_warnings_is_written_where_stderr_is_no_terminal(capsys):
    for cases in (1, 3):
        with PredictionBar(cases) as bar, shown("reading"):
            bar.say("loading the model")
            work(bar, 2)
            bar.case_done()
            bar.warn("odd")
    assert capsys.readouterr() == ("", "warning: odd\nwarning: odd\n")


def test_every_window_of_a_prediction_is_counted(on_terminal, tiny_predictor):
    terminal = on_terminal()
    levels = np.zeros((3, 44, 36), np.uint8)
    levels[:, 5:-5, 5:-5] = 60
    with PredictionBar(1) as bar:
        tiny_predictor.predict_stack(levels, (4.0, 4.0), bar)
        # Three views, each whole, and four mirrored copies.
        assert bar.windows == bar._checked == 12
    assert "12/12" in terminal.getvalue()
