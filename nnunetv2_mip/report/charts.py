"""The plots of a report: matplotlib's SVG, made fit for a page that is light or dark.

Every plot is drawn in stand-in colours that the page's style sheet names (`var(--ink)`, …), as text
where it has text, with a title for the mouse on every point, and a link where the case is shown.
Names of cases come from files: they only ever enter through the XML library, which escapes them.
"""

import io
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

# Stand-in → the colour's name in the style sheet.
COLOURS = {
    "#101112": "ink",
    "#707172": "muted",
    "#d0d1d2": "line",
    "#1a63d1": "accent",
    "#009931": "truth",
    "#ff6601": "prediction",
    "#b0b1b2": "pale",
    "#3366c1": "fold-0",
    "#d95f01": "fold-1",
    "#1b9e71": "fold-2",
    "#e7298a": "fold-3",
    "#7570b1": "fold-4",
}
INK, MUTED, LINE, ACCENT, FOUND, FALSE, PALE, *FOLDS = COLOURS
SIZE_INCHES = (4.2, 2.9)
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Point:
    """One mark: where, what the mouse reads there, and the card it leads to (an element's id)."""

    x: float
    y: float
    title: str
    card: str | None = None


@dataclass(frozen=True)
class Chart:
    """A finished plot.

    Attributes:
        title: above it.
        svg: an `<svg>` element.
        caption: below it, and what is read to those who do not see it.
    """

    title: str
    svg: str
    caption: str


class _Plot:
    """One pair of axes and what is needed to turn it into a `Chart`."""

    def __init__(self, name: str, x_label: str, y_label: str):
        self.name, self.groups = name, {}
        with matplotlib.rc_context(_STYLE):
            self.figure = Figure(figsize=SIZE_INCHES, layout="constrained")
            FigureCanvasSVG(self.figure)
            self.axes: Axes = self.figure.add_subplot()
        self.axes.set_xlabel(x_label)
        self.axes.set_ylabel(y_label)

    def points(self, points: Sequence[Point], colour: str, marker: str = "o", label: str = ""):
        if not points:
            return
        gid = f"group-{len(self.groups)}"
        self.groups[gid] = list(points)
        self.axes.scatter(
            [point.x for point in points],
            [point.y for point in points],
            s=22,
            c=colour,
            marker=marker,
            linewidths=0,
            alpha=0.8,
            gid=gid,
            label=label or None,
            clip_on=False,
            zorder=3,
        )

    def legend(self, columns: int) -> None:
        """Above the axes, where it hides nothing."""
        with matplotlib.rc_context(_STYLE):
            self.figure.legend(
                *self.axes.get_legend_handles_labels(),
                loc="outside upper right",
                ncols=columns,
                handlelength=1.2,
                columnspacing=1.2,
                handletextpad=0.5,
                borderaxespad=0,
            )

    def finish(self, title: str, caption: str) -> Chart:
        stream = io.BytesIO()
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return Chart(title, _for_page(stream.getvalue(), self.groups, self.name, caption), caption)


def dice_by_case(
    points: Sequence[Point], mean: float, interval: tuple[float, float], unit: str = "case"
) -> Chart:
    """Dice of every case, the worst on the left, with the mean and its interval.

    Args:
        points: in any order; `y` is the Dice, `x` is not looked at.
        mean, interval: of the Dice, NaN where there is no interval.
        unit: what is counted along the axis.
    """
    ordered = sorted(points, key=lambda point: point.y)
    plot = _Plot("dice-by-case", f"{unit}s with lesions, worst to best", "Dice")
    axes = plot.axes
    low, high = interval
    if not math.isnan(low):
        axes.axhspan(low, high, color=ACCENT, alpha=0.14, linewidth=0)
    axes.axhline(mean, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 2)))
    placed = [Point(k, p.y, p.title, p.card) for k, p in enumerate(ordered, start=1)]
    axes.vlines([p.x for p in placed], 0, [p.y for p in placed], color=LINE, linewidth=1)
    plot.points(placed, ACCENT)
    axes.set(ylim=(0, 1), xlim=(0.2, max(1, len(ordered)) + 0.8))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", visible=False)
    caption = f"Mean Dice {mean:.3f} (dashed)"
    if not math.isnan(low):
        caption += f", 95 % interval {low:.3f} to {high:.3f} (band)"
    return plot.finish("Dice by case", f"{caption}, over {len(points)} {unit}s with lesions.")


