"""PNG files: the decoder of MIP-PET images, and the writer of views.

A MIP-PET PNG is dark where uptake is (white background) in any PNG mode: 8- or 16-bit grey, RGB,
RGBA, grey with alpha, palette, 1 bit. Alpha is never signal: what is transparent is air, as every
viewer shows it on white. The result is always levels (H, W) uint8 with bright = uptake (see
`nnunetv2_mip.views.intensity`). Masks are read by `io.png_masks`.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from nnunetv2_mip.conventions import LEVEL_MAX, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, require_readable
from nnunetv2_mip.wording import counted

MAX_PIXELS = 50_000_000
# 6 cm at 2 mm a pixel: narrower than a newborn's head.
SMALLEST_BODY_PX = 30
PNG_SUFFIX = ".png"
# Which grey means uptake: "dark" (as in the DM-i-AI images), "bright", or "auto" (bright where the
# border of the image is dark).
POLARITIES = ("dark", "bright", "auto")
# Exceptions of Pillow on damaged files, beside its own errors and ValueError.
_DAMAGED = (OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error,
            zlib.error)  # fmt: skip
WIDE_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
# Depths that scanners and programs keep in 16-bit files, without a word in the header.
_DEPTHS = (8, 10, 12, 14)
# Share of the visible pixels that are wholly opaque in a picture with transparent air; the others
# are soft edges. Other alpha channels are noise or a gradient, and no transparency.
_OPAQUE_SHARE = 0.75
# A pixel whose channels differ by more is coloured; an image with more of them than this share is.
_GREY_SPREAD, _COLOURED_SHARE = 24, 0.01


@dataclass(frozen=True)
class PngImage:
    """A decoded MIP-PET image.

    Attributes:
        levels: (H, W) uint8, bright = uptake.
        warnings: reasons why it may be read wrongly, without the name of the file.
    """

    levels: np.ndarray
    warnings: tuple[str, ...] = ()


def decode_png(
    source: bytes | Path | str,
    name: str | None = None,
    polarity: str = "dark",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Levels (H, W) of a MIP-PET PNG of any mode, bright = uptake (see `read_png`)."""
    return read_png(source, name, polarity, max_pixels, formats).levels


def read_png(
    source: bytes | Path | str,
    name: str | None = None,
    polarity: str = "dark",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> PngImage:
    """A MIP-PET PNG of any mode, and what is doubtful about it.

    Args:
        source: the file, or its bytes.
        name: name of bytes in messages.
        polarity: one of `POLARITIES`.
        max_pixels: larger images are refused before they are decoded.
        formats: kinds of image to take (Pillow's names, "PNG"); None takes all it knows.

    Returns:
        Levels are 255 minus the mean of the colour channels where dark is uptake.

    Raises:
        MipError: missing, not an image, truncated, or too large.
    """
    if polarity not in POLARITIES:
        raise MipError(f"polarity {polarity!r}: is none of {', '.join(POLARITIES)}")
    with opened_png(source, png_name(source, name), max_pixels, formats) as image:
        grey, doubt = _to_grey(image)
    if polarity == "bright" or (polarity == "auto" and has_dark_border(grey)):
        levels = np.ascontiguousarray(grey)
    else:
        levels = (255 - grey).astype(np.uint8)
    doubts = (doubt, image_warning(levels))
    return PngImage(levels, tuple(line for line in doubts if line is not None))


# Brightest level of air: scatter and noise of real images stay far below.
MOST_AIR_LEVEL = 40


def has_dark_border(grey: np.ndarray) -> bool:
    """Whether the frame of an image (H, W), 0–255, is darker than middle grey (its median is).

    Air lies there: dark air means that bright is uptake.
    """
    frame = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(frame)) < 128


def image_warning(levels: np.ndarray) -> str | None:
    """Reason why levels (H, W), bright = uptake, are hardly those of a MIP-PET image, or None."""
    return image_fault(levels) or _air_warning(levels) or _size_warning(levels)


def _air_warning(levels: np.ndarray) -> str | None:
    """A line where the frame is grey: the air of MIP-PET images is white."""
    frame = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    level = float(np.median(frame))
    if level <= MOST_AIR_LEVEL:
        return None
    return f"its border is grey ({LEVEL_MAX - level:.0f}); in a MIP-PET image air is white (255)"


def image_fault(levels: np.ndarray) -> str | None:
    """Reason why levels (H, W), bright = uptake, cannot be those of a MIP-PET image, or None."""
    if set(np.unique(levels)) == {0, LEVEL_MAX}:
        return "holds black and white alone; is it a mask and not an image?"
    if min(levels.shape) >= SMALLEST_BODY_PX and has_dark_border(LEVEL_MAX - levels):
        return "its border is dark; in a MIP-PET image uptake is dark and air is white"
    return None


def _size_warning(levels: np.ndarray) -> str | None:
    if min(levels.shape) >= SMALLEST_BODY_PX:
        return None
    height, width = levels.shape
    return (
        f"has {counted(height, 'row')} of {counted(width, 'pixel')}; a body has hundreds, of "
        f"{PNG_PIXEL_MM:g} mm each"
    )


