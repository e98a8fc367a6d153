"""Image codec of the service: base64 text to image levels, and a mask to base64 text."""

import base64
import binascii
import io
import re

import numpy as np
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.png import PngImage, read_png
from nnunetv2_mip.service.settings import Settings

# Decoders open to the network. DM i AI sends PNG; the decoder of its starter kit takes JPEG too.
FORMATS = ("PNG", "JPEG")
_DATA_URI = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


def decode_base64(text: str) -> bytes:
    """Bytes of a base64 text, in any of its usual forms.

    Accepted are a data-URI prefix, white space, missing or surplus padding and the URL-safe
    alphabet.

    Raises:
        MipError: the text is empty, has another character, or has an impossible length.
    """
    prefix = _DATA_URI.match(text)
    body = text[prefix.end() :] if prefix else text
    body = "".join(body.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if not body:
        raise MipError("img: is empty; send a PNG as base64 text")
    wrong = _NOT_BASE64.search(body)
    if wrong:
        raise MipError(f"img: is no base64 text (character {wrong.group()!r} at {wrong.start()})")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error:
        raise MipError(
            f"img: is no base64 text (its length of {len(body)} characters cannot be): cut off?"
        ) from None


def decode_image(text: str, settings: Settings) -> PngImage:
    """Image of a base64 text: levels (H, W) uint8, bright is uptake, and warnings.

    Raises:
        MipError: the text is no base64, no image, damaged, or larger than the limits.
    """
    return decode_bytes(decode_base64(text), settings)


def decode_bytes(content: bytes, settings: Settings) -> PngImage:
    """Image of the bytes of a file: levels (H, W) uint8, bright is uptake, and warnings.

    Raises:
        MipError: the bytes are no image, damaged, or larger than the limits.
    """
    image = read_png(content, "img", settings.polarity, settings.max_pixels, FORMATS)
    rows, columns = image.levels.shape
    if max(rows, columns) > settings.max_side_px:
        raise MipError(
            f"img: {columns}x{rows} pixels; sides of up to {settings.max_side_px} are served"
        )
    return image


def mask_png(mask: np.ndarray) -> bytes:
    """PNG of a mask (H, W): (H, W, 3) uint8, three equal channels, 255 where `mask` is not 0."""
    white = (np.asarray(mask) != 0).astype(np.uint8) * np.uint8(255)
    stream = io.BytesIO()
    # An image of two values: the fastest compression is as good as the best.
    Image.fromarray(np.repeat(white[..., None], 3, axis=2)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def encode_mask(mask: np.ndarray) -> str:
    """Base64 text of `mask_png`."""
    return base64.b64encode(mask_png(mask)).decode("ascii")
