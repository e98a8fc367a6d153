"""Contact sheet of cases as a PNG: a row for each case, views side by side."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, checked_path
from nnunetv2_mip.visualization.case_views import CaseViews, body_columns
from nnunetv2_mip.visualization.drawing import (
    ViewPanel,
    add_foot,
    new_figure,
    render,
)

SHEET_CELL_INCHES = 3.4


def write_contact_sheet(
    cases: Sequence[CaseViews], path: Path | str, columns: int = 4, title: str | None = None
) -> None:
    """Write a sheet as PNG: a row for each case, `columns` views evenly spread over its arc.

    Args:
        cases: at least one; all are drawn at the same scale in mm.
        path: a `.png` file.
        columns: views in a row, fewer when a case has fewer.
        title: above the sheet.

    Raises:
        MipError: no case, or `path` is no `.png`.
    """
    import imageio.v3 as imageio

    path = checked_path(path, ".png")
    if not cases:
        raise MipError(f"{path}: there is no case to draw")
    chosen = [_spread(len(case.views), columns) for case in cases]
    crops = [body_columns(case) for case in cases]
    count = max(len(views) for views in chosen)
    heights = [case.views.shape[1] * case.pixel_mm[0] for case in cases]
    width = max((crop.stop - crop.start) * case.pixel_mm[1] for case, crop in zip(cases, crops))
    inch = SHEET_CELL_INCHES / max(heights)  # inches per millimetre
    label, gap, head, foot = 1.6, 0.10, 0.34 + (0.34 if title else 0), 0.42
    cell = width * inch
    size = (
        label + count * (cell + gap) + 0.1,
        head + sum(h * inch + gap for h in heights) + foot,
    )
    figure = new_figure(size, dpi=150)
    if title:
        figure.text(0.12 / size[0], 1 - 0.2 / size[1], title, size=12, weight="bold", va="center")
    top = size[1] - head
    for row, (case, views, crop, height) in enumerate(zip(cases, chosen, crops, heights)):
        high = height * inch
        _add_row_label(figure, case, 0.12 / size[0], (top - 0.1) / size[1])
        for column, view in enumerate(views):
            own = (crop.stop - crop.start) * case.pixel_mm[1] * inch
            left = label + column * (cell + gap) + (cell - own) / 2
            box = (left / size[0], (top - high) / size[1], own / size[0], high / size[1])
            axes = figure.add_axes(box)
            ViewPanel(axes, case, crop, line_scale=0.75).show(view, mirrored=False)
            if row == 0:
                axes.set_title(f"{case.angle_deg(view):.0f}°", size=9, color="0.35", pad=4)
        top -= high + gap
    add_foot(figure, cases, 0.12 / size[0], 0.2 / size[1], inch, size)
    pixels = render(figure)
    with atomic_path(path) as partial:
        imageio.imwrite(partial, pixels, plugin="pillow", optimize=True)


def _spread(views: int, columns: int) -> list[int]:
    """Indices of `columns` views spread evenly, the first included, none twice."""
    columns = max(1, min(columns, views))
    return [int(k * views / columns) for k in range(columns)]


def _add_row_label(figure: Figure, case: CaseViews, x: float, y: float) -> None:
    """Write name and labels of a case from (x, y) downwards, in shares of the figure."""
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