def dice_by_burden(points: Sequence[Point], unit: str) -> Chart:
    """Dice against what there was to find (`x`, in `unit`)."""
    what = "tumour volume" if unit == "ml" else "lesion area"
    plot = _Plot("dice-by-burden", f"true {what} ({unit})", "Dice")
    plot.points(points, ACCENT)
    plot.axes.set_xscale("log")
    plot.axes.set_ylim(0, 1)
    _plain_numbers(plot.axes.xaxis, [point.x for point in points])
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
        with_lesions: one a case.
        controls: cases without lesions, where nothing can be missed: their `x` is 0.
        unit: of both.
        names: of false positives and false negatives, as the field calls them here.
    """
    positive, negative = names
    plot = _Plot("false-amounts", f"{negative} ({unit})", f"{positive} ({unit})")
    threshold = 1.0 if unit == "ml" else 10.0
    for axis, scale in ((plot.axes.xaxis, "x"), (plot.axes.yaxis, "y")):
        getattr(plot.axes, f"set_{scale}scale")("symlog", linthresh=threshold, linscale=0.5)
        _plain_numbers(axis)
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
    """How many lesions of each size were found and missed."""
    edges = (0, 1, 5, 20, 100, math.inf) if unit == "ml" else (0, 1, 4, 10, 40, math.inf)
    plot = _Plot("found-by-size", f"true lesion ({unit})", "lesions")
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
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="x", visible=False)
    plot.legend(2)
    parts = [f"{n} {unit}: {h} of {t}" for n, h, t in zip(names, hits, totals) if t]
    return plot.finish("Lesions found by size", f"Found: {'; '.join(parts)}.")


def burden_agreement(points: Sequence[Point], unit: str) -> Chart:
    """Predicted (`y`) against true (`x`) amount of tumour, with the line of agreement."""
    what = "tumour volume" if unit == "ml" else "lesion area"
    plot = _Plot("burden-agreement", f"true {what} ({unit})", f"predicted ({unit})")
    threshold = 1.0
    top = 1.6 * max((max(point.x, point.y) for point in points), default=1)
    top = max(top, 10.0)
    line = np.concatenate([[0], np.geomspace(0.01, top, 60)])
    plot.axes.plot(line, line, color=MUTED, linewidth=1, linestyle=(0, (4, 2)))
    for axis, scale in ((plot.axes.xaxis, "x"), (plot.axes.yaxis, "y")):
        getattr(plot.axes, f"set_{scale}scale")("symlog", linthresh=threshold, linscale=0.5)
        _plain_numbers(axis)
    plot.points(points, ACCENT)
    plot.axes.set(xlim=(0, top), ylim=(0, top))
    below = sum(point.y < point.x for point in points)
    above = sum(point.y > point.x for point in points)
    caption = (
        f"One mark a case; on the dashed line both agree. Too little is marked in {below} cases, "
        f"too much in {above}. Linear up to {threshold:.0f} {unit}, logarithmic beyond."
    )
    return plot.finish(f"{what.capitalize()}, predicted and true", caption)


def lesion_sizes(
    sizes: Sequence[float], unit: str, title: str = "Lesion sizes", of_cases: bool = False
) -> Chart:
    """Histogram of sizes, logarithmic: of lesions, or of what whole cases hold (`of_cases`)."""
    what = "cases" if of_cases else "lesions"
    plot = _Plot(f"sizes-of-{what}", f"{what[:-1]} ({unit})", what)
    low, high = max(min(sizes), 1e-3), max(sizes)
    edges = np.geomspace(low / 1.05, max(high, low * 2) * 1.05, 17)
    plot.axes.hist(np.maximum(sizes, low), bins=edges, color=ACCENT, edgecolor="none", rwidth=0.92)
    plot.axes.set_xscale("log")
    _plain_numbers(plot.axes.xaxis, edges)
    plot.axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    plot.axes.grid(axis="x", visible=False)
    caption = (
        f"{len(sizes)} {what}{' with lesions' if of_cases else ''} from {min(sizes):.3g} to "
        f"{high:.3g} {unit}, median {float(np.median(sizes)):.3g} {unit}."
    )
    return plot.finish(title, caption)


def lesion_counts(counts: Sequence[int], what: str = "lesions") -> Chart:
    """Histogram of the number of lesions a case."""
    plot = _Plot("lesion-counts", f"{what} a case", "cases")
    top = max(counts)
    width = max(1, math.ceil((top + 1) / 16))
    edges = np.arange(-0.5, top + width, width)
    plot.axes.hist(counts, bins=edges, color=ACCENT, rwidth=0.88)
    for axis in (plot.axes.xaxis, plot.axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    plot.axes.grid(axis="x", visible=False)
    caption = (
        f"{sum(counts)} {what} in {len(counts)} cases; median {float(np.median(counts)):g}, most "
        f"{top}, none in {sum(count == 0 for count in counts)} cases."
    )
    return plot.finish(f"{what.capitalize()} a case", caption)


def values_by_case(
    points: Sequence[Point],
    title: str,
    y_label: str,
    band: tuple[float, float] | None = None,
    band_means: str = "",
) -> Chart:
    """One value a case, smallest first (`x` is not looked at), with a band of usual values."""
    ordered = sorted(points, key=lambda point: point.y)
    plot = _Plot("values-" + re.sub(r"\W+", "-", title), "cases, ordered", y_label)
    if band is not None:
        plot.axes.axhspan(*band, color=ACCENT, alpha=0.12, linewidth=0)
    plot.points([Point(k, p.y, p.title, p.card) for k, p in enumerate(ordered, start=1)], ACCENT)
    values = [point.y for point in ordered]
    top = max(values + ([band[1]] if band else []))
    plot.axes.set(xlim=(0.2, max(1, len(ordered)) + 0.8), ylim=(0, 1.08 * top or 1))
    plot.axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    plot.axes.grid(axis="x", visible=False)
    caption = f"From {values[0]:.3g} to {values[-1]:.3g}, median {float(np.median(values)):.3g}."
    if band is not None:
        caption += f" Band: {band_means}."
    return plot.finish(title, caption)


def fold_sizes(folds: Sequence[tuple[str, int, int]]) -> Chart:
    """Validation cases of every fold: (name, with lesions, without)."""
    plot = _Plot("folds", "validation cases", "")
    names = [name for name, _, _ in folds]
    with_lesions = [count for _, count, _ in folds]
    without = [count for _, _, count in folds]
    axes = plot.axes
    axes.barh(names, with_lesions, color=ACCENT, label="with lesions", height=0.66)
    axes.barh(names, without, left=with_lesions, color=PALE, label="without", height=0.66)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05 * max(1, *(a + b for a, b in zip(with_lesions, without))))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", visible=False)
    plot.legend(2)
    parts = [f"{name}: {a + b} cases, {a} with lesions" for name, a, b in folds]
    return plot.finish("Folds", f"{'; '.join(parts)}.")


def visibility(shares: Sequence[float]) -> Chart:
    """In what share of its views every lesion is visible, 0 to 1."""
    plot = _Plot("visibility", "visible in this share of the views (%)", "lesions")
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
    plot.axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    plot.axes.grid(axis="x", visible=False)
    caption = (
        f"{counts[0]} of {len(shares)} lesions are visible in no view (occluded by something "
        f"hotter from every side), {counts[5]} in all."
    )
    return plot.finish("Occluded lesions", caption)


def loss_curves(folds: Sequence[tuple[str, Sequence[int], Sequence[float], Sequence[float]]]):
    """Losses of (fold, epochs, training, validation)."""
    plot = _Plot("loss", "epoch", "loss")
    for number, (name, epochs, train, val) in enumerate(folds):
        colour = FOLDS[number % len(FOLDS)]
        plot.axes.plot(epochs, train, color=colour, linewidth=1.4, label=f"fold {name}")
        plot.axes.plot(epochs, val, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
    _finish_curves(plot, folds)
    caption = "Training loss (solid) and validation loss (dashed) by epoch"
    return plot.finish("Loss", f"{caption}; {_ends(folds, 3, 'validation loss')}.")


def dice_curves(folds: Sequence[tuple[str, Sequence[int], Sequence[float]]]) -> Chart:
    """Pseudo Dice of (fold, epochs, values)."""
    plot = _Plot("pseudo-dice", "epoch", "pseudo Dice")
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


def _finish_curves(plot: _Plot, folds: Sequence[tuple]) -> None:
    # A curve of one epoch is a point, which no line draws.
    if any(len(fold[1]) == 1 for fold in folds):
        for line in plot.axes.get_lines():
            line.set_marker("o")
            line.set_markersize(4)
    plot.axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(folds) > 1:
        plot.legend(3)


def _median(points: Sequence[Point]) -> float:
    return float(np.median([point.x for point in points]))


def _plain_numbers(axis, values: Sequence[float] = ()) -> None:
    """Numbers as people write them; on a logarithmic axis more ticks where it is short."""
    if len(values):
        short = max(values) < 150 * min(values)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _for_page(svg: bytes, groups: dict[str, list[Point]], name: str, caption: str) -> str:
    """Matplotlib's file as an element of a page."""
    for prefix, space in (("", _SVG), ("xlink", _XLINK)):
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # The style would be that of the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    for gid, points in groups.items():
        _mark(root.find(f".//{{{_SVG}}}g[@id='{gid}']"), points)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-label", caption)
    _keep_to_itself(root, name)
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"\n\s*", "\n", text)


