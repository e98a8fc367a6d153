"""Channels of the views of a study: the levels that networks see.

Conversion and prediction both call `view_study`. Channels:

- `suv`: SUV maximum of the ray (0 → 0, window → 255);
- `ct`: CT at the place of that maximum (−1000 HU → 0, 1000 HU → 255; air where there is none);
- `depth`: depth of that place along the ray (−350 mm → 1, 350 mm → 255; 0 where there is none).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from nnunetv2_mip.conventions import AIR_HU
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.intensity import ct_levels_from_hu, levels_from_depth, levels_from_suv
from nnunetv2_mip.views.projection import project
from nnunetv2_mip.views.resampling import to_pixels, view_spacing_mm
from nnunetv2_mip.views.settings import ViewSettings, check_channels


@dataclass(frozen=True)
class StudyViews:
    """Views of a study: levels for the network, and the values of the channels.

    Attributes:
        levels: (C, V, H', W') uint8, input of the network, in the pixels asked for.
        suv: (V, H, W) float32, SUV maximum of the rays, in the detector's pixels.
        ct_hu: (V, H, W) float32, CT there in HU; None without the channel `ct`.
        depth_mm: (V, H, W) float32, depth of the maximum from the rotation centre in mm, NaN where
            the ray meets nothing above 0; None without the channel `depth`.
        geometry: of the rays.
        pixel_mm: edge of the square pixels of `levels`; None for the detector's own pixels.
    """

    levels: np.ndarray
    suv: np.ndarray
    ct_hu: np.ndarray | None
    depth_mm: np.ndarray | None
    geometry: ViewGeometry
    pixel_mm: float | None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Spacing (view axis, row, column) of `levels` in mm."""
        return view_spacing_mm(self.geometry, self.pixel_mm)


def view_study(study: Study, settings: ViewSettings) -> StudyViews:
    """Views of a study with the settings of a data set or model.

    Args:
        study: with its CT where `settings.channels` names it.
        settings: angles, channels, window and pixel size.

    Returns:
        Views whose geometry carries the window.

    Raises:
        MipError: as `make_views`, or as `ViewGeometry.for_volume`.
    """
    geometry = ViewGeometry.for_volume(study.suv, settings.angles, settings.pixel_mm)
    return make_views(
        study.suv.array,
        None if study.ct is None else study.ct.array,
        geometry.with_window(settings.window_suv),
        settings.channels,
        settings.window_suv,
        settings.pixel_mm,
    )


def make_views(
    suv: np.ndarray,
    ct: np.ndarray | None,
    geometry: ViewGeometry,
    channels: Sequence[str],
    window_suv: float,
    pixel_mm: float | None = None,
) -> StudyViews:
    """Views of a study in the channels of a data set or model.

    Args:
        suv: (z, y, x) SUV on the grid of `geometry`.
        ct: (z, y, x) HU on the same grid; only the channel `ct` needs it.
        geometry: angles, bins and grid.
        channels: some of `settings.CHANNELS`, the SUV first.
        window_suv: SUV that maps to level 255.
        pixel_mm: edge of the square pixels to resample to; None keeps the detector's.

    Raises:
        MipError: unknown channels, or `ct` is asked for and there is none.
    """
    check_channels(channels)
    if "ct" in channels and ct is None:
        raise MipError(
            f"{geometry.source}: the channel ct needs the CT on the same grid: give the file "
            "by --ct (trees of studies have it as CTres.nii.gz)"
        )
    found = project(suv, geometry, depth=len(channels) > 1)
    values = {"suv": found.suv}
    if found.depth_mm is not None:
        if "ct" in channels and ct is not None:
            values["ct"] = sample_at_depth(ct, found.depth_mm, geometry)
        if "depth" in channels:
            values["depth"] = found.depth_mm
    levels = []
    for channel in channels:
        # Maxima of neighbouring rays may lie in different organs; a mean would be neither.
        pixels = to_pixels(values[channel], geometry, pixel_mm, nearest=channel != "suv")
        if channel == "suv":
            levels.append(levels_from_suv(pixels, window_suv))
        elif channel == "ct":
            levels.append(ct_levels_from_hu(pixels))
        else:
            levels.append(levels_from_depth(pixels))
    return StudyViews(
        np.stack(levels), found.suv, values.get("ct"), values.get("depth"), geometry, pixel_mm
    )


def sample_at_depth(
    volume: np.ndarray, depth_mm: np.ndarray, geometry: ViewGeometry, outside: float = AIR_HU
) -> np.ndarray:
    """Values of another volume at the place of the ray maximum, interpolated as the SUV is.

    Args:
        volume: (z, y, x) on the grid of `geometry`.
        depth_mm: (V, H, W) depth of the maximum in mm, NaN where there is none.
        geometry: of the views.
        outside: value where there is no maximum, and beyond the volume.

    Returns:
        (V, H, W) float32.
    """
    if volume.shape != geometry.grid.shape_zyx:
        raise ValueError(f"volume {volume.shape} is not on the grid {geometry.grid.shape_zyx}")
    _, sy, sx = geometry.grid.spacing_zyx
    out = np.empty(depth_mm.shape, np.float32)
    _sample_kernel(
        volume,
        depth_mm,
        np.deg2rad(geometry.angles_deg),
        sy,
        sx,
        geometry.bin_mm,
        np.float32(outside),
        out,
    )
    return out


@njit(parallel=True, cache=True)
def _sample_kernel(volume, depth_mm, angles, sy, sx, bin_mm, outside, out):
    n_views, rows, width = depth_mm.shape
    _, ny, nx = volume.shape
    for line in prange(n_views * rows):
        view, row = line // rows, line % rows
        plane = volume[rows - 1 - row]
        cos, sin = np.cos(angles[view]), np.sin(angles[view])
        for column in range(width):
            t = depth_mm[view, row, column]
            if np.isnan(t):
                out[view, row, column] = outside
                continue
            u = (column - (width - 1) * 0.5) * bin_mm
            x = (u * cos - t * sin) / sx + (nx - 1) * 0.5
            y = (u * sin + t * cos) / sy + (ny - 1) * 0.5
            x0, y0 = int(np.floor(x)), int(np.floor(y))
            fx, fy = np.float32(x - x0), np.float32(y - y0)
            total = np.float32(0)
            for dy in range(2):
                for dx in range(2):
                    inside = 0 <= y0 + dy < ny and 0 <= x0 + dx < nx
                    value = np.float32(plane[y0 + dy, x0 + dx]) if inside else outside
                    weight = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
                    total += np.float32(weight) * value
            out[view, row, column] = total
