"""Drawing of views with matplotlib: a view with outlines, scale bar and legend, rendering.

Images are shown as nuclear physicians read them: dark is uptake, head up, pixels isotropic in mm.
Figures are drawn with Agg, without pyplot's global state.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunetv2_mip.visualization.case_views import PREDICTION_COLOUR, TRUTH_COLOUR, CaseViews


class ViewPanel:
    """Panel that shows one view with its outlines, in mm; views are drawn one after the other.

    Args:
        axes: matplotlib axes.
        case: the views.
        crop: columns to show.
        line_scale: factor of the widths of the outlines.
    """

    def __init__(self, axes, case: CaseViews, crop: slice, line_scale: float):
        self.axes, self.case, self.crop, self.line_scale = axes, case, crop, line_scale
        rows, columns = case.views.shape[1], crop.stop - crop.start
        row_mm, column_mm = case.pixel_mm
        self.x = (np.arange(-1, columns + 1) + 0.5) * column_mm
        self.y = (np.arange(-1, rows + 1) + 0.5) * row_mm
        axes.set_axis_off()
        self.image = axes.imshow(
            np.zeros((rows, columns)),
            cmap="gray_r",
            vmin=0,
            vmax=case.black,
            extent=(0, columns * column_mm, rows * row_mm, 0),
            interpolation="bicubic",
            interpolation_stage="data",
        )
        self.contours: list[ContourSet] = []

    def show(self, view: int, mirrored: bool) -> None:
        """Draw a view, or its left-right mirror, in the place of the one before."""
        turn = slice(None, None, -1 if mirrored else 1)
        self.image.set_data(self.case.views[view][:, self.crop][:, turn])
        for contour in self.contours:
            contour.remove()
        self.contours = []
        drawn = (
            (self.case.truth, TRUTH_COLOUR, 1.5),
            (self.case.prediction, PREDICTION_COLOUR, 0.9),
        )
        for masks, colour, width in drawn:
            if masks is None:
                continue
            mask = masks[view][:, self.crop][:, turn] == 1
            if not mask.any():
                continue
            # A frame of zeros closes the outlines of lesions that touch the border.
            self.contours.append(
                self.axes.contour(
                    self.x,
                    self.y,
                    np.pad(mask, 1).astype(np.float32),
                    [0.5],
                    colors=[colour],
                    linewidths=width * self.line_scale,
                )
            )


def new_figure(size_inches: tuple[float, float], dpi: int) -> Figure:
    """White figure that is drawn with Agg."""
    figure = Figure(figsize=size_inches, dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure) -> np.ndarray:
    """Pixels (H, W, 3) uint8 of a figure."""
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def add_foot(
    figure: Figure,
    cases: Sequence[CaseViews],
    x: float,
    y: float,
    inch: float,
    size: tuple[float, float],
) -> None:
    """Add a scale bar of 10 cm on the left, and the legend of the colours on the right.

    Args:
        cases: the cases on the figure.
        x, y: left end of the bar, as shares of the figure.
        inch: inches per millimetre.
        size: of the figure in inches.
    """
    length = 100 * inch / size[0]
    figure.add_artist(Line2D([x, x + length], [y, y], color="black", lw=2, solid_capstyle="butt"))
    figure.text(x + length + 0.06 / size[0], y, "10 cm", size=8, va="center")
    entries = []
    if any(case.truth is not None for case in cases):
        entries.append(Line2D([], [], color=TRUTH_COLOUR, lw=2, label="truth"))
    if any(case.prediction is not None for case in cases):
        entries.append(Line2D([], [], color=PREDICTION_COLOUR, lw=1.5, label="prediction"))
    if entries:
        figure.legend(
            handles=entries, loc="center right", bbox_to_anchor=(1.0, y), ncols=2, frameon=False,
            fontsize=8, handlelength=1.4, columnspacing=1.2, handletextpad=0.5, borderaxespad=0.1,
        )  # fmt: skip