def _keep_to_itself(root: ElementTree.Element, name: str) -> None:
    """Ids that no other plot has, the page's colours and the page's font."""
    href = f"{{{_XLINK}}}href"
    for element in root.iter():
        # Only what is referred to needs an id.
        own = element.attrib.pop("id", None)
        if own is not None and own[0] in "mp" and own[1:].isalnum():
            element.set("id", f"{name}-{own}")
        if href in element.attrib:
            element.set("href", f"#{name}-{element.attrib.pop(href)[1:]}")
        for key in ("clip-path", "style"):
            value = element.get(key)
            if value is None:
                continue
            value = value.replace("url(#", f"url(#{name}-")
            for colour, meaning in COLOURS.items():
                value = value.replace(colour, f"var(--{meaning})")
            element.set(key, re.sub(r" ?font-family: [^;]*;", "", value))


def _mark(group: ElementTree.Element, points: list[Point]) -> None:
    """Give every drawn mark of a scatter its title, and its link."""
    defined = {child for defs in group.iter(f"{{{_SVG}}}defs") for child in defs.iter()}
    drawn = [
        (parent, child)
        for parent in group.iter()
        for child in parent
        if child.tag in (f"{{{_SVG}}}use", f"{{{_SVG}}}path") and child not in defined
    ]
    for (parent, child), point in zip(drawn, points):
        title = ElementTree.SubElement(child, f"{{{_SVG}}}title")
        title.text = point.title
        if point.card is None:
            continue
        link = ElementTree.Element(f"{{{_SVG}}}a", {"href": f"#{point.card}", "tabindex": "-1"})
        parent[list(parent).index(child)] = link
        link.append(child)
