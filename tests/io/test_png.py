"""PNG decoder, masks in PNGs, and the intensity levels of images."""

import io

import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.dataset_conversion.body_statistics import BodyStatistics
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.png import decode_png, image_warning
from nnunetv2_mip.io.png_masks import decode_mask_png, write_mask_png
from nnunetv2_mip.views.intensity import levels_from_suv

GREY = np.array([[0, 50, 100], [150, 200, 255]], np.uint8)


def png_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def in_mode(mode: str) -> Image.Image:
    grey = Image.fromarray(GREY)
    if mode == "RGBA transparent":
        # Alpha is never signal, not even where it says "invisible".
        return Image.merge("RGBA", [grey] * 3 + [Image.fromarray(255 - GREY)])
    if mode == "LA":
        return Image.merge("LA", [grey, Image.fromarray(255 - GREY)])
    if mode == "P":
        return grey.convert("P")
    if mode == "16 bit":
        return Image.fromarray(GREY.astype(np.uint16) * 257)
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "RGBA transparent", "LA", "P", "16 bit"])
def test_every_mode_gives_the_same_levels_bright_where_the_png_is_dark(mode):
    assert np.array_equal(decode_png(png_bytes(in_mode(mode))), 255 - GREY)


def test_one_bit_images_are_black_and_white():
    image = Image.fromarray(np.array([[True, False]]))
    assert decode_png(png_bytes(image)).tolist() == [[0, 255]]


def test_masks_hold_0_and_255_only(tmp_path):
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    write_mask_png(mask, tmp_path / "m.png")
    stored = np.asarray(Image.open(tmp_path / "m.png"))
    assert stored.tolist() == [[0, 255], [255, 0]]
    assert np.array_equal(decode_mask_png(tmp_path / "m.png"), mask)
    Image.fromarray(np.array([[0, 128]], np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(MipError, match=r"grey\.png.*0 and 255.*128"):
        decode_mask_png(tmp_path / "grey.png")


def test_16_bit_masks_are_0_and_65535(tmp_path):
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "wide.png")
    assert decode_mask_png(tmp_path / "wide.png").tolist() == [[0, 1]]
    Image.fromarray(np.array([[0, 100]], np.uint16)).save(tmp_path / "dim.png")
    with pytest.raises(MipError, match="65535, found also 100"):
        decode_mask_png(tmp_path / "dim.png")


@pytest.mark.parametrize("content", [b"", b"no image", png_bytes(Image.fromarray(GREY))[:40]])
def test_what_is_no_png_is_refused(content, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(MipError, match=r"bad\.png"):
        decode_png(path)


def test_suv_and_png_meet_on_one_scale():
    levels = levels_from_suv(np.array([0.0, 5.0, 10.0, 40.0]), 10.0)
    assert levels.dtype == np.uint8
    assert levels.tolist() == [0, 128, 255, 255]
    # A PNG made from the same SUV (inverted, 8 bit) decodes to the same levels.
    as_png = png_bytes(Image.fromarray((255 - levels)[None]))
    assert np.array_equal(decode_png(as_png)[0], levels)
    assert np.abs(levels[:3] * (10 / 255) - [0, 5, 10]).max() <= 10 / 255 / 2 + 1e-6


def test_body_statistics_are_those_of_the_body_and_add_up():
    first, second = np.array([0, 0, 1, 2, 10, 20], np.uint8), np.array([30, 0], np.uint8)
    both = BodyStatistics.of_levels(first) + BodyStatistics.of_levels(second)
    assert both.count == 3
    assert both.mean == pytest.approx(20.0)
    assert both.std == pytest.approx(np.std([10, 20, 30]))
    assert BodyStatistics(*both.to_list()).mean == both.mean


def test_images_that_are_no_mip_pet_are_told_apart():
    grey = np.random.default_rng(0).integers(0, 40, (80, 50), dtype=np.uint8)
    assert image_warning(grey) is None
    assert image_warning(grey[:29]).startswith("has 29 rows of 50 pixels")
    assert "border is dark" in image_warning(255 - grey)
    assert "mask" in image_warning(np.where(grey > 20, 255, 0).astype(np.uint8))
    # A blank image is blank, whatever it is.
    assert image_warning(np.zeros((80, 50), np.uint8)) is None
