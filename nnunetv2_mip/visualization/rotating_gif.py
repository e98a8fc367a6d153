"""Rotating MIP of one case as an animated GIF.

Images are shown as nuclear physicians read them: dark is uptake, head up, pixels isotropic in mm.
Drawn with Pillow: with matplotlib the frames took most of the time of a prediction.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from nnunetv2_mip.files import atomic_path, checked_path
from nnunetv2_mip.visualization.case_views import CaseViews, body_columns
from nnunetv2_mip.visualization.palette_drawing import BLENDS, Palette, font, outline_blend

MAX_GIF_BYTES = 3_000_000
# Ways to write a GIF, best first: (frames at most, grey steps, height of the views in pixels).
GIF_QUALITIES = ((48, 40, 520), (36, 32, 460), (24, 24, 400), (16, 16, 320))
GIF_TURN_SECONDS = 4.8
# Heights above and below the views, width at least, distance to the sides.
HEAD_PX, FOOT_PX, LEAST_WIDTH_PX, SIDE_PX = 42, 34, 290, 9
NAME_LETTERS = 36
# Of the outlines of truth and prediction: the truth shows on both sides of the prediction.
LINE_WIDTHS_PX = (2.6, 1.5)
LEGEND = ("truth", "prediction")
LEGEND_LINE_PX = 15


def write_turning_gif(case: CaseViews, path: Path | str) -> None:
    """Write a rotating MIP with outlines as an endless GIF of at most 3 MB.

    Views over 180° make a full turn (the second half is mirrored); any other arc swings back and
    forth; a single view makes a still image.

    Raises:
        MipError: `path` is no `.gif`.
    """
    path = checked_path(path, ".gif")
    with atomic_path(path) as partial:
        for most, greys, height in GIF_QUALITIES:
            order = turning_order(len(case.views), case.arc_deg, most)
            drawing = _Drawing(case, Palette(greys), height)
            first, *others = [drawing.frame(view, mirrored) for view, mirrored in order]
            first.save(
                partial,
                "GIF",
                save_all=True,
                append_images=others,
                duration=round(1000 * GIF_TURN_SECONDS / len(order)),
                loop=0,
                optimize=False,
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


class _Drawing:
    """Frames of one case: name, caption, scale bar and legend are drawn once.

    Args:
        case: the views.
        palette: of all frames.
        height_px: of the views.
    """

    def __init__(self, case: CaseViews, palette: Palette, height_px: int):
        self.case, self.palette = case, palette
        self.crop = body_columns(case)
        row_mm, column_mm = case.pixel_mm
        px_per_mm = height_px / (case.views.shape[1] * row_mm)
        columns = self.crop.stop - self.crop.start
        self.size = (height_px, max(1, round(columns * column_mm * px_per_mm)))
        self.masks = [(k, m) for k, m in enumerate((case.truth, case.prediction)) if m is not None]
        self.views: dict[int, np.ndarray] = {}
        name = case.name
        if len(name) > NAME_LETTERS:
            name = f"{name[: NAME_LETTERS - 1]}…"
        self._draw_frame_of_views(name, "   ".join(case.labels()), 100 * px_per_mm)

    def _draw_frame_of_views(self, name: str, caption: str, bar_px: float) -> None:
        """Draw all but the views and the angle, as wide as the text needs."""
        bold, plain, small = font(12, bold=True), font(12), font(11)
        words = [LEGEND[number] for number, _ in self.masks]
        legend = sum(plain.getlength(word) + LEGEND_LINE_PX + 16 for word in words)
        bar = round(bar_px)
        needed = (
            self.size[1],
            LEAST_WIDTH_PX,
            bold.getlength(name) + 2 * SIDE_PX,
            small.getlength(caption) + plain.getlength("  360°") + 2 * SIDE_PX,
            bar + plain.getlength("10 cm") + legend + 2 * SIDE_PX + 12,
        )
        width, height = math.ceil(max(needed)), HEAD_PX + self.size[0] + FOOT_PX
        image = Image.new("L", (width, height), 255)
        draw = ImageDraw.Draw(image)
        draw.text((SIDE_PX, 13), name, 0, bold, anchor="lm")
        draw.text((SIDE_PX, 30), caption, 64, small, anchor="lm")
        foot = height - FOOT_PX // 2
        draw.rectangle((SIDE_PX, foot - 1, SIDE_PX + bar - 1, foot + 1), 0)
        draw.text((SIDE_PX + bar + 6, foot), "10 cm", 0, plain, anchor="lm")
        lines = []
        right = width - SIDE_PX
        for number, word in zip([number for number, _ in self.masks][::-1], words[::-1]):
            draw.text((right, foot), word, 0, plain, anchor="rm")
            right -= math.ceil(plain.getlength(word)) + 5
            lines.append((number, right - LEGEND_LINE_PX, right))
            right -= LEGEND_LINE_PX + 11
        self.base = self.palette.grey_index[np.asarray(image)]
        for number, start, stop in lines:
            at = (slice(foot - 1, foot + 2 - number), slice(start, stop))
            self.base[at] = self._full_colour(number)
        self.left = (width - self.size[1]) // 2

    def _full_colour(self, number: int) -> int:
        """Index of a colour by itself."""
        white = np.array([255], np.uint8)
        return int(self.palette.blend_index(number, np.array([BLENDS]), white)[0])

    def frame(self, view: int, mirrored: bool) -> Image.Image:
        """One frame, a view or its left-right mirror, as an image with the palette."""
        if view not in self.views:
            self.views[view] = self._view(view)
        pixels = self.base.copy()
        rows, columns = self.size
        turn = slice(None, None, -1 if mirrored else 1)
        pixels[HEAD_PX : HEAD_PX + rows, self.left : self.left + columns] = self.views[view][
            :, turn
        ]
        angle = f"{self.case.angle_deg(view) + 180 * mirrored:.0f}°"
        text = Image.new("L", (48, 16), 255)
        ImageDraw.Draw(text).text((47, 8), angle, 64, font(12), anchor="rm")
        right = pixels.shape[1] - SIDE_PX
        part = self.palette.grey_index[np.asarray(text)]
        np.minimum(pixels[22:38, right - 48 : right], part, out=pixels[22:38, right - 48 : right])
        image = Image.fromarray(pixels)
        image.putpalette(self.palette.rgb)
        return image

    def _view(self, view: int) -> np.ndarray:
        """Palette indices of a view with its outlines."""
        rows, columns = self.size
        share = np.clip(self.case.views[view][:, self.crop] / self.case.black, 0, 1)
        own = Image.fromarray(np.rint(255 * (1 - share)).astype(np.uint8))
        grey = np.asarray(own.resize((columns, rows), Image.Resampling.BILINEAR))
        pixels = self.palette.grey_index[grey]
        covered = np.zeros(grey.shape, bool)
        for number, masks in self.masks:
            mask = masks[view][:, self.crop] == 1
            if not mask.any():
                continue
            blend = outline_blend(mask, self.size, LINE_WIDTHS_PX[number])
            # The soft border of a line does not cover the line below it.
            drawn = blend > np.where(covered, BLENDS // 2, 0)
            pixels[drawn] = self.palette.blend_index(number, blend[drawn], grey[drawn])
            covered |= drawn
        return pixels
