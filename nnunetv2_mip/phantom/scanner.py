"""Scanner of a phantom: solids painted on a grid, noisy PET, CT, and contours of the lesions."""

import numpy as np
from scipy.ndimage import gaussian_filter

from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.lesions import Lesion
from nnunetv2_mip.phantom.shapes import Box, Canvas, Ellipsoid

# Width and depth of the field of view.
FIELD_MM = 640.0
CONTOUR_FRACTION = 0.45
# A lesion whose contrast stays below this is invisible to a reader, and is left out of the image.
VISIBLE_CONTRAST_SUV = 0.7
# SUV are stored in steps of 2^-8, as a scanner's 16-bit values are; it also compresses.
SUV_STEP = 2.0**-8


def canvas_for(anatomy: Anatomy, spacing_mm: float) -> Canvas:
    """Empty canvas over the scanned stretch of the body."""
    across = 2 * round(FIELD_MM / spacing_mm / 2)
    slices = int((anatomy.top_mm - anatomy.bottom_mm) / spacing_mm)
    edge = -(across - 1) / 2 * spacing_mm
    return Canvas((slices, across, across), spacing_mm, (edge, edge, anatomy.bottom_mm))


def paint_anatomy(
    canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mask of the healthy body, which is painted on the canvas, and its uptake texture.

    Returns:
        bool (z, y, x), the body with its skin; float32 (z, y, x), of unit spread.
    """
    texture = 0.75 * canvas.texture(rng, 13.0) + 0.66 * canvas.texture(rng, 34.0)
    body = np.zeros(canvas.shape, np.float32)
    found = canvas.occupancy(anatomy.outline)
    if found is not None:
        box, filled = found
        body[box] = filled
    for part in anatomy.parts:
        found = canvas.occupancy(part.solids)
        if found is None:
            continue
        box, filled = found
        if part.inside:
            filled = filled * body[box]
        if part.suv is not None:
            uptake = part.suv * np.clip(1 + part.texture * texture[box], 0.3, 2.5)
            canvas.suv[box] += filled * (uptake - canvas.suv[box])
        if part.hu is not None:
            canvas.hu[box] += filled * (part.hu - canvas.hu[box])
    # The table, seen by the CT only.
    y = canvas.axes[1][None, :, None]
    table = (np.abs(y - 170) < 12) & (np.abs(canvas.axes[2]) < 210) & (body < 0.5)
    canvas.hu[np.broadcast_to(table, canvas.shape)] = -650
    return body > 0.5, texture


def paint_lesions(
    canvas: Canvas,
    lesions: list[Lesion],
    body: np.ndarray,
    texture: np.ndarray,
    psf_mm: float,
) -> tuple[np.ndarray, list[Lesion]]:
    """Labels of the lesions, which are painted on the canvas and contoured as a reader would.

    The contour is described in `phantom.cohort`.

    Args:
        lesions: in painting order.
        body, texture: from `paint_anatomy`.
        psf_mm: standard deviation of the scanner's blur.

    Returns:
        The label volume, uint8 (z, y, x): 0, or 1 + the lesion's place in the list that follows;
        and the visible lesions.
    """
    labels, painted = np.zeros(canvas.shape, np.uint8), []
    for lesion in lesions:
        found = canvas.occupancy(lesion.blobs, margin_mm=4 * psf_mm)
        if found is None:
            continue
        box, filled = found
        filled = filled * body[box]
        uptake = lesion.suv * np.clip(1 + lesion.texture * texture[box], 0.5, 1.5)
        if lesion.core is not None:
            uptake *= 1 - 0.93 * _occupancy_in(canvas, lesion.core, box)
        for part in lesion.cold_parts:
            uptake *= 1 - (1 - lesion.cold_share) * _occupancy_in(canvas, part, box)
        added = filled * np.maximum(uptake - canvas.suv[box], 0)
        seen = gaussian_filter(added, psf_mm / canvas.spacing_mm, mode="constant")
        if seen.max(initial=0) < VISIBLE_CONTRAST_SUV:
            continue
        if lesion.whole_outline:
            drawn = filled >= 0.5
        else:
            drawn = (seen >= CONTOUR_FRACTION * seen.max()) & body[box]
        if not drawn.any():
            continue
        painted.append(lesion)
        labels[box][drawn & (labels[box] == 0)] = len(painted)
        canvas.suv[box] += added
        # The core is replaced, not covered: no fat or lung remains inside a mass.
        if lesion.core is not None:
            cold = _occupancy_in(canvas, lesion.core, box) * filled
            canvas.suv[box] += cold * (0.07 * lesion.suv - canvas.suv[box])
        canvas.hu[box] += filled * (45 - canvas.hu[box])
    return labels, painted


def _occupancy_in(canvas: Canvas, solid: Ellipsoid, box: Box) -> np.ndarray:
    z, y, x = (canvas.axes[axis][box[axis]] for axis in range(3))
    distance = solid.distance(x[None, None, :], y[None, :, None], z[:, None, None])
    return np.clip(0.5 - distance / canvas.spacing_mm, 0, 1).astype(np.float32)


def scan_pet(
    canvas: Canvas,
    psf_mm: float,
    scan_rng: np.random.Generator,
    noise_rng: np.random.Generator,
    noise_range: tuple[float, float] = (0.14, 0.26),
) -> np.ndarray:
    """PET of the canvas: blur and noise, float32 (z, y, x) SUV, never negative.

    Noise is log-normal with a variance that grows in proportion to the signal (Poisson counts),
    correlated over about a resolution element, and stronger in the outermost slices, where few
    lines of response cross: an iterative reconstruction gives no negative value either.
    """
    sigma = psf_mm / canvas.spacing_mm
    suv = gaussian_filter(canvas.suv, sigma, mode="nearest")
    level = float(scan_rng.uniform(*noise_range))
    noise = noise_rng.standard_normal(canvas.shape, dtype=np.float32)
    width = 0.85 * sigma
    noise = gaussian_filter(noise, width, mode="wrap")
    noise /= noise.std()
    spread = level / np.sqrt(suv + 0.12)
    depth = np.arange(canvas.shape[0]) * canvas.spacing_mm
    edge = np.minimum(depth, depth[::-1])
    spread *= (1 + 2.2 * np.exp(-edge / 9.0)).astype(np.float32)[:, None, None]
    np.minimum(spread, 0.9, out=spread)
    suv += 0.004  # scatter
    suv *= np.exp(noise * spread - 0.5 * spread**2)
    return np.rint(suv / SUV_STEP).astype(np.float32) * np.float32(SUV_STEP)


def scan_ct(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """CT of the canvas: blur and noise, int16 (z, y, x) HU."""
    hu = gaussian_filter(canvas.hu, 1.2 / canvas.spacing_mm, mode="nearest")
    hu += 12 * rng.standard_normal(canvas.shape, dtype=np.float32)
    return np.rint(np.clip(hu, -1024, 3000)).astype(np.int16)
