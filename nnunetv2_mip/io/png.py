"""PNG files: the decoder of MIP-PET images, and the writers of masks and views.

A MIP-PET PNG is dark where uptake is (white background) in any PNG mode: 8- or 16-bit grey, RGB,
RGBA, grey with alpha, palette, 1 bit. Alpha is never signal. The result is always levels (H, W)
uint8 with bright = uptake (see `nnunetv2_mip.views.intensity`).
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from nnunetv2_mip.conventions import LEVEL_MAX, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path, require_readable

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
_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def decode_png(
    source: bytes | Path | str,
    name: str | None = None,
    polarity: str = "dark",
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Levels (H, W) of a MIP-PET PNG of any mode, bright = uptake.

    Args:
        source: the file, or its bytes.
        name: name of bytes in messages.
        polarity: one of `POLARITIES`.
        max_pixels: larger images are refused before they are decoded.
        formats: kinds of image to take (Pillow's names, "PNG"); None takes all it knows.

    Returns:
        (H, W) uint8, 255 minus the mean of the colour channels where dark is uptake.

    Raises:
        MipError: missing, not an image, truncated, or too large.
    """
    if polarity not in POLARITIES:
        raise MipError(f"polarity {polarity!r}: is none of {', '.join(POLARITIES)}")
    grey = _decode_grey(source, name, max_pixels=max_pixels, formats=formats)
    if polarity == "bright" or (polarity == "auto" and has_dark_border(grey)):
        return np.ascontiguousarray(grey)
    return (255 - grey).astype(np.uint8)


def has_dark_border(grey: np.ndarray) -> bool:
    """Whether the frame of an image (H, W), 0–255, is darker than middle grey (its median is).

    Air lies there: dark air means that bright is uptake.
    """
    frame = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return float(np.median(frame)) < 128


def image_warning(levels: np.ndarray) -> str | None:
    """Reason why levels (H, W), bright = uptake, are hardly those of a MIP-PET image, or None."""
    if set(np.unique(levels)) == {0, LEVEL_MAX}:
        return "holds black and white alone; is it a mask and not an image?"
    if min(levels.shape) < SMALLEST_BODY_PX:
        height, width = levels.shape
        return (
            f"has {height} rows of {width} pixels; a body has hundreds, of {PNG_PIXEL_MM:g} mm each"
        )
    if has_dark_border(LEVEL_MAX - levels):
        return "its border is dark; in a MIP-PET image uptake is dark and air is white"
    return None


def decode_mask_png(source: bytes | Path | str, name: str | None = None) -> np.ndarray:
    """Mask (H, W) uint8 of 0 and 1, from a PNG of 0 and 255 in any mode.

    Raises:
        MipError: as `decode_png`, or values outside {0, 255}.
    """
    grey = _decode_grey(source, name, exact=True)
    values = np.unique(grey)
    if not np.isin(values, (0, 255)).all():
        shown = ", ".join(str(int(v)) for v in values if v not in (0, 255))[:60]
        raise MipError(f"{_name(source, name)}: a mask may hold only 0 and 255, found also {shown}")
    return (grey == 255).astype(np.uint8)


def write_mask_png(mask: np.ndarray, path: Path | str) -> None:
    """Write a mask (H, W) as an 8-bit grey PNG, 255 where `mask` is non-zero."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray((np.asarray(mask) != 0).astype(np.uint8) * 255).save(partial, "PNG")


def write_view_png(levels: np.ndarray, path: Path | str) -> None:
    """Write levels (H, W) as an 8-bit RGB PNG with equal channels, dark = uptake."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = LEVEL_MAX - np.asarray(levels, np.uint8)
    with atomic_path(path) as partial:
        Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(partial, "PNG")


def _name(source: bytes | Path | str, name: str | None) -> str:
    return name or ("image" if isinstance(source, bytes) else str(source))


def _decode_grey(
    source: bytes | Path | str,
    name: str | None,
    exact: bool = False,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Grey image (H, W) uint8, not inverted; `exact` allows only 0 and 65535 in 16-bit images."""
    label = _name(source, name)
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
            if exact and image.mode in _WIDE_MODES:
                return _narrow(np.asarray(image), label)
            return _to_grey(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGED) as error:
        # Pillow's message names the stream, which means nothing to a reader.
        reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
        raise MipError(
            f"{label}: cannot be read as an image (truncated, damaged or no PNG){reason}"
        ) from None
    except ValueError as error:
        raise MipError(f"{label}: cannot be read as an image: {error}") from None


def _narrow(wide: np.ndarray, label: str) -> np.ndarray:
    """Mask of 0 and 255, from a 16-bit one of 0 and 65535; MipError on other values."""
    values = np.unique(wide)
    if not np.isin(values, (0, 65535)).all():
        shown = ", ".join(str(v) for v in values if v not in (0, 65535))[:60]
        raise MipError(f"{label}: a 16-bit mask may hold only 0 and 65535, found also {shown}")
    return np.where(wide == 65535, 255, 0).astype(np.uint8)


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode in _WIDE_MODES:
        wide = np.asarray(image, np.float32)
        return np.rint(np.clip(wide, 0, 65535) / 257).astype(np.uint8)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    # Palette and colour: the mean of the colour channels; equal channels stay exactly as they are.
    colours = np.asarray(image.convert("RGBA"))[..., :3]
    first = colours[..., 0]
    if (colours == first[..., None]).all():
        return first
    return np.rint(colours.astype(np.float32).mean(-1)).astype(np.uint8)
