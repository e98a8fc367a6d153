"""Time budget of a run: seconds of a view, and the settings that fit into the time left."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor

FEWEST_VIEWS = 4
# Of the time left this share is kept for projection, fusion and writing, but at least so many s.
KEPT_SHARE, KEPT_S = 0.15, 8.0
# A view may take this much longer than the one that was timed.
MARGIN = 1.3
# A second stage in 3D that would take more than this share of the time is left out.
MOST_OF_SECOND_STAGE = 0.5


@dataclass(frozen=True)
class Setting:
    """Number of views, and whether they are mirrored."""

    views: int
    tta: bool

    def __str__(self) -> str:
        return f"{counted(self.views, 'view')}, TTA {'on' if self.tta else 'off'}"


def settings_below(views: int, tta: bool) -> list[Setting]:
    """Settings to choose from: the model's own, then cheaper ones, the most expensive first.

    All, three quarters and half of the views, mirrored and not; at last a quarter, not mirrored;
    never fewer than `FEWEST_VIEWS` (unless the recipe itself has fewer).
    """
    counts = [max(min(views, FEWEST_VIEWS), round(views * share)) for share in (1, 0.75, 0.5, 0.25)]
    mirrored = [Setting(count, True) for count in counts[:3]] if tta else []
    plain = [Setting(count, False) for count in counts]
    return list(dict.fromkeys(mirrored + plain))


def choose(options: list[Setting], seconds_a_view: dict[bool, float], seconds: float) -> Setting:
    """The first setting that fits, or the last one.

    Args:
        options: as `settings_below` gives them.
        seconds_a_view: without and with TTA.
        seconds: what the network may take.
    """
    for option in options:
        if MARGIN * option.views * seconds_a_view[option.tta] <= seconds:
            return option
    return options[-1]


def fit_to_budget(predictor: "MIPPredictor", study: Study, seconds: float) -> "MIPPredictor":
    """The predictor itself where its settings fit into the time, else one with cheaper settings.

    One view of this study is timed, without and with mirroring, and one window of a second stage.

    Args:
        predictor: with its recipe.
        study: as `MIPPredictor.predict_study` takes it.
        seconds: from now until the mask must be written.

    Raises:
        MipError: as `MIPPredictor.predict_study`.
    """
    config = predictor.config
    start = time.monotonic()
    view = predictor.override(views=1).view_study(study)
    pixel_mm = view.spacing_mm[1:]
    timed = {}
    # The first call also warms up: it is not what a view takes.
    for tta in (False, False, True) if config.tta else (False, False):
        begun = time.monotonic()
        predictor.override(tta=tta).view_probabilities(view.levels, pixel_mm)
        timed[tta] = time.monotonic() - begun
    fitted = predictor
    second_s = 0.0
    if predictor.second_stage is not None:
        second_s = MARGIN * predictor.second_stage.seconds(study.suv)
        if second_s > MOST_OF_SECOND_STAGE * seconds:
            fitted, second_s = predictor.with_second_stage(None), 0.0
    left = seconds - second_s - (time.monotonic() - start)
    chosen = choose(
        settings_below(config.views, config.tta), timed, left - max(KEPT_S, KEPT_SHARE * seconds)
    )
    if chosen == Setting(config.views, config.tta):
        return fitted
    return fitted.override(views=chosen.views, tta=chosen.tta)
