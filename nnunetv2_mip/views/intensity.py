"""The one intensity scale of all inputs: levels 0–255, bright is uptake.

SUV in [0, window] (clipped) and inverted 8-bit PNG brightness are mapped onto the same levels, in
conversion and at inference. Levels are whole numbers (uint8): a level of the default window is
0.04 SUV, far below PET noise, and PNGs have no more. Networks see them standardised by constants
of the data set (see `plans`), never divided by 255: nnU-Net's augmentations assume unit spread.
The channels CT and depth have scalings of their own onto the same levels.
"""

import numpy as np

from nnunetv2_mip.conventions import LEVEL_MAX

# The fixed scalings of the other channels: a level is 7.8 HU and 2.8 mm.
CT_RANGE_HU = (-1000.0, 1000.0)
DEPTH_RANGE_MM = 350.0


def levels_from_suv(suv: np.ndarray, window_suv: float) -> np.ndarray:
    """SUV of any shape to levels: 0 → 0, `window_suv` and above → 255, rounded to uint8."""
    # In place: fresh memory costs more than the arithmetic.
    scaled = np.array(suv, np.float32)
    scaled *= np.float32(LEVEL_MAX / window_suv)
    np.clip(scaled, 0, LEVEL_MAX, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def suv_from_levels(levels: np.ndarray, window_suv: float) -> np.ndarray:
    """The inverse of `levels_from_suv` up to rounding and saturation, float32."""
    return np.asarray(levels, np.float32) * np.float32(window_suv / LEVEL_MAX)


def ct_levels_from_hu(hu: np.ndarray) -> np.ndarray:
    """CT of any shape to levels: −1000 HU (air) → 0, 1000 HU (dense bone) → 255, uint8."""
    low, high = CT_RANGE_HU
    scaled = (np.asarray(hu, np.float32) - np.float32(low)) * np.float32(LEVEL_MAX / (high - low))
    return np.rint(np.clip(scaled, 0, LEVEL_MAX)).astype(np.uint8)


def levels_from_depth(depth_mm: np.ndarray) -> np.ndarray:
    """Depth of the winner (mm from the rotation centre, NaN where there is none) to levels.

    0 is no winner; −350 mm → 1, 350 mm → 255.
    """
    scaled = (depth_mm + np.float32(DEPTH_RANGE_MM)) * np.float32(
        (LEVEL_MAX - 1) / (2 * DEPTH_RANGE_MM)
    )
    levels = np.rint(np.clip(scaled, 0, LEVEL_MAX - 1)) + 1
    return np.where(np.isnan(levels), 0, levels).astype(np.uint8)
