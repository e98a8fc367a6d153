"""Many views in one picture: what pages take apart again in the browser."""

import io

import numpy as np
from PIL import Image

# Views side by side; a page is told `min(views, SPRITE_COLUMNS)`.
SPRITE_COLUMNS = 8


def sprite_sheet(stack: np.ndarray) -> np.ndarray:
    """Views (V, H, W) uint8 side by side, `SPRITE_COLUMNS` a row, the rest of the last row 0."""
    views, rows, columns = stack.shape
    across = min(views, SPRITE_COLUMNS)
    down = -(-views // across)
    sheet = np.zeros((down * across, rows, columns), np.uint8)
    sheet[:views] = stack
    sheet = sheet.reshape(down, across, rows, columns).transpose(0, 2, 1, 3)
    return sheet.reshape(down * rows, across * columns)


def sprite(stack: np.ndarray) -> bytes:
    """`sprite_sheet` as a grey PNG, quickly compressed."""
    stream = io.BytesIO()
    Image.fromarray(sprite_sheet(stack)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
