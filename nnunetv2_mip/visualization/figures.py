"""What people look at: a rotating MIP (GIF) and a contact sheet (PNG), with outlines drawn on them.

Images are shown as nuclear physicians read them: dark is uptake, head up, pixels isotropic in mm.
Truth is outlined in green, the prediction in orange, in colours that colour-blind readers tell
apart. Everything is drawn on figures of our own (Agg), without pyplot's global state.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path

TRUTH_COLOUR = "#009933"
PREDICTION_COLOUR = "#ff6600"
# SUV drawn black when views are in SUV; levels are black at 255.
BLACK_SUV = 10.0
DPI = 100
MAX_GIF_BYTES = 3_000_000
# Ways to write a GIF, best first: (frames at most, grey steps, height in pixels).
GIF_QUALITIES = ((48, 40, 520), (36, 32, 460), (24, 24, 400), (16, 16, 320))
GIF_TURN_SECONDS = 4.8
SHEET_CELL_INCHES = 3.4
MARGIN_MM = 15.0


@dataclass(frozen=True)
class CaseViews:
    """The views of one case, and what to say of it.

    Attributes:
        name: of the case.
        views: (V, H, W), SUV (float) or levels (uint8); bright is uptake, row 0 at the head.
        pixel_mm: (row, column) spacing in mm.
        truth, prediction: (V, H, W), lesion where 1 (or True); None draws nothing.
        arc_deg: what the V views cover evenly, from 0°. 180 allows a full turn, because the view
            at θ+180° is the left-right mirror of that at θ.
        dice: 3D Dice, NaN when there is nothing to find, None when unknown.
        truth_ml, prediction_ml: lesion volumes, None when unknown.
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
        """The value drawn black."""
        return LEVEL_MAX if np.issubdtype(self.views.dtype, np.integer) else BLACK_SUV

    def angle_deg(self, view: int) -> float:
        return view * self.arc_deg / len(self.views)

    def labels(self) -> list[str]:
        """What to say of it, line by line, without its name."""
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


def write_turning_gif(case: CaseViews, path: Path | str) -> None:
    """Write a rotating MIP with outlines as an endless GIF of at most 3 MB.

    Views over 180° make a full turn (the second half is mirrored); any other arc swings back and
    forth; a single view makes a still image.

    Raises:
        MipError: `path` is no `.gif`.
    """
    import imageio.v3 as imageio

    path = _with_suffix(path, ".gif")
    with atomic_path(path) as partial:
        for most, greys, height in GIF_QUALITIES:
            order = turning_order(len(case.views), case.arc_deg, most)
            frames = [_few_colours(frame, greys) for frame in _frames(case, order, height)]
            imageio.imwrite(
                partial,
                np.stack(frames),
                plugin="pillow",
                duration=1000 * GIF_TURN_SECONDS / len(frames),
                loop=0,
            )
            if partial.stat().st_size <= MAX_GIF_BYTES:
                break


def turning_order(views: int, arc_deg: float, most: int) -> list[tuple[int, bool]]:
    """Which views to show one after another, at most `most`: (view, mirrored) pairs."""
    if views == 1:
        return [(0, False)]
    if arc_deg == 180.0:
        turn = [(view, mirrored) for mirrored in (False, True) for view in range(views)]
    else:
        turn = [(view, False) for view in (*range(views), *range(views - 2, 0, -1))]
    step = math.ceil(len(turn) / most)
    return turn[::step]


def write_contact_sheet(
    cases: Sequence[CaseViews], path: Path | str, columns: int = 4, title: str | None = None
) -> None:
    """Write a sheet as PNG: one row a case, `columns` views evenly spread over its arc.

    Args:
        cases: at least one; all are drawn at the same scale in mm.
        columns: views a row, fewer when a case has fewer.
        title: above the sheet.

    Raises:
        MipError: no case, or `path` is no `.png`.
    """
    path = _with_suffix(path, ".png")
    if not cases:
        raise MipError(f"{path}: there is no case to draw")
    chosen = [_spread(len(case.views), columns) for case in cases]
    crops = [body_columns(case) for case in cases]
    count = max(len(views) for views in chosen)
    heights = [case.views.shape[1] * case.pixel_mm[0] for case in cases]
    width = max((crop.stop - crop.start) * case.pixel_mm[1] for case, crop in zip(cases, crops))
    inch = SHEET_CELL_INCHES / max(heights)  # inches a millimetre
    label, gap, head, foot = 1.6, 0.10, 0.34 + (0.34 if title else 0), 0.42
    cell = width * inch
    size = (
        label + count * (cell + gap) + 0.1,
        head + sum(h * inch + gap for h in heights) + foot,
    )
    figure = _figure(size, dpi=150)
    if title:
        figure.text(0.12 / size[0], 1 - 0.2 / size[1], title, size=12, weight="bold", va="center")
    top = size[1] - head
    for row, (case, views, crop, height) in enumerate(zip(cases, chosen, crops, heights)):
        high = height * inch
        _row_label(figure, case, 0.12 / size[0], (top - 0.1) / size[1])
        for column, view in enumerate(views):
            own = (crop.stop - crop.start) * case.pixel_mm[1] * inch
            left = label + column * (cell + gap) + (cell - own) / 2
            box = (left / size[0], (top - high) / size[1], own / size[0], high / size[1])
            axes = figure.add_axes(box)
            _Panel(axes, case, crop, line_scale=0.75).show(view, mirrored=False)
            if row == 0:
                axes.set_title(f"{case.angle_deg(view):.0f}°", size=9, color="0.35", pad=4)
        top -= high + gap
    _foot(figure, cases, 0.12 / size[0], 0.2 / size[1], inch, size)
    pixels = _render(figure)
    with atomic_path(path) as partial:
        _save_png(pixels, partial)


