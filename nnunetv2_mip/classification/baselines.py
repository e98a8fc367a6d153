"""Baseline features that hold nothing of the inside of the body: an image's height and margins.

Cohorts differ in the axial extent of the scans. A classifier of lesions has to score better than
one of these features; where both score alike, the score comes from the cohort, not from lesions.
"""

import numpy as np

from nnunetv2_mip.conventions import BODY_LEVEL, LEVEL_MAX

# Centres and width of radial basis functions of the height.
BUMP_MM = 40.0
BUMPS_MM = np.arange(400.0, 2200.0, BUMP_MM)
# Width of the bins within which heights are matched (20 pixels of a DM-i-AI image).
BIN_MM = 40.0


def image_height_mm(levels: np.ndarray, pixel_mm: tuple[float, float]) -> float:
    """Height in mm of the views of a stack (…, H, W); `pixel_mm` is (row, column)."""
    return levels.shape[-2] * pixel_mm[0]


def height_features(levels: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """Features of the image's height alone, as a bag (1, 1, F)."""
    height = image_height_mm(levels, pixel_mm)
    bumps = np.exp(-0.5 * ((height - BUMPS_MM) / BUMP_MM) ** 2)
    return np.array([height / 1000, *bumps], np.float32)[None, None]


def margin_features(levels: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """Features of height, margins and background, as a bag (1, 1, F).

    Margins: whether the outermost rows and columns hold uptake, the empty rows and columns at every
    side, the share of the background and of exact zeros, the body's width, and the number of levels
    that occur.
    """
    views = (levels if levels.ndim == 3 else levels[0]).astype(np.float32)
    body = (views > BODY_LEVEL).mean(0)
    rows, columns = np.flatnonzero(body.any(1)), np.flatnonzero(body.any(0))
    height, width = body.shape
    own = [
        *(float(edge.any()) for edge in (body[0], body[-1], body[:, 0], body[:, -1])),
        *((rows[0], height - 1 - rows[-1]) if len(rows) else (height, height)),
        *((columns[0], width - 1 - columns[-1]) if len(columns) else (width, width)),
        width * pixel_mm[1],
        len(columns) * pixel_mm[1],
        float((body == 0).mean()),
        float((views == 0).mean()),
        float(np.unique(views).size / LEVEL_MAX),
    ]
    height_bag = height_features(levels, pixel_mm)
    return np.concatenate([height_bag, np.array(own, np.float32)[None, None]], axis=-1)
