"""Intensity scale of all inputs: levels 0 to 255, bright is uptake.

SUV in [0, window] (clipped) and inverted 8-bit PNG brightness are mapped onto the same levels, in
conversion and at inference. Levels are whole numbers (uint8). A level of the default window is
0.04 SUV, far below PET noise; PNGs have the same resolution. Networks get levels standardised by
constants of the data set (see `plans`). They are never only divided by 255, because nnU-Net's
augmentations assume unit spread. The channels CT and depth have fixed scalings of their own.
"""

import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX

# Fixed scalings of the other channels. A level is 7.8 HU and 2.8 mm.
CT_RANGE_HU = (-1000.0, 1000.0)
DEPTH_RANGE_MM = 350.0


def levels_from_suv(suv: np.ndarray, window_suv: float) -> np.ndarray:
    """Levels of an SUV array of any shape, uint8: 0 → 0, `window_suv` and above → 255, rounded."""
    # In place, since new memory costs more time than the arithmetic.
    scaled = np.array(suv, np.float32)
    scaled *= np.float32(LEVEL_MAX / window_suv)
    np.clip(scaled, 0, LEVEL_MAX, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def ct_levels_from_hu(hu: np.ndarray) -> np.ndarray:
    """Levels of a CT of any shape, uint8: −1000 HU (air) → 0, 1000 HU (dense bone) → 255."""
    low, high = CT_RANGE_HU
    scaled = (np.asarray(hu, np.float32) - np.float32(low)) * np.float32(LEVEL_MAX / (high - low))
    return np.rint(np.clip(scaled, 0, LEVEL_MAX)).astype(np.uint8)


def levels_from_depth(depth_mm: np.ndarray) -> np.ndarray:
    """Levels of the depth of the ray maximum, uint8: −350 mm → 1, 350 mm → 255.

    Args:
        depth_mm: mm along the ray from the rotation centre, any shape. NaN, where the ray meets
            nothing above 0, becomes level 0.
    """
    scaled = (depth_mm + np.float32(DEPTH_RANGE_MM)) * np.float32(
        (LEVEL_MAX - 1) / (2 * DEPTH_RANGE_MM)
    )
    levels = np.rint(np.clip(scaled, 0, LEVEL_MAX - 1)) + 1
    return np.where(np.isnan(levels), 0, levels).astype(np.uint8)