def _save_png(pixels: np.ndarray, path: Path) -> None:
    import imageio.v3 as imageio

    imageio.imwrite(path, pixels, plugin="pillow", optimize=True)


def _spread(views: int, columns: int) -> list[int]:
    """`columns` views spread evenly, the first included, none twice."""
    columns = max(1, min(columns, views))
    return [int(k * views / columns) for k in range(columns)]


def _row_label(figure: Figure, case: CaseViews, x: float, y: float) -> None:
    inches = figure.get_size_inches()[1]
    # Names made of patient and study are long: two lines, the rest left out.
    words = textwrap.wrap(case.name.replace("_", "_ "), 20)
    name = [line.replace("_ ", "_") for line in words]
    if len(name) > 2:
        name = [name[0], name[1][:19] + "…"]
    for k, line in enumerate(name):
        figure.text(x, y - 0.15 * k / inches, line, size=8, weight="bold", va="top")
    y -= (0.15 * len(name) + 0.06) / inches
    for k, line in enumerate(case.labels()):
        figure.text(x, y - 0.165 * k / inches, line, size=8.5, va="top", color="0.25")


def body_columns(case: CaseViews) -> slice:
    """The columns that hold the body in any view, with a margin, symmetric about the centre.

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


class _Panel:
    """One view on one pair of axes, in mm, redrawn in place."""

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
        self.contours = []

    def show(self, view: int, mirrored: bool) -> None:
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


def _frames(case: CaseViews, order: list[tuple[int, bool]], height_px: int):
    """RGB frames (H, W, 3) uint8 of the rotating MIP."""
    crop = body_columns(case)
    tall = case.views.shape[1] * case.pixel_mm[0]
    wide = (crop.stop - crop.start) * case.pixel_mm[1]
    inch = height_px / DPI / tall
    head, foot = 0.42, 0.34
    size = (max(wide * inch, 2.9), tall * inch + head + foot)
    figure = _figure(size, DPI)
    left = (size[0] - wide * inch) / 2
    axes = figure.add_axes(
        (left / size[0], foot / size[1], wide * inch / size[0], tall * inch / size[1])
    )
    panel = _Panel(axes, case, crop, line_scale=0.9)
    name = case.name if len(case.name) <= 36 else f"{case.name[:35]}…"
    figure.text(0.03, 1 - 0.13 / size[1], name, size=8, weight="bold", va="center")
    said = "   ".join(case.labels())
    figure.text(0.03, 1 - 0.30 / size[1], said, size=7.5, va="center", color="0.25")
    angle = figure.text(0.97, 1 - 0.30 / size[1], "", size=8, va="center", ha="right", color="0.25")
    _foot(figure, [case], 0.03, 0.15 / size[1], inch, size)
    for view, mirrored in order:
        panel.show(view, mirrored)
        angle.set_text(f"{case.angle_deg(view) + 180 * mirrored:.0f}°")
        yield _render(figure)


def _few_colours(frame: np.ndarray, greys: int) -> np.ndarray:
    """Round to few grey steps: noise in 256 greys is what makes a GIF large."""
    step = 255 / (greys - 1)
    grey = frame.max(-1).astype(int) - frame.min(-1) < 12
    # Blends of outline and background need no more than a few steps a channel.
    coloured = np.rint(np.rint(frame / 51.0) * 51.0)
    rounded = np.rint(np.rint(frame.mean(-1, keepdims=True) / step) * step)
    return np.where(grey[..., None], rounded, coloured).astype(np.uint8)


def _figure(size_inches: tuple[float, float], dpi: int) -> Figure:
    figure = Figure(figsize=size_inches, dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _render(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _foot(
    figure: Figure,
    cases: Sequence[CaseViews],
    x: float,
    y: float,
    inch: float,
    size: tuple[float, float],
) -> None:
    """A bar of 10 cm on the left, what the colours mean on the right.

    Args:
        x, y: left end of the bar, as shares of the figure.
        inch: inches a millimetre.
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


def _with_suffix(path: Path | str, suffix: str) -> Path:
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise MipError(f"{path}: must end in {suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
