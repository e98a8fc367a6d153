"""Resampling of views to square pixels of a chosen size, and back onto the detector.

The detector's pixels follow the scanner (row = slice, column = bin). Resampled views keep their
centre: pixel (r, c) of H × W lies at (r − (H − 1) / 2, c − (W − 1) / 2) pixels from it, on both
grids.
"""

import numpy as np

from nnunetv2_mip.conventions import VIEW_AXIS_SPACING_MM
from nnunetv2_mip.views.geometry import ViewGeometry


def view_shape(geometry: ViewGeometry, pixel_mm: float | None) -> tuple[int, int, int]:
    """Shape (V, H, W) of the views in pixels of `pixel_mm` (None: the detector's own)."""
    if pixel_mm is None:
        return geometry.stack_shape
    row_mm, column_mm = geometry.pixel_mm
    return (
        geometry.views,
        max(1, round(geometry.rows * row_mm / pixel_mm)),
        max(1, round(geometry.columns * column_mm / pixel_mm)),
    )


def view_spacing_mm(geometry: ViewGeometry, pixel_mm: float | None) -> tuple[float, float, float]:
    """Spacing (view axis, row, column) in mm of the views in pixels of `pixel_mm`."""
    if pixel_mm is None:
        return geometry.stack_spacing_mm
    return VIEW_AXIS_SPACING_MM, float(pixel_mm), float(pixel_mm)


def to_pixels(
    views: np.ndarray, geometry: ViewGeometry, pixel_mm: float | None, nearest: bool = False
) -> np.ndarray:
    """Views (V, H', W') in square pixels, resampled from the detector's.

    Args:
        views: (V, H, W) of `geometry.stack_shape`.
        geometry: of the views.
        pixel_mm: edge of the pixels; None returns `views` unchanged.
        nearest: take the nearest pixel, for labels, depth and CT. Otherwise finer pixels are
            interpolated linearly, and coarser ones are weighted means of the pixels they cover
            (weights fall linearly with the distance).

    Returns:
        (V, H', W') float32, or of the type of `views` with `nearest`.

    Raises:
        ValueError: the shape of `views` is not that of `geometry`.
    """
    _require(views.shape, geometry.stack_shape)
    if pixel_mm is None:
        return views
    shape = view_shape(geometry, pixel_mm)
    return _resample(views, geometry.pixel_mm, shape, (pixel_mm, pixel_mm), nearest)


def to_detector(views: np.ndarray, geometry: ViewGeometry, pixel_mm: float | None) -> np.ndarray:
    """Probabilities (V, H, W) in the detector's pixels, resampled from (V, H', W') square ones."""
    _require(views.shape, view_shape(geometry, pixel_mm))
    if pixel_mm is None:
        return views
    return _resample(views, (pixel_mm, pixel_mm), geometry.stack_shape, geometry.pixel_mm, False)


def _require(shape: tuple, expected: tuple) -> None:
    if shape != expected:
        raise ValueError(f"views {shape} are not {expected}")


def _resample(views, spacing, shape, new_spacing, nearest):
    if nearest:
        rows, columns = (
            _weights(views.shape[1 + axis], spacing[axis], shape[1 + axis], new_spacing[axis])
            for axis in (0, 1)
        )
        return np.ascontiguousarray(views[:, rows.argmax(1)][:, :, columns.argmax(1)])
    down = _weights(views.shape[1], spacing[0], shape[1], new_spacing[0])
    across = _weights(views.shape[2], spacing[1], shape[2], new_spacing[1])
    out = np.empty(shape, np.float32)
    # View by view, so that the whole stack is not in memory as float twice.
    for view in range(shape[0]):
        out[view] = down @ views[view].astype(np.float32) @ across.T
    return out


def _weights(count: int, step: float, new_count: int, new_step: float) -> np.ndarray:
    """Weights (new_count, count) float32 of the samples in each new sample; rows sum to 1."""
    old = (np.arange(count) - (count - 1) / 2) * step
    new = (np.arange(new_count) - (new_count - 1) / 2) * new_step
    # Beyond the outermost samples their values are repeated.
    new = np.clip(new, old[0], old[-1])
    distance = np.abs(new[:, None] - old[None])
    weights = np.clip(1 - distance / max(step, new_step), 0, None)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
