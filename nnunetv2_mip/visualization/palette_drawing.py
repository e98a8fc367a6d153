"""Drawing of views with Pillow, as indices of a fixed palette: uptake, outlines, text.

Made for animations: no figure is laid out for each frame, and a GIF needs no choice of colours.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from nnunetv2_mip.visualization.case_views import PREDICTION_COLOUR, TRUTH_COLOUR

COLOURS = (TRUTH_COLOUR, PREDICTION_COLOUR)
# Steps of the blend of an outline with the grey behind it, and greys that are blended.
BLENDS, BLENDED_GREYS = 4, 8
# Outlines are drawn on finer pixels, and averaged.
OVERSAMPLING = 4
# Pairs of edges of a cell of four pixels: names as in `outline_segments`.
_EDGES = {"top": (0.0, 0.5), "left": (0.5, 0.0), "right": (0.5, 1.0), "bottom": (1.0, 0.5)}
_PAIRS = (
    ("top", "left"), ("top", "right"), ("top", "bottom"),
    ("left", "right"), ("left", "bottom"), ("right", "bottom"),
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """Grey steps from black to white, then each outline colour blended with fewer greys.

    Attributes:
        greys: steps of grey. Few of them keep a GIF of noisy images small.
    """

    greys: int

    @property
    def white(self) -> int:
        """Index of white."""
        return self.greys - 1

    @cached_property
    def grey_index(self) -> np.ndarray:
        """Index of every grey value, (256,) uint8."""
        return np.rint(np.arange(256) * (self.greys - 1) / 255).astype(np.uint8)

    def blend_index(self, colour: int, blend: np.ndarray, grey: np.ndarray) -> np.ndarray:
        """Indices of a colour over grey.

        Args:
            colour: position in `COLOURS`.
            blend: 1 to `BLENDS`, the colour alone.
            grey: 0–255 behind it, of the same shape.
        """
        coarse = (grey.astype(np.uint16) * (BLENDED_GREYS - 1) + 127) // 255
        first = self.greys + colour * BLENDS * BLENDED_GREYS
        return (first + (blend.astype(np.uint16) - 1) * BLENDED_GREYS + coarse).astype(np.uint8)

    @cached_property
    def rgb(self) -> bytes:
        """Red, green and blue of all indices, as a GIF holds them."""
        grey = np.rint(np.linspace(0, 255, self.greys))
        behind = np.linspace(0, 255, BLENDED_GREYS)[:, None]
        parts = [np.repeat(grey[:, None], 3, axis=1)]
        for colour in COLOURS:
            own = np.array(ImageColor.getrgb(colour), float)
            for blend in range(1, BLENDS + 1):
                share = blend / BLENDS
                parts.append(share * own + (1 - share) * behind)
        return np.rint(np.concatenate(parts)).astype(np.uint8).tobytes()


@lru_cache(maxsize=8)
def font(size_px: int, bold: bool = False) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """DejaVu Sans, as matplotlib brings it (which is not imported), or Pillow's own font."""
    found = find_spec("matplotlib")
    for folder in found.submodule_search_locations or () if found else ():
        path = Path(folder, "mpl-data", "fonts", "ttf", f"DejaVuSans{'-Bold' * bold}.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size_px)
    return ImageFont.load_default(size_px)


def outline_segments(mask: np.ndarray) -> np.ndarray:
    """Outline of a mask halfway between the centres of its pixels and of their neighbours.

    Args:
        mask: (H, W) bool. Lesions at the border are closed along it.

    Returns:
        (N, 2, 2) float: ends of N straight segments, (row, column) in pixels, 0 at the image's
        upper left corner.
    """
    padded = np.pad(mask, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    crossed = {"top": a != b, "left": a != c, "right": b != d, "bottom": c != d}
    saddle = crossed["top"] & crossed["left"] & crossed["right"] & crossed["bottom"]
    # Pixels that touch at a corner stay apart, as with connected components of four neighbours.
    around = {
        ("top", "left"): saddle & a, ("right", "bottom"): saddle & a,
        ("top", "right"): saddle & b, ("left", "bottom"): saddle & b,
    }  # fmt: skip
    segments = []
    for pair in _PAIRS:
        one, two = pair
        joined = crossed[one] & crossed[two] & ~saddle
        if pair in around:
            joined |= around[pair]
        cells = np.argwhere(joined).astype(float) - 0.5
        segments.append(np.stack([cells + _EDGES[one], cells + _EDGES[two]], axis=1))
    return np.concatenate(segments)


def outline_blend(mask: np.ndarray, size_px: tuple[int, int], width_px: float) -> np.ndarray:
    """Outline of a mask on other pixels: (rows, columns) uint8, 0 to `BLENDS`.

    Args:
        mask: (H, W) bool.
        size_px: (rows, columns) that the mask fills.
        width_px: of the line.
    """
    blend = np.zeros(size_px, np.uint8)
    segments = outline_segments(mask) * (np.array(size_px) / mask.shape)
    if not len(segments):
        return blend
    margin = int(np.ceil(width_px)) + 1
    low = np.maximum(np.floor(segments.min((0, 1))).astype(int) - margin, 0)
    high = np.minimum(np.ceil(segments.max((0, 1))).astype(int) + margin, size_px)
    rows, columns = (high - low) * OVERSAMPLING
    fine = Image.new("L", (int(columns), int(rows)))
    draw = ImageDraw.Draw(fine)
    width = max(1, round(width_px * OVERSAMPLING))
    ends = (segments - low) * OVERSAMPLING
    # Longer by a part of the width: no notch where segments meet at an angle.
    along = ends[:, 1] - ends[:, 0]
    along *= 0.2 * width / np.linalg.norm(along, axis=1, keepdims=True)
    ends = np.stack([ends[:, 0] - along, ends[:, 1] + along], axis=1)
    for line in np.rint(ends[..., ::-1]).astype(int).reshape(-1, 4).tolist():
        draw.line(line, fill=255, width=width)
    covered = np.asarray(fine.reduce(OVERSAMPLING)).astype(np.uint16)
    blend[low[0] : high[0], low[1] : high[1]] = (covered * BLENDS + 127) // 255
    return blend
