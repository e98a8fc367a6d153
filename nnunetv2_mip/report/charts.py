"""Plots of a report, each with a title and a caption that says in words what it shows."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunetv2_mip.report.svg_plot import (
    ACCENT,
    FALSE,
    FOLDS,
    FOUND,
    INK,
    LINE,
    MUTED,
    PALE,
    Chart,
    Plot,
    Point,
    plain_numbers,
)
from nnunetv2_mip.wording import counted, part_of


def dice_by_case(points: Sequence[Point], mean: float, interval: tuple[float, float]) -> Chart:
    """Dice of every case, the worst on the left, with the mean and its interval.

    Args:
        points: in any order; `y` is the Dice, `x` is not used.
        mean, interval: of the Dice, NaN where there is no interval.
    """
    ordered = sorted(points, key=lambda point: point.y)
    plot = Plot("dice-by-case", "cases with lesions, worst to best", "Dice")
    axes = plot.axes
    low, high = interval
    if not math.isnan(low):
        axes.axhspan(low, high, color=ACCENT, alpha=0.14, linewidth=0)
    axes.axhline(mean, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 2)))
    placed = [Point(k, p.y, p.title, p.card) for k, p in enumerate(ordered, start=1)]
    axes.vlines([p.x for p in placed], 0, [p.y for p in placed], color=LINE, linewidth=1)
    plot.points(placed, ACCENT)
    axes.set(ylim=(0, 1), xlim=(0.2, max(1, len(ordered)) + 0.8))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    caption = f"Mean Dice {mean:.3f} (dashed)"
    if not math.isnan(low):
        caption += f", 95 % interval {low:.3f} to {high:.3f} (band)"
    cases = counted(len(points), "case")
    return plot.finish("Dice by case", f"{caption}, over {cases} with lesions.")


def dice_by_burden(points: Sequence[Point], unit: str) -> Chart:
    """Dice (`y`) against the true amount of tumour (`x`, in `unit`)."""
    what = "tumour volume" if unit == "ml" else "lesion area"
    plot = Plot("dice-by-burden", f"true {what} ({unit})", "Dice")
    plot.points(points, ACCENT)
    plot.axes.set_xscale("log")
    plot.axes.set_ylim(0, 1)
    plain_numbers(plot.axes.xaxis, [point.x for point in points])
    small = [point.y for point in points if point.x < _median(points)]
    large = [point.y for point in points if point.x >= _median(points)]
    caption = f"One mark a case, logarithmic in {unit}."
    if small and large:
        caption += (
            f" Mean Dice {np.mean(small):.2f} below the median of {_median(points):.3g} {unit}, "
            f"{np.mean(large):.2f} from there on."
        )
    return plot.finish(f"Dice by {what}", caption)


def false_amounts(
    with_lesions: Sequence[Point], controls: Sequence[Point], unit: str, names: tuple[str, str]
) -> Chart:
    """False positive amount (`y`) against false negative amount (`x`).

    Args:
        with_lesions: cases with lesions, one each.
        controls: cases without lesions, one each; nothing can be missed there, their `x` is 0.
        unit: of both amounts.
        names: of false positives and false negatives (`FPV`, `FNV` for volumes).
    """
    positive, negative = names
    plot = Plot("false-amounts", f"{negative} ({unit})", f"{positive} ({unit})")
    threshold = 1.0 if unit == "ml" else 10.0
    for axis, scale in ((plot.axes.xaxis, "x"), (plot.axes.yaxis, "y")):
        getattr(plot.axes, f"set_{scale}scale")("symlog", linthresh=threshold, linscale=0.5)
        plain_numbers(axis)
    plot.points(with_lesions, ACCENT, label="with lesions")
    plot.points(controls, MUTED, "s", label="without lesions")
    highest = [max((getattr(p, a) for p in (*with_lesions, *controls)), default=0) for a in "xy"]
    plot.axes.set_xlim(0, max(10 * threshold, 1.6 * highest[0]))
    plot.axes.set_ylim(0, max(10 * threshold, 1.6 * highest[1]))
    if controls and with_lesions:
        plot.legend(2)
    caption = f"One mark a case; linear up to {threshold:.0f} {unit}, logarithmic beyond."
    if controls:
        caption += " Cases without lesions stand at the left: nothing can be missed there."
    # Abbreviations stay as they are.
    second = negative if negative.isupper() else negative.lower()
    return plot.finish(f"{positive} and {second}", caption)


def found_by_size(sizes: Sequence[float], found: Sequence[bool], unit: str) -> Chart:
    """Numbers of found and of missed lesions, by size."""
    edges = (0, 1, 5, 20, 100, math.inf) if unit == "ml" else (0, 1, 4, 10, 40, math.inf)
    plot = Plot("found-by-size", f"true lesion ({unit})", "lesions")
    names, hits, totals = [], [], []
    for low, high in pairwise(edges):
        inside = [hit for size, hit in zip(sizes, found) if low <= size < high]
        names.append(f"< {high:g}" if low == 0 else f"≥ {low:g}" if high == math.inf else
                     f"{low:g}–{high:g}")  # fmt: skip
        hits.append(sum(inside))
        totals.append(len(inside))
    missed = [total - hit for total, hit in zip(totals, hits)]
    axes = plot.axes
    axes.bar(names, hits, color=FOUND, label="found", width=0.72)
    axes.bar(names, missed, bottom=hits, color=PALE, label="missed", width=0.72)
    for place, (hit, total) in enumerate(zip(hits, totals)):
        if total:
            axes.annotate(
                f"{100 * hit / total:.0f} %", (place, total), (0, 3), ha="center",
                textcoords="offset points", fontsize=8.5, color=INK,
            )  # fmt: skip
    axes.set_ylim(0, max(1, *totals) * 1.15)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    plot.legend(2)
    parts = [f"{n} {unit}: {h} of {t}" for n, h, t in zip(names, hits, totals) if t]
    return plot.finish("Lesions found by size", f"Found: {'; '.join(parts)}.")


def burden_agreement(points: Sequence[Point], unit: str) -> Chart:
    """Predicted (`y`) against true (`x`) amount of tumour, with the line of agreement."""
    what = "tumour volume" if unit == "ml" else "lesion area"
    plot = Plot("burden-agreement", f"true {what} ({unit})", f"predicted ({unit})")
    threshold = 1.0
    top = 1.6 * max((max(point.x, point.y) for point in points), default=1)
    top = max(top, 10.0)
    line = np.concatenate([[0], np.geomspace(0.01, top, 60)])
    plot.axes.plot(line, line, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
    for axis, scale in ((plot.axes.xaxis, "x"), (plot.axes.yaxis, "y")):
        getattr(plot.axes, f"set_{scale}scale")("symlog", linthresh=threshold, linscale=0.5)
        plain_numbers(axis)
    plot.points(points, ACCENT)
    plot.axes.set(xlim=(0, top), ylim=(0, top))
    below = sum(point.y < point.x for point in points)
    above = sum(point.y > point.x for point in points)
    caption = (
        f"One mark a case; on the dashed line both agree. Too little is marked in "
        f"{counted(below, 'case')}, too much in {above}. Linear up to {threshold:.0f} {unit}, "
        "logarithmic beyond."
    )
    return plot.finish(f"{what.capitalize()}, predicted and true", caption)


def lesion_sizes(
    sizes: Sequence[float], unit: str, title: str = "Lesion sizes", of_cases: bool = False
) -> Chart:
    """Histogram of sizes, logarithmic: of lesions, or of whole cases (`of_cases`)."""
    what = "cases" if of_cases else "lesions"
    plot = Plot(f"sizes-of-{what}", f"{what[:-1]} ({unit})", what)
    low, high = max(min(sizes), 1e-3), max(sizes)
    edges = np.geomspace(low / 1.05, max(high, low * 2) * 1.05, 17).tolist()
    plot.axes.hist(np.maximum(sizes, low), bins=edges, color=ACCENT, edgecolor="none", rwidth=0.92)
    plot.axes.set_xscale("log")
    plain_numbers(plot.axes.xaxis, edges)
    plot.axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    plot.axes.grid(axis="x", visible=False)
    caption = (
        f"{counted(len(sizes), what[:-1])}{' with lesions' if of_cases else ''} from "
        f"{min(sizes):.3g} to {high:.3g} {unit}, median {float(np.median(sizes)):.3g} {unit}."
    )
    return plot.finish(title, caption)


def lesion_counts(counts: Sequence[int]) -> Chart:
    """Histogram of the number of lesions a case."""
    plot = Plot("lesion-counts", "lesions a case", "cases")
    top = max(counts)
    width = max(1, math.ceil((top + 1) / 16))
    edges = np.arange(-0.5, top + width, width).tolist()
    plot.axes.hist(counts, bins=edges, color=ACCENT, rwidth=0.88)
    for axis in (plot.axes.xaxis, plot.axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    plot.axes.grid(axis="x", visible=False)
    empty = sum(count == 0 for count in counts)
    caption = (
        f"{counted(sum(counts), 'lesion')} in {counted(len(counts), 'case')}; median "
        f"{float(np.median(counts)):g}, most {top}, none in {counted(empty, 'case')}."
    )
    return plot.finish("Lesions a case", caption)


def values_by_case(
    points: Sequence[Point],
    title: str,
    y_label: str,
    band: tuple[float, float] | None = None,
    band_means: str = "",
) -> Chart:
    """One value a case (`y`; `x` is not used), smallest first, with a band of usual values."""
    ordered = sorted(points, key=lambda point: point.y)
    plot = Plot("values-" + re.sub(r"\W+", "-", title), "cases, ordered", y_label)
    if band is not None:
        plot.axes.axhspan(*band, color=ACCENT, alpha=0.12, linewidth=0)
    plot.points([Point(k, p.y, p.title, p.card) for k, p in enumerate(ordered, start=1)], ACCENT)
    values = [point.y for point in ordered]
    top = max(values + ([band[1]] if band else []))
    plot.axes.set(xlim=(0.2, max(1, len(ordered)) + 0.8), ylim=(0, 1.08 * top or 1))
    plot.axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    plot.axes.grid(axis="x", visible=False)
    caption = f"From {values[0]:.3g} to {values[-1]:.3g}, median {float(np.median(values)):.3g}."
    if band is not None:
        caption += f" Band: {band_means}."
    return plot.finish(title, caption)


def fold_sizes(folds: Sequence[tuple[str, int, int]]) -> Chart:
    """Validation cases of every fold; folds: (name, cases with lesions, cases without)."""
    plot = Plot("folds", "validation cases", "")
    names = [name for name, _, _ in folds]
    with_lesions = [count for _, count, _ in folds]
    without = [count for _, _, count in folds]
    axes = plot.axes
    axes.barh(names, with_lesions, color=ACCENT, label="with lesions", height=0.66)
    axes.barh(names, without, left=with_lesions, color=PALE, label="without", height=0.66)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05 * max(1, *(a + b for a, b in zip(with_lesions, without))))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.grid(axis="y", visible=False)
    plot.legend(2)
    parts = [f"{name}: {counted(a + b, 'case')}, {a} with lesions" for name, a, b in folds]
    return plot.finish("Folds", f"{'; '.join(parts)}.")


def visibility(shares: Sequence[float]) -> Chart:
    """Histogram of the share of views in which a lesion is visible, 0 to 1."""
    plot = Plot("visibility", "visible in this share of the views (%)", "lesions")
    names = ("0", "1–25", "26–50", "51–75", "76–99", "100")
    places = [0 if s == 0 else 5 if s >= 1 else 1 + min(3, int(s * 4 - 1e-9)) for s in shares]
    counts = [places.count(k) for k in range(len(names))]
    colours = [FALSE, *[ACCENT] * 5]
    plot.axes.bar(names, counts, color=colours, width=0.72)
    for place, count in enumerate(counts):
        if count:
            plot.axes.annotate(
                str(count), (place, count), (0, 3), ha="center", textcoords="offset points",
                fontsize=8.5, color=INK,
            )  # fmt: skip
    plot.axes.set_ylim(0, max(counts) * 1.2)
    plot.axes.yaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    plot.axes.grid(axis="x", visible=False)
    caption = (
        f"{part_of(counts[0], len(shares), 'lesion', 'is')} visible in no view (occluded by "
        "something "
        f"hotter from every side), {counts[5]} in all."
    )
    return plot.finish("Occluded lesions", caption)


def loss_curves(
    folds: Sequence[tuple[str, Sequence[int], Sequence[float], Sequence[float]]],
) -> Chart:
    """Loss by epoch; folds: (name, epochs, training loss, validation loss)."""
    plot = Plot("loss", "epoch", "loss")
    for number, (name, epochs, train, val) in enumerate(folds):
        colour = FOLDS[number % len(FOLDS)]
        plot.axes.plot(epochs, train, color=colour, linewidth=1.4, label=f"fold {name}")
        plot.axes.plot(epochs, val, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
    _finish_curves(plot, folds)
    caption = "Training loss (solid) and validation loss (dashed) by epoch"
    return plot.finish("Loss", f"{caption}; {_ends(folds, 3, 'validation loss')}.")


def dice_curves(folds: Sequence[tuple[str, Sequence[int], Sequence[float]]]) -> Chart:
    """Pseudo Dice by epoch; folds: (name, epochs, values)."""
    plot = Plot("pseudo-dice", "epoch", "pseudo Dice")
    for number, (name, epochs, values) in enumerate(folds):
        colour = FOLDS[number % len(FOLDS)]
        plot.axes.plot(epochs, values, color=colour, linewidth=1.4, label=f"fold {name}")
    plot.axes.set_ylim(0, 1)
    _finish_curves(plot, folds)
    caption = (
        "nnU-Net's pseudo Dice: over all pixels of random validation patches together, not the "
        f"mean over cases; {_ends(folds, 2, 'pseudo Dice')}."
    )
    return plot.finish("Pseudo Dice in training", caption)


def _ends(folds: Sequence[tuple], column: int, what: str) -> str:
    parts = [f"fold {fold[0]} {fold[column][-1]:.3f}" for fold in folds]
    return f"last {what}: {', '.join(parts)}"


def _finish_curves(plot: Plot, folds: Sequence[tuple]) -> None:
    # A curve of one epoch is a point: it needs a marker to be visible.
    if any(len(fold[1]) == 1 for fold in folds):
        for line in plot.axes.get_lines():
            line.set_marker("o")
            line.set_markersize(4)
    plot.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if len(folds) > 1:
        plot.legend(3)


def _median(points: Sequence[Point]) -> float:
    return float(np.median([point.x for point in points]))
