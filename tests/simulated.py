"""Simulated volumes and slow references that several test modules share."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project_mask

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
NODES_SHAPE, NODES_SPACING_MM = (20, 48, 48), (4.0, 3.0, 3.0)
sizes = st.tuples(st.integers(1, 40), st.integers(2, 13), st.integers(2, 13))
spacings = st.tuples(st.floats(0.7, 5), st.floats(0.7, 5), st.floats(0.7, 5))


def volume_of(array: np.ndarray, spacing_zyx: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Volume:
    """Volume of an array (z, y, x) in canonical axes; spacing in mm, in the same order."""
    grid = SourceGrid(array.shape[::-1], tuple(reversed(spacing_zyx)), (0.0, 0.0, 0.0), IDENTITY)
    return Volume(array.astype(np.float32, copy=False), grid, Path("SUV.nii.gz"))


def resampled_maximum(volume: Volume, geometry: ViewGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of every ray and its depth in mm, (V, H, W): rays resampled by scipy in float64."""
    array = np.pad(volume.array.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    _, sy, sx = volume.spacing_mm
    _, ny, nx = volume.array.shape
    u = (np.arange(geometry.columns) - (geometry.columns - 1) / 2) * geometry.bin_mm
    t = (np.arange(geometry.steps) - (geometry.steps - 1) / 2) * geometry.bin_mm
    views, depths = [], []
    for angle in np.deg2rad(geometry.angles_deg):
        x = (u[:, None] * np.cos(angle) - t * np.sin(angle)) / sx + (nx - 1) / 2 + 1
        y = (u[:, None] * np.sin(angle) + t * np.cos(angle)) / sy + (ny - 1) / 2 + 1
        samples = np.stack(
            [map_coordinates(plane, [y, x], order=1, mode="constant") for plane in array]
        )
        views.append(samples.max(-1)[::-1])
        depths.append(t[samples.argmax(-1)][::-1])
    return np.stack(views), np.stack(depths)


def occluded_study(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SUV, CT and mask of a body with a lesion before a hot slab and one behind it."""
    rng = np.random.default_rng(seed)
    suv = np.zeros((20, 24, 24), np.float32)
    suv[:, 3:-3, 3:-3] = rng.uniform(0.5, 1.5, (20, 18, 18))
    suv[:, 18:20, 8:20] = 12
    seg = np.zeros(suv.shape, np.uint8)
    seg[3:8, 10:14, 9:14] = 1
    seg[14:17, 5:8, 12:18] = 1
    suv[seg == 1] = 6
    ct = rng.integers(-100, 300, suv.shape).astype(np.int16)
    ct[suv == 0] = -1000
    return suv, ct, seg


def nodes(seed: int = 0, count: int = 5, hot: float = 6.0) -> tuple[Volume, np.ndarray]:
    """SUV and mask of a body of SUV 1 with several blurred nodes."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(NODES_SHAPE)
    mask = np.zeros(NODES_SHAPE, bool)
    for _ in range(count):
        at = rng.uniform((6, 18, 18), (14, 30, 30))
        radius = rng.uniform(5, 10)
        squares = ((np.stack([z, y, x], -1) - at) * NODES_SPACING_MM) ** 2
        mask |= squares.sum(-1) <= radius**2
    body = (y - 23.5) ** 2 + (x - 23.5) ** 2 < 20**2
    sharp = sitk.GetImageFromArray(np.where(mask, hot, body * 1.0))
    sharp.SetSpacing(NODES_SPACING_MM[::-1])
    suv = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(sharp, 2.5))
    suv = np.maximum(suv + rng.normal(0, 0.05, NODES_SHAPE), 0).astype(np.float32)
    grid = SourceGrid(NODES_SHAPE[::-1], NODES_SPACING_MM[::-1], (-70.0, -60.0, 5.0), IDENTITY)
    return Volume(suv, grid, Path("nodes")), mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two masks."""
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


def views_of(volume: Volume, mask: np.ndarray, count: int = 12) -> tuple[ViewGeometry, np.ndarray]:
    """Geometry of evenly spaced views, and the views (V, H, W) of a mask."""
    geometry = ViewGeometry.for_volume(volume, view_angles(count))
    return geometry, project_mask(mask, geometry).astype(np.float32)
