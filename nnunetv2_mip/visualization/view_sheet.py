"""View sheet: all views of a stack side by side in one image, cut apart again by the page."""

import io

import numpy as np
from PIL import Image

# Views in a row of the sheet; the page and the report get `min(views, SHEET_COLUMNS)`.
SHEET_COLUMNS = 8


def view_sheet(stack: np.ndarray) -> np.ndarray:
    """Sheet of views, `SHEET_COLUMNS` in a row, row by row.

    Args:
        stack: (V, H, W) uint8.

    Returns:
        (rows of views · H, columns of views · W) uint8, 0 where the last row has no view.
    """
    views, rows, columns = stack.shape
    across = min(views, SHEET_COLUMNS)
    down = -(-views // across)
    sheet = np.zeros((down * across, rows, columns), np.uint8)
    sheet[:views] = stack
    sheet = sheet.reshape(down, across, rows, columns).transpose(0, 2, 1, 3)
    return sheet.reshape(down * rows, across * columns)


def view_sheet_png(stack: np.ndarray) -> bytes:
    """View sheet of a stack (V, H, W) uint8 as a grey PNG, compressed for speed."""
    stream = io.BytesIO()
    Image.fromarray(view_sheet(stack)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
