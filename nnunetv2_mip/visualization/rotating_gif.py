"""Rotating MIP of one case as an animated GIF."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.visualization.case_views import CaseViews, body_columns
from nnunetv2_mip.visualization.drawing import (
    ViewPanel,
    add_foot,
    checked_path,
    new_figure,
    render,
)

DPI = 100
MAX_GIF_BYTES = 3_000_000
# Ways to write a GIF, best first: (frames at most, grey steps, height in pixels).
GIF_QUALITIES = ((48, 40, 520), (36, 32, 460), (24, 24, 400), (16, 16, 320))
GIF_TURN_SECONDS = 4.8


def write_turning_gif(case: CaseViews, path: Path | str) -> None:
    """Write a rotating MIP with outlines as an endless GIF of at most 3 MB.

    Views over 180° make a full turn (the second half is mirrored); any other arc swings back and
    forth; a single view makes a still image.

    Raises:
        MipError: `path` is no `.gif`.
    """
    import imageio.v3 as imageio

    path = checked_path(path, ".gif")
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
    """Pairs (view, mirrored) in the order of showing, at most `most`."""
    if views == 1:
        return [(0, False)]
    if arc_deg == 180.0:
        turn = [(view, mirrored) for mirrored in (False, True) for view in range(views)]
    else:
        turn = [(view, False) for view in (*range(views), *range(views - 2, 0, -1))]
    step = math.ceil(len(turn) / most)
    return turn[::step]


def _frames(case: CaseViews, order: list[tuple[int, bool]], height_px: int) -> Iterator[np.ndarray]:
    """RGB frames (H, W, 3) uint8 of the rotating MIP, one after the other."""
    crop = body_columns(case)
    tall = case.views.shape[1] * case.pixel_mm[0]
    wide = (crop.stop - crop.start) * case.pixel_mm[1]
    inch = height_px / DPI / tall
    head, foot = 0.42, 0.34
    size = (max(wide * inch, 2.9), tall * inch + head + foot)
    figure = new_figure(size, DPI)
    left = (size[0] - wide * inch) / 2
    axes = figure.add_axes(
        (left / size[0], foot / size[1], wide * inch / size[0], tall * inch / size[1])
    )
    panel = ViewPanel(axes, case, crop, line_scale=0.9)
    name = case.name if len(case.name) <= 36 else f"{case.name[:35]}…"
    figure.text(0.03, 1 - 0.13 / size[1], name, size=8, weight="bold", va="center")
    said = "   ".join(case.labels())
    figure.text(0.03, 1 - 0.30 / size[1], said, size=7.5, va="center", color="0.25")
    angle = figure.text(0.97, 1 - 0.30 / size[1], "", size=8, va="center", ha="right", color="0.25")
    add_foot(figure, [case], 0.03, 0.15 / size[1], inch, size)
    for view, mirrored in order:
        panel.show(view, mirrored)
        angle.set_text(f"{case.angle_deg(view) + 180 * mirrored:.0f}°")
        yield render(figure)


def _few_colours(frame: np.ndarray, greys: int) -> np.ndarray:
    """Frame rounded to few grey steps: noise in 256 greys makes a GIF large."""
    step = 255 / (greys - 1)
    grey = frame.max(-1).astype(int) - frame.min(-1) < 12
    # Blends of outline and background need no more than a few steps a channel.
    coloured = np.rint(np.rint(frame / 51.0) * 51.0)
    rounded = np.rint(np.rint(frame.mean(-1, keepdims=True) / step) * step)
    return np.where(grey[..., None], rounded, coloured).astype(np.uint8)