def write_view_png(levels: np.ndarray, path: Path | str) -> None:
    """Write levels (H, W) as an 8-bit RGB PNG with equal channels, dark = uptake."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = LEVEL_MAX - np.asarray(levels, np.uint8)
    with atomic_path(path) as partial:
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(partial, "PNG")


def png_name(source: bytes | Path | str, name: str | None) -> str:
    """Name of an image in messages."""
    return name or ("image" if isinstance(source, bytes) else str(source))


@contextmanager
def opened_png(
    source: bytes | Path | str,
    label: str,
    max_pixels: int,
    formats: tuple[str, ...] | None = None,
) -> Iterator[Image.Image]:
    """Opened image; what the block raises on a damaged one becomes a MipError.

    Args:
        source, max_pixels, formats: as of `read_png`.
        label: name in messages.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise MipError(f"{label}: no such file")
    if not isinstance(source, bytes):
        require_readable(Path(source))
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream, formats=formats) as image:
            # Only the header has been read so far.
            if image.width * image.height > max_pixels:
                raise MipError(
                    f"{label}: {image.width}x{image.height} pixels are more than {max_pixels}"
                )
            yield image
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGED) as error:
        # Pillow's message names the stream, which means nothing to a reader.
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise MipError(
            f"{label}: cannot be read as an image (truncated, damaged or no PNG){reason}"
        ) from None
    except ValueError as error:
        raise MipError(f"{label}: cannot be read as an image: {error}") from None


def _to_grey(image: Image.Image) -> tuple[np.ndarray, str | None]:
    """Grey image (H, W) uint8, not inverted, and what is doubtful about its depth, or None."""
    if image.mode in WIDE_MODES:
        return _of_wide(np.asarray(image, np.float32), image.info.get("transparency"))
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L")), None
    wide = _wide_colours(image)
    if wide is not None:
        colours, opacity = (wide[..., :-1], wide[..., -1]) if "A" in image.mode else (wide, None)
        grey, doubt = _of_wide(colours.mean(-1, dtype=np.float32), None)
        if doubt is not None:
            alpha = np.full(grey.shape, 255) if opacity is None else np.rint(opacity / 257)
            return _on_white(grey, alpha.astype(np.uint8)), doubt
    # Palette and colour: the mean of the colour channels; equal channels stay exactly as they are.
    pixels = np.asarray(image.convert("RGBA"))
    colours = pixels[..., :3]
    grey = colours[..., 0]
    doubt = None
    if not (colours == grey[..., None]).all():
        doubt = _colour_warning(colours[pixels[..., 3] > 0])
        grey = np.rint(colours.astype(np.float32).mean(-1)).astype(np.uint8)
    return _on_white(grey, pixels[..., 3]), doubt


def _colour_warning(colours: np.ndarray) -> str | None:
    """A line where many of the pixels (N, 3) uint8 are coloured: a colour map is no uptake."""
    spread = colours.max(-1, initial=0) - colours.min(-1, initial=255)
    if len(colours) == 0 or (spread > _GREY_SPREAD).mean() <= _COLOURED_SHARE:
        return None
    return (
        "is in colour; the mean of its channels is read as grey, which of a colour map is no uptake"
    )


def _wide_colours(image: Image.Image) -> np.ndarray | None:
    """Pixels (H, W, C) uint16 of a PNG of 16-bit colours, which Pillow cuts to 8; else None."""
    tile: Any = getattr(image, "tile", None)
    if image.format != "PNG" or not tile or not str(tile[0][3]).endswith("16B"):
        return None
    stream: Any = getattr(image, "fp", None)
    place = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(place)
    try:
        return imagecodecs.png_decode(content)
    except imagecodecs.PngError:
        # Pillow decodes it next and says what is wrong.
        return None


def _on_white(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Grey image (H, W) uint8 on white, where its alpha is transparency.

    It is where the alpha differs between pixels and most visible pixels are wholly opaque, or where
    the grey values differ nowhere, so that the alpha is the picture.
    """
    low, high = alpha.min(), alpha.max()
    if low == high:
        return grey
    visible = alpha > low
    opaque = np.count_nonzero(alpha == high) / np.count_nonzero(visible)
    if opaque < _OPAQUE_SHARE and grey[visible].min() != grey[visible].max():
        return grey
    shown = (grey.astype(np.uint32) * alpha + 255 * (255 - alpha.astype(np.uint32)) + 127) // 255
    return shown.astype(np.uint8)


def _of_wide(wide: np.ndarray, transparent: object) -> tuple[np.ndarray, str | None]:
    """Grey image (H, W) uint8 of one of 16 bits, and a line where it holds fewer bits.

    Air is white: where the border has half or more of the highest value that a smaller depth holds,
    and nothing is above that, the image is of that depth.
    """
    if isinstance(transparent, int):
        wide = np.where(wide == transparent, np.float32(65535), wide)
    high = float(wide.max())
    bits = next((bits for bits in _DEPTHS if high < 2**bits), 16)
    frame = np.concatenate([wide[0], wide[-1], wide[:, 0], wide[:, -1]])
    if bits == 16 or float(np.median(frame)) < 2 ** (bits - 1):
        return np.rint(np.clip(wide, 0, 65535) / 257).astype(np.uint8), None
    # By whole steps: 8-bit values times 16, and 16-bit values cut to 12, give the 8-bit values.
    grey = (wide // 2 ** (bits - 8)).astype(np.uint8)
    return grey, f"holds {bits} bits in 16 (its highest value is {high:g}) and is read as such"
