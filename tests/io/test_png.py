"""PNG decoder, masks in PNGs, and the intensity levels of images."""

import io

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.dataset_conversion.body_statistics import BodyStatistics
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.png import decode_png, image_warning, read_png
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
        # A gradient of alpha is no transparency.
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


def picture() -> np.ndarray:
    """Grey MIP-PET image (H, W): white air, a body and a hot spot."""
    grey = np.full((80, 60), 255, np.uint8)
    grey[8:72, 12:48] = 200
    grey[20:24, 20:26] = 20
    return grey


def transparent_air(kind: str) -> Image.Image:
    """The picture with transparent air, as editors and optimisers of PNG write it."""
    grey = picture()
    alpha = np.where(grey == 255, 0, 255).astype(np.uint8)
    hidden = np.where(alpha == 0, 0, grey).astype(np.uint8)
    if kind == "RGBA":
        return Image.fromarray(np.dstack([hidden] * 3 + [alpha]))
    if kind == "LA":
        return Image.merge("LA", [Image.fromarray(hidden), Image.fromarray(alpha)])
    if kind == "half":
        return Image.fromarray(np.dstack([grey * 0] * 3 + [255 - grey]))
    image = Image.fromarray(hidden)
    if kind == "palette":
        image = image.convert("RGB").quantize(8)
        image.info["transparency"] = image.getpixel((0, 0))
    else:
        image.info["transparency"] = 0
        image = image.convert("RGB") if kind == "RGB key" else image
        image.info["transparency"] = (0, 0, 0) if kind == "RGB key" else 0
    return image


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "grey key", "RGB key", "half"])
def test_transparent_air_is_white(kind):
    image = transparent_air(kind)
    content = io.BytesIO()
    image.save(
        content,
        "PNG",
        **({"transparency": t} if (t := image.info.get("transparency")) is not None else {}),
    )
    found = read_png(content.getvalue())
    np.testing.assert_array_equal(found.levels, 255 - picture())
    assert found.warnings == ()


def test_soft_edges_are_blended_with_white():
    grey = picture()
    alpha = np.where(grey == 255, 0, 255).astype(np.uint8)
    alpha[8, 12:48] = 128
    pixels = np.dstack([np.where(alpha < 255, 0, grey).astype(np.uint8)] * 3 + [alpha])
    levels = decode_png(png_bytes(Image.fromarray(pixels)))
    assert (levels[8, 12:48] == 128).all() and (levels[:8] == 0).all() and levels[21, 21] == 235


def test_random_alpha_is_no_transparency():
    alpha = np.random.default_rng(0).integers(0, 256, (80, 60)).astype(np.uint8)
    image = Image.merge("LA", [Image.fromarray(picture()), Image.fromarray(alpha)])
    np.testing.assert_array_equal(decode_png(png_bytes(image)), 255 - picture())


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_a_16_bit_file_are_read_as_such_and_told(bits):
    wide = (picture().astype(np.uint32) * 257 >> (16 - bits)).astype(np.uint16)
    found = read_png(png_bytes(Image.fromarray(wide)), polarity="auto")
    np.testing.assert_array_equal(found.levels, 255 - picture())
    (line,) = found.warnings
    assert line.startswith(f"holds {bits} bits in 16 (its highest value is {wide.max()})")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_fewer_bits_in_colours_of_16_bits_are_read_too(mode):
    wide = picture().astype(np.uint16) * 16
    opaque = np.full_like(wide, 65535)
    channels = {"RGB": [wide] * 3, "RGBA": [*[wide] * 3, opaque], "LA": [wide, opaque]}[mode]
    found = read_png(imagecodecs.png_encode(np.dstack(channels)))
    np.testing.assert_array_equal(found.levels, 255 - picture())
    assert ["holds 12 bits in 16" in line for line in found.warnings] == [True]
    whole = picture().astype(np.uint16) * 257
    channels = {"RGB": [whole] * 3, "RGBA": [*[whole] * 3, opaque], "LA": [whole, opaque]}[mode]
    sound = read_png(imagecodecs.png_encode(np.dstack(channels)))
    np.testing.assert_array_equal(sound.levels, 255 - picture())
    assert sound.warnings == ()


def test_16_bit_images_with_all_bits_or_dark_air_are_left_alone():
    whole = picture().astype(np.uint16) * 257
    assert read_png(png_bytes(Image.fromarray(whole))).warnings == ()
    dim = (255 - picture()).astype(np.uint16) * 4
    found = read_png(png_bytes(Image.fromarray(dim)), polarity="bright")
    np.testing.assert_array_equal(found.levels, np.rint(dim / 257))
    inverted = read_png(png_bytes(Image.fromarray(255 - picture())))
    assert ["border is dark" in line for line in inverted.warnings] == [True]


@pytest.mark.parametrize(("air", "told"), [(255, False), (230, False), (160, True)])
def test_grey_air_is_told(air, told):
    grey = np.full((300, 200), air, np.uint8)
    grey[50:250, 50:150] = 60
    line = image_warning(255 - grey)
    assert (line is not None and "air is white" in line) == told


@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_a_colour_map_is_told_and_a_tint_is_not(mode):
    grey = np.full((300, 200), 255, np.uint8)
    grey[50:250, 50:150] = 60
    mapped = np.dstack([grey, 255 - grey, np.full_like(grey, 40)])
    tinted = np.dstack([grey, grey, grey - 9])
    for colours, told in ((mapped, True), (tinted, False)):
        stream = io.BytesIO()
        image = Image.fromarray(colours)
        (image.quantize(8) if mode == "P" else image).save(stream, "PNG")
        lines = read_png(stream.getvalue()).warnings
        assert any("is in colour" in line for line in lines) == told
