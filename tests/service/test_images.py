"""Predictions of the service for images of all kinds, and its refusals."""

import base64
import json
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.service.settings import Settings

from .conftest import GREY, KINDS, accepted, grey_image, image_body, png, rgb


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_png_gives_the_same_mask(service, reference, kind):
    levels = decode_png(KINDS[kind])
    assert np.array_equal(levels, 255 - GREY)
    assert np.array_equal(accepted(service.predict(KINDS[kind]), KINDS[kind]), reference(levels))


def test_the_reference_marks_something_and_not_everything(reference):
    assert 0 < reference(255 - GREY).sum() < GREY.size


ODD = {
    "1 bit": png(Image.fromarray(GREY).convert("1")),
    "unequal channels": png(np.stack([GREY, GREY // 2, 255 - GREY], axis=2)),
    "inverted": png(rgb(255 - GREY)),
    "all white": png(rgb(np.full_like(GREY, 255))),
    "all black": png(rgb(np.zeros_like(GREY))),
    "all grey": png(rgb(np.full_like(GREY, 128))),
    "one pixel": png(rgb(GREY[:1, :1])),
    "one row": png(rgb(GREY[:1])),
    "one column": png(rgb(GREY[:, :1])),
    "mirrored": png(rgb(GREY[:, ::-1])),
    "upside down": png(rgb(GREY[::-1])),
    "larger than in training": png(rgb(grey_image(991, 400))),
    "wider than high": png(rgb(grey_image(50, 333))),
    "interlaced JPEG": png(rgb(GREY), format="JPEG"),
    "transparent colour": png(Image.fromarray(rgb(GREY)), transparency=(200, 200, 200)),
    "impulse noise": png(
        rgb(np.where(np.random.default_rng(2).random(GREY.shape) < 0.1, 0, GREY).astype(np.uint8))
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_get_a_valid_mask(service, kind):
    accepted(service.predict(ODD[kind]), ODD[kind])


WARNED = {
    "inverted": "its border is dark",
    "12 bits in 16": "holds 12 bits in 16",
    "mask": "holds black and white alone",
}


@pytest.mark.parametrize("kind", WARNED)
def test_doubtful_images_are_answered_with_a_header(service, kind):
    content = {
        "inverted": ODD["inverted"],
        "12 bits in 16": png(Image.fromarray(GREY.astype(np.uint16) * 16)),
        "mask": png(np.where(GREY > 250, 255, 0).astype(np.uint8)),
    }[kind]
    answer = service.predict(content)
    accepted(answer, content)
    assert WARNED[kind] in answer.headers["X-MIP-Warning"]
    assert set(answer.json()) == {"img", "classification"}


def test_sound_images_get_no_warning_and_transparent_air_is_air(service, reference):
    assert "X-MIP-Warning" not in service.predict(KINDS["RGB"]).headers
    alpha = np.where(GREY == 255, 0, 255).astype(np.uint8)
    clear = np.dstack([np.where(alpha == 0, 0, GREY).astype(np.uint8)] * 3 + [alpha])
    answer = service.predict(png(clear))
    assert "X-MIP-Warning" not in answer.headers
    assert np.array_equal(accepted(answer, png(clear)), reference(255 - GREY))


TEXTS = {
    "data URI": lambda text: f"data:image/png;base64,{text}",
    "white space": lambda text: (
        " \n" + "\r\n".join(text[k : k + 76] for k in range(0, len(text), 76))
    ),
    "no padding": lambda text: text.rstrip("="),
    "surplus padding": lambda text: text + "===",
    "URL-safe": lambda text: text.replace("+", "-").replace("/", "_"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_base64_of_every_kind(service, reference, kind):
    # Sizes that need padding, so that its absence shows.
    sent = next(
        png(rgb(grey_image(seed=s))) for s in range(9) if len(png(rgb(grey_image(seed=s)))) % 3
    )
    text = TEXTS[kind](base64.b64encode(sent).decode())
    found = accepted(service.post(json.dumps({"img": text}).encode()), sent)
    assert np.array_equal(found, reference(decode_png(sent)))


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_with_any_content_type(service, kind):
    headers = {"Content-Type": kind} if kind else {}
    url = service.url + "/predict"
    answer = httpx.post(url, content=image_body(KINDS["RGB"]), headers=headers)
    accepted(answer, KINDS["RGB"])


def bomb(side: int = 60_000) -> bytes:
    """PNG whose header gives `side` pixels of width and height."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


BAD = {
    "empty body": (b"", 422, "img"),
    "no JSON": (b'{"img": ', 400, "JSON"),
    "deep JSON": (b"[" * 50_000, 400, "body"),
    "not UTF-8": (b'\xff\xfe{"img": "a"}', 400, "JSON"),
    "a list": (b'["a"]', 422, "img"),
    "no img": (b'{"image": "a"}', 422, "img"),
    "a number": (b'{"img": 5}', 422, "string"),
    "null": (b'{"img": null}', 422, "string"),
    "empty img": (b'{"img": ""}', 422, "empty"),
    "no base64": (b'{"img": "!!!!"}', 422, "base64"),
    "impossible length": (b'{"img": "AAAAA"}', 422, "base64"),
    "lone surrogate": (b'{"img": "\\ud800"}', 422, "base64"),
    "no image": (image_body(b"hello world, I am text"), 422, "image"),
    "truncated": (image_body(KINDS["RGB"][: len(KINDS["RGB"]) // 2]), 422, "truncated"),
    "decompression bomb": (image_body(bomb()), 422, "pixels"),
    "too many pixels": (image_body(bomb(2_000)), 422, "pixels"),
    "too long": (image_body(png(np.zeros((5_000, 3), np.uint8))), 422, "sides"),
    "SVG": (image_body(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 422, "image"),
    "GIF": (image_body(png(Image.fromarray(GREY), format="GIF")), 422, "image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_requests_get_a_clear_reason(service, kind):
    body, status, reason = BAD[kind]
    answer = service.post(body)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert reason in detail
    # One line that repeats nothing of the content sent.
    assert len(detail) < 500 and "\n" not in detail and " object at 0x" not in detail


def test_never_empty_marks_the_most_likely_region(run_service, tiny_predictor):
    strict = tiny_predictor.override(threshold=0.999)
    with run_service(strict, Settings()) as service:
        assert not accepted(service.predict(KINDS["RGB"]), KINDS["RGB"]).any()
        assert "mip_empty_masks_total 1.0" in httpx.get(service.url + "/metrics").text
    with run_service(strict, Settings(never_empty=True)) as service:
        assert accepted(service.predict(KINDS["RGB"]), KINDS["RGB"]).any()


def test_polarity_on_request(run_service, tiny_predictor, reference):
    inverted = png(rgb(255 - GREY))
    with run_service(tiny_predictor, Settings(polarity="auto")) as service:
        for sent in (inverted, KINDS["RGB"]):
            assert np.array_equal(accepted(service.predict(sent), sent), reference(255 - GREY))


def test_the_mask_is_that_of_the_predictor(service, tiny_predictor):
    """Same mask from the service as from the predictor with the settings of `inference.json`."""
    sent = png(rgb(grey_image(120, 90, seed=5)))
    probability = tiny_predictor.predict_image(decode_png(sent))[1]
    expected = mask_of_view(probability, tiny_predictor.config) == 1
    assert np.array_equal(accepted(service.predict(sent), sent), expected)
