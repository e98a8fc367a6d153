"""Masks in PNG files: white is tumour; two colours, or two levels of transparency, are one too."""

from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path
from nnunetv2_mip.io.png import MAX_PIXELS, WIDE_MODES, opened_png, png_name
from nnunetv2_mip.wording import counted

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Colours that a message names.
_SHOWN = 4


def decode_mask_png(source: bytes | Path | str, name: str | None = None) -> np.ndarray:
    """Mask (H, W) uint8 of 0 and 1, from a PNG of any mode.

    Tumour is

    - white on black: 255 in an 8-bit image, 65535 in a 16-bit one;
    - one colour on black;
    - what is opaque on a transparent ground, in one colour, or in one beside black.

    Raises:
        MipError: as `png.decode_png`, or what is tumour is not clear; names the colours.
    """
    label = png_name(source, name)
    with opened_png(source, label, MAX_PIXELS) as image:
        if image.mode in WIDE_MODES:
            return _of_wide(np.asarray(image), label)
        if image.mode in ("1", "L") and "transparency" not in image.info:
            grey = np.asarray(image.convert("L"))
            if np.isin(np.unique(grey), (0, 255)).all():
                return (grey == 255).astype(np.uint8)
        pixels = np.asarray(image.convert("RGBA"))
    return _of_colours(pixels[..., :3], pixels[..., 3], label).astype(np.uint8)


def decode_truth_png(source: bytes | Path | str, name: str | None = None) -> np.ndarray:
    """Mask (H, W) uint8 of a lesion as a reader drew it: air lies around it.

    Raises:
        MipError: as `decode_mask_png`, or the mask is inverted: its whole border is tumour.
    """
    mask = decode_mask_png(source, name)
    if is_inverted(mask):
        raise MipError(
            f"{png_name(source, name)}: is white all along its border and black within, and white "
            "is tumour; is the mask inverted?"
        )
    return mask


def is_inverted(mask: np.ndarray) -> bool:
    """Whether all pixels at the border of a mask (H, W) are set, and some within are not."""
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return all(bool(side.all()) for side in border) and not bool(mask.all())


def write_mask_png(mask: np.ndarray, path: Path | str) -> None:
    """Write a mask (H, W) as an 8-bit grey PNG, 255 where `mask` is non-zero."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray((np.asarray(mask) != 0).astype(np.uint8) * 255).save(partial, "PNG")


def _of_wide(wide: np.ndarray, label: str) -> np.ndarray:
    """Mask of a 16-bit image of 0 and 65535; MipError on other values."""
    values = np.unique(wide)
    if not np.isin(values, (0, 65535)).all():
        shown = ", ".join(str(v) for v in values if v not in (0, 65535))[:60]
        raise MipError(f"{label}: a 16-bit mask may hold only 0 and 65535, found also {shown}")
    return (wide == 65535).astype(np.uint8)


def _of_colours(colours: np.ndarray, alpha: np.ndarray, label: str) -> np.ndarray:
    """Mask (H, W) bool of colours (H, W, 3) and opacity (H, W), uint8."""
    levels = np.unique(alpha)
    everywhere = np.ones(alpha.shape, bool)
    if len(levels) == 1:
        # The same everywhere, so it tells nothing.
        return _of_visible(colours, everywhere, label)
    found = _colours_of(colours)
    if len(levels) == 2:
        visible = alpha == levels[1]
        shown, hidden = _colours_of(colours[visible]), _colours_of(colours[~visible])
        if shown == [BLACK] and hidden != [BLACK]:
            raise MipError(
                f"{label}: is black where it is opaque and of another colour where it is "
                "transparent; a mask is white on black, or of one colour on a transparent ground"
            )
        if len(shown) == 1:
            return visible
        return _of_visible(colours, visible, label)
    if set(found) == {BLACK, WHITE}:
        # Many levels of opacity are no mask: its colours are.
        return _of_visible(colours, everywhere, label)
    if len(found) == 1:
        raise MipError(
            f"{label}: its opacity has {counted(len(levels), 'level')}; a mask has two, and no "
            "soft edges"
        )
    raise MipError(
        f"{label}: is partly transparent ({counted(len(levels), 'level')}) and holds "
        f"{counted(len(found), 'colour')}; a "
        "mask is white on black, or of one colour on a transparent ground"
    )


def _of_visible(colours: np.ndarray, visible: np.ndarray, label: str) -> np.ndarray:
    """Mask (H, W) bool of the visible pixels: white, or one colour, beside black."""
    found = [colour for colour in _colours_of(colours[visible]) if colour != BLACK]
    greys = [colour[0] for colour in found if len(set(colour)) == 1]
    if not found:
        return np.zeros(visible.shape, bool)
    has_black = len(found) < len(_colours_of(colours[visible]))
    is_colour = len(found) == 1 and not greys and (has_black or not visible.all())
    if found == [WHITE] or is_colour:
        return visible & (colours == np.array(found[0], np.uint8)).all(-1)
    if len(greys) == len(found):
        shown = ", ".join(str(value) for value in greys if value != 255)[:60]
        raise MipError(f"{label}: a mask may hold only 0 and 255, found also {shown}")
    shown = ", ".join(str(colour) for colour in found[:_SHOWN]) + ", …" * (len(found) > _SHOWN)
    beside = " beside black" if has_black else ""
    raise MipError(
        f"{label}: holds {counted(len(found), 'colour')}{beside} (red, green, blue): {shown}; a "
        "mask is white "
        "on black, or one colour on black"
    )


def _colours_of(colours: np.ndarray) -> list[tuple[int, int, int]]:
    """The different colours of pixels (…, 3), in a fixed order."""
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    return [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in np.unique(packed)]
