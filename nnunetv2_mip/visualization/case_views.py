"""Views of one case with truth, prediction and scores, as the figures show them."""

import math
from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.errors import MipError

# Colours of the outlines, which colour-blind readers distinguish.
TRUTH_COLOUR = "#009933"
PREDICTION_COLOUR = "#ff6600"
# SUV drawn black when views are in SUV; levels are black at 255.
BLACK_SUV = 10.0
# Air beside the body that is kept, mm.
MARGIN_MM = 15.0


@dataclass(frozen=True)
class CaseViews:
    """Views of one case, with masks and scores.

    Attributes:
        name: of the case.
        views: (V, H, W), SUV (float) or levels (uint8); bright is uptake, row 0 at the head.
        pixel_mm: (row, column) spacing in mm.
        truth, prediction: (V, H, W), lesion where 1 (or True); None draws nothing.
        arc_deg: arc that the V views cover evenly, from 0°. 180 allows a full turn, because the
            view at θ+180° is the left-right mirror of that at θ.
        dice: 3D Dice, NaN when there is nothing to find, None when unknown.
        truth_ml, prediction_ml: lesion volumes, None when unknown.
        caption: line below the name, instead of Dice and volumes.
    """

    name: str
    views: np.ndarray
    pixel_mm: tuple[float, float]
    truth: np.ndarray | None = None
    prediction: np.ndarray | None = None
    arc_deg: float = 180.0
    dice: float | None = None
    truth_ml: float | None = None
    prediction_ml: float | None = None
    caption: str | None = None

    def __post_init__(self):
        if self.views.ndim != 3 or 0 in self.views.shape:
            raise MipError(f"{self.name}: views have shape {self.views.shape}, expected (V, H, W)")
        for what, mask in (("truth", self.truth), ("prediction", self.prediction)):
            if mask is not None and mask.shape != self.views.shape:
                raise MipError(
                    f"{self.name}: {what} has shape {mask.shape}, the views {self.views.shape}"
                )

    @property
    def black(self) -> float:
        """Value that is drawn black."""
        return LEVEL_MAX if np.issubdtype(self.views.dtype, np.integer) else BLACK_SUV

    def angle_deg(self, view: int) -> float:
        """Projection angle of a view."""
        return view * self.arc_deg / len(self.views)

    def labels(self) -> list[str]:
        """Lines of text about the case: its caption, or Dice and volumes as far as known."""
        if self.caption is not None:
            return [self.caption]
        lines = []
        if self.dice is not None:
            lines.append("no lesion" if math.isnan(self.dice) else f"Dice {self.dice:.2f}")
        healthy = self.dice is not None and math.isnan(self.dice) and not self.truth_ml
        if self.truth_ml is not None and not healthy:
            lines.append(f"truth {_millilitres(self.truth_ml)}")
        if self.prediction_ml is not None:
            lines.append(f"predicted {_millilitres(self.prediction_ml)}")
        return lines


def _millilitres(volume: float) -> str:
    return f"{volume:.1f} ml" if 0 < volume < 10 else f"{volume:.0f} ml"


def body_columns(case: CaseViews) -> slice:
    """Columns that show the body in any view, with a margin, symmetric about the centre.

    Symmetric, so that mirrored views keep the axis of rotation in place.
    """
    total = case.views.shape[2]
    inked = (case.views > 0.03 * case.black).mean((0, 1)) > 0.01
    inked = inked | inked[::-1]
    if not inked.any():
        return slice(0, total)
    margin = math.ceil(MARGIN_MM / case.pixel_mm[1])
    first = max(0, int(inked.argmax()) - margin)
    return slice(first, total - first)
