"""From a request's text to levels, and from a mask to the reply's text."""

import base64
import binascii
import io
import re

import numpy as np
from PIL import Image

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.service.settings import Settings

# The decoders that strangers may reach. The competition sends PNG; the kits' decoder takes JPEG.
FORMATS = ("PNG", "JPEG")
_DATA_URI = re.compile(r"\s*data:[^,]{0,200},", re.IGNORECASE)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


def decode_base64(text: str) -> bytes:
    """The bytes of a base64 text, as forgiving as is safe.

    A data-URI prefix, white space, missing or surplus padding and the URL-safe alphabet are taken.

    Raises:
        MipError: empty, another character, or a length that no base64 text has.
    """
    prefix = _DATA_URI.match(text)
    body = text[prefix.end() :] if prefix else text
    body = "".join(body.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if not body:
        raise MipError("img: is empty; send a PNG as base64 text")
    strange = _NO_BASE64.search(body)
    if strange:
        raise MipError(
            f"img: is no base64 text (character {strange.group()!r} at {strange.start()})"
        )
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except binascii.Error:
        raise MipError(
            f"img: is no base64 text (its length of {len(body)} characters cannot be): cut off?"
        ) from None


def decode_image(text: str, settings: Settings) -> np.ndarray:
    """Levels (H, W) uint8, bright = uptake, of a base64 image.

    Raises:
        MipError: no base64, no image, damaged, or larger than is served.
    """
    return decode_bytes(decode_base64(text), settings)


def decode_bytes(content: bytes, settings: Settings) -> np.ndarray:
    """As `decode_image`, from the file's bytes."""
    levels = decode_png(content, "img", settings.polarity, settings.max_pixels, FORMATS)
    if max(levels.shape) > settings.max_side_px:
        rows, columns = levels.shape
        raise MipError(
            f"img: {columns}x{rows} pixels; sides of up to {settings.max_side_px} are served"
        )
    return levels


def mask_png(mask: np.ndarray) -> bytes:
    """The reply's PNG: (H, W, 3) uint8, three equal channels, 255 where `mask` (H, W) is not 0."""
    white = (np.asarray(mask) != 0).astype(np.uint8) * np.uint8(255)
    stream = io.BytesIO()
    # Two values: the fastest compression is as good as the best.
    Image.fromarray(np.repeat(white[..., None], 3, axis=2)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def encode_mask(mask: np.ndarray) -> str:
    """The reply's text: `mask_png` as base64."""
    return base64.b64encode(mask_png(mask)).decode("ascii")
