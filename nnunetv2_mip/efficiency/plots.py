"""Plots of an efficiency study: quality against views, and against operations."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.wording import counted

PANELS = {
    "dice_2d": "2D Dice of a view",
    "dice_3d": "3D Dice, fused",
    "hd95_2d_mm": "2D HD95 of a view, mm",
}
# Scores of a 3D network in the place of those of views.
_OF_VOLUMES = {"dice_2d": "dice_projected", "hd95_2d_mm": "hd95_projected_mm"}
# Also distinct for colour-blind readers (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^v<>"


def write_plots(rows: list[dict], out: Path | str) -> list[Path]:
    """Files `views.png`, `views.svg`, `operations.png` and `operations.svg`, written to a folder.

    Args:
        rows: from `tables.rows_of`.
        out: the folder.
    """
    files = []
    for name, draw in (("views", _draw_views), ("operations", _draw_operations)):
        figure = Figure(layout="constrained", figsize=(11, 4) if name == "views" else (7, 4.6))
        FigureCanvasAgg(figure)
        draw(figure, rows)
        for suffix in ("png", "svg"):
            path = Path(out) / f"{name}.{suffix}"
            # Without dates and versions: the same study gives the same file.
            plain = {"Software": None} if suffix == "png" else {"Date": None, "Creator": None}
            with (
                atomic_path(path) as partial,
                matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}),
            ):
                figure.savefig(partial, dpi=130, metadata=plain)
            files.append(path)
    return files


def _draw_views(figure: Figure, rows: list[dict]) -> None:
    panels = figure.subplots(1, len(PANELS))
    numbers = sorted({row["views"] for row in rows if row["views"] is not None})
    for axes, (score, title) in zip(panels, PANELS.items()):
        for index, (name, own) in enumerate(_by_model(rows).items()):
            colour = COLOURS[index % len(COLOURS)]
            if own[0]["kind"] == "3d":
                _draw_level(axes, own[0], _OF_VOLUMES.get(score, score), colour, name)
            else:
                marker = MARKERS[index % len(MARKERS)]
                _draw_points(axes, own, "views", score, colour, marker, _label(name, own[0]))
        axes.set_title(title, fontsize=10)
        axes.set_xscale("log", base=2)
        if numbers:
            axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.minorticks_off()
        axes.set_xlabel("views")
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)


def _draw_operations(figure: Figure, rows: list[dict]) -> None:
    axes = figure.subplots()
    for index, (name, own) in enumerate(_by_model(rows).items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        _draw_points(axes, own, "tflop", "dice_3d", colour, marker, _label(name, own[0]))
        for row in own:
            if row["views"] is not None and row["dice_3d"] is not None:
                axes.annotate(
                    str(row["views"]),
                    (row["tflop"], row["dice_3d"]),
                    xytext=(4, 4),
                    textcoords="offset points",
                    fontsize=7,
                    color=colour,
                )
    axes.set_xscale("log")
    axes.set_xlabel("TFLOP a study (numbers at the points: views)")
    axes.set_ylabel("3D Dice")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="lower right")


def _by_model(rows: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return found


def _label(name: str, row: dict) -> str:
    if row["kind"] == "3d" or row["trained_views"] is None:
        return name
    return f"{name} (trained on {counted(row['trained_views'], 'view')})"


def _draw_points(axes: Axes, rows, x, score, colour, marker, label) -> None:
    known = [row for row in rows if row[score] is not None]
    if not known:
        return
    means = [row[score] for row in known]
    errors = [
        [0.0 if row[f"{score}_low"] is None else row[score] - row[f"{score}_low"] for row in known],
        [
            0.0 if row[f"{score}_high"] is None else row[f"{score}_high"] - row[score]
            for row in known
        ],
    ]
    axes.errorbar(
        [row[x] for row in known],
        means,
        errors,
        color=colour,
        marker=marker,
        markersize=5,
        linewidth=1.5,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )


def _draw_level(axes: Axes, row, score, colour, name) -> None:
    if row[score] is None:
        return
    label = f"{name} (3D network; in 2D its mask, projected)"
    axes.axhline(row[score], color=colour, linestyle="--", label=label)
    if row[f"{score}_low"] is not None:
        axes.axhspan(row[f"{score}_low"], row[f"{score}_high"], color=colour, alpha=0.12, lw=0)
