"""Masks in PNG files: served where they are clear, else refused by what the file holds."""

import io

import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.png_masks import decode_mask_png, decode_truth_png

MASK = np.zeros((5, 6), np.uint8)
MASK[1:3, 2:5] = 1
RED, BLACK, WHITE = (255, 0, 0), (0, 0, 0), (255, 255, 255)


def png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def painted(inside: tuple, outside: tuple) -> bytes:
    """PNG with one colour (grey, RGB or RGBA) in the mask and one around it."""
    colours = np.where(MASK[..., None] > 0, np.array(inside), np.array(outside)).astype(np.uint8)
    return png(Image.fromarray(colours[..., 0] if len(inside) == 1 else colours))


def palette(*colours: tuple) -> Image.Image:
    image = Image.new("P", MASK.shape[::-1])
    image.putdata(MASK.ravel().tolist())
    image.putpalette([value for colour in colours for value in colour])
    return image


MASKS = {
    "white on black": painted((255,), (0,)),
    "white on black, RGB": painted(WHITE, BLACK),
    "white on black, opaque": painted((*WHITE, 255), (*BLACK, 255)),
    "white on black, all transparent": painted((*WHITE, 0), (*BLACK, 0)),
    "red on black": painted(RED, BLACK),
    "red on black, opaque": painted((*RED, 255), (*BLACK, 255)),
    "red on a transparent ground": painted((*RED, 255), (*BLACK, 0)),
    "red on transparent red": painted((*RED, 255), (*RED, 0)),
    "half red on a transparent ground": painted((*RED, 128), (*BLACK, 0)),
    "white on a transparent ground": painted((*WHITE, 255), (*BLACK, 0)),
    "white on transparent white": painted((*WHITE, 255), (*WHITE, 0)),
    "black on transparent black": painted((*BLACK, 255), (*BLACK, 0)),
    "palette": png(palette(BLACK, RED)),
    "palette with transparency": png(palette(BLACK, RED), transparency=0),
    "black and white palette": png(palette(BLACK, WHITE)),
    "1 bit": png(Image.fromarray(MASK > 0)),
    "16 bit": png(Image.fromarray(MASK.astype(np.uint16) * 65535)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_two_colours_or_two_opacities_are_a_mask(kind):
    np.testing.assert_array_equal(decode_mask_png(MASKS[kind]), MASK)


def soft_alpha() -> bytes:
    alpha = MASK * 255
    alpha[2, 2] = 100
    return png(Image.fromarray(np.dstack([MASK * 0, MASK * 0, MASK * 0, alpha])))


REFUSED = {
    "found also 128$": painted((128,), (0,)),
    "found also 1$": painted((1,), (0,)),
    "found also 254$": painted((254, 254, 254), BLACK),
    r"holds 2 colours \(red, green, blue\): \(255, 0, 0\), \(255, 255, 255\)": painted(RED, WHITE),
    r"\(1, 2, 3\), \(68, 1, 84\); a mask is white on black": painted((68, 1, 84), (1, 2, 3)),
    "is black where it is opaque": painted((*BLACK, 255), (*WHITE, 0)),
    "its opacity has 3 levels": soft_alpha(),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_clear_is_refused_by_what_the_file_holds(reason):
    with pytest.raises(MipError, match=rf"^m\.png: .*{reason}"):
        decode_mask_png(REFUSED[reason], "m.png")


def test_soft_edges_in_colour_are_refused():
    colours = np.zeros((5, 6, 3), np.uint8)
    colours[..., 0] = MASK * 255
    colours[3, 3, 0] = 90
    with pytest.raises(MipError, match=r"\(90, 0, 0\), \(255, 0, 0\)"):
        decode_mask_png(png(Image.fromarray(colours)))


def test_many_levels_of_opacity_over_black_and_white_are_ignored():
    alpha = np.arange(30, dtype=np.uint8).reshape(5, 6)
    image = Image.merge("LA", [Image.fromarray(MASK * 255), Image.fromarray(alpha)])
    np.testing.assert_array_equal(decode_mask_png(png(image)), MASK)


def test_one_colour_everywhere_is_empty_or_full():
    assert not decode_mask_png(png(Image.new("RGB", (4, 3), BLACK))).any()
    assert decode_mask_png(png(Image.new("RGB", (4, 3), WHITE))).all()
    with pytest.raises(MipError, match=r"\(255, 0, 0\)"):
        decode_mask_png(png(Image.new("RGB", (4, 3), RED)))


def test_an_inverted_truth_is_named():
    inverted = painted((0,), (255,))
    with pytest.raises(MipError, match="is the mask inverted"):
        decode_truth_png(inverted)
    # A prediction may be anything.
    np.testing.assert_array_equal(decode_mask_png(inverted), 1 - MASK)
    for kind in ("white on black", "red on black"):
        np.testing.assert_array_equal(decode_truth_png(MASKS[kind]), MASK)
    assert decode_truth_png(png(Image.new("L", (4, 3), 255))).all()
