"""Plots of a report: matplotlib's SVG, adapted to a page that is light or dark.

Matplotlib draws in placeholder colours, which are replaced by the colours of the page's style sheet
(`var(--ink)`, …). Text stays text. Every point has a title that the browser shows under the mouse,
and a link to the case where the page shows it. Names of cases come from files: they are written by
the XML library, which escapes them.
"""

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

# Placeholder → name of the colour in the style sheet.
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
_STYLE: "dict[RcKeyType, Any]" = {
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
    """Mark of a scatter plot.

    Attributes:
        x, y: its place, in the units of the axes.
        title: text under the mouse.
        card: id of the element it links to, None without a link.
    """

    x: float
    y: float
    title: str
    card: str | None = None


@dataclass(frozen=True)
class Chart:
    """Finished plot.

    Attributes:
        title: above it.
        svg: an `<svg>` element.
        caption: below it, and its text alternative for screen readers.
    """

    title: str
    svg: str
    caption: str


class Plot:
    """Unfinished plot: a pair of axes to draw on; `finish` gives the `Chart`.

    Args:
        name: prefix of the ids within the SVG, different for every plot of a page.
        x_label, y_label: of the axes.
    """

    def __init__(self, name: str, x_label: str, y_label: str):
        self.name = name
        self.groups: dict[str, list[Point]] = {}
        with matplotlib.rc_context(_STYLE):
            self.figure = Figure(figsize=SIZE_INCHES, layout="constrained")
            FigureCanvasSVG(self.figure)
            self.axes: Axes = self.figure.add_subplot()
        self.axes.set_xlabel(x_label)
        self.axes.set_ylabel(y_label)

    def points(
        self, points: Sequence[Point], colour: str, marker: str = "o", label: str = ""
    ) -> None:
        """Scatter of points, with a label for the legend."""
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
        """Legend above the axes, in so many columns."""
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
        """Finished plot, the same bytes for the same data."""
        stream = io.BytesIO()
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return Chart(title, _adapt(stream.getvalue(), self.groups, self.name, caption), caption)


def plain_numbers(axis, values: Sequence[float] = ()) -> None:
    """Tick labels without exponents; on a short logarithmic axis (by its values) more ticks."""
    if len(values):
        short = max(values) < 150 * min(values)
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _adapt(svg: bytes, groups: dict[str, list[Point]], name: str, caption: str) -> str:
    """Matplotlib's SVG as an element of an HTML page."""
    for prefix, space in (("", _SVG), ("xlink", _XLINK)):
        ElementTree.register_namespace(prefix, space)
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style element would apply to the whole page.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    drawn = {group.get("id"): group for group in root.iter(f"{{{_SVG}}}g")}
    for gid, points in groups.items():
        _label_points(drawn[gid], points)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-label", caption)
    _localise(root, name)
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"\n\s*", "\n", text)


def _localise(root: ElementTree.Element, name: str) -> None:
    """Replacement of ids by unique ones, and of colours and font by the page's."""
    href = f"{{{_XLINK}}}href"
    for element in root.iter():
        # Only ids of clip paths and marks are referred to.
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


def _label_points(group: ElementTree.Element, points: list[Point]) -> None:
    """Titles and links for the drawn marks of a scatter plot."""
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
