"""Disease of the wide variety: large masses of low contrast, bulky nodes, and all other patterns.

The standard variety (`phantom.lesions`) has few lesions that are large and only two or three times
as hot as their surroundings, as sarcomas and bulky lymphomas often are. Frequencies and sizes were
fixed here before anything was tuned on them.
"""

from dataclasses import replace

import numpy as np

from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.lesions import (
    RARE_PATTERNS,
    Lesion,
    draw_lesions,
    log_uniform,
    make_lesion,
    near,
    pick,
)
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid, point_of, rotation

# Patterns of a diseased subject and their probabilities.
WIDE_PATTERNS = {
    "large mass": 0.30,
    "bulky nodes": 0.14,
    "lymphoma": 0.10,
    "lung cancer": 0.10,
    "bone metastases": 0.08,
    "liver metastases": 0.08,
    "necrotic mass": 0.05,
    "rare": 0.15,
}
# Sites of large masses in the soft tissue of limbs, trunk and neck.
MASS_SITES = {
    "thigh": 0.34,
    "buttock": 0.16,
    "retroperitoneum": 0.16,
    "mediastinum": 0.08,
    "axilla": 0.08,
    "neck": 0.10,
    "groin": 0.08,
}
BULKY_SITES = {
    "mediastinum": 0.26,
    "retroperitoneum": 0.24,
    "neck": 0.2,
    "axilla": 0.12,
    "iliac": 0.1,
    "groin": 0.08,
}


def draw_wide_pattern(rng: np.random.Generator) -> str:
    """Random pattern of a diseased subject."""
    pattern = str(rng.choice(list(WIDE_PATTERNS), p=list(WIDE_PATTERNS.values())))
    return str(rng.choice(RARE_PATTERNS)) if pattern == "rare" else pattern


def draw_wide_lesions(pattern: str, anatomy: Anatomy, rng: np.random.Generator) -> list[Lesion]:
    """Random lesions of a subject with this pattern; none for "healthy"."""
    if pattern == "large mass":
        lesions = [_large_mass(anatomy, rng)]
        if rng.uniform() < 0.35:
            lesions += draw_lesions("lung nodule", anatomy, rng)
        if rng.uniform() < 0.25:
            lesions += _bulky_nodes(anatomy, rng, count=(2, 5), diameter_mm=(12, 30))
        return lesions
    if pattern == "bulky nodes":
        return _bulky_nodes(anatomy, rng, count=(6, 18), diameter_mm=(18, 60))
    return draw_lesions(pattern, anatomy, rng)


def _large_mass(anatomy: Anatomy, rng: np.random.Generator) -> Lesion:
    """Mass of 50 to 130 mm (neck: 40 to 75 mm) in soft tissue, faint or uneven.

    Half of the masses have cold parts. Uptake is 1.6 to 6 SUV: muscle has 0.7, liver 2. The outline
    is that of the whole mass, necrotic parts included, as a radiotherapist draws it.
    """
    site = str(rng.choice(list(MASS_SITES), p=list(MASS_SITES.values())))
    diameter = log_uniform(rng, 40, 75) if site == "neck" else log_uniform(rng, 50, 130)
    suv = log_uniform(rng, 1.6, 6.0)
    centre = near(pick(anatomy, rng, site), rng, 8)
    lesion = make_lesion("large mass", site, centre, diameter, suv, rng)
    radius = diameter / 2
    # Masses of a limb grow along its muscles.
    stretch = float(rng.uniform(1.0, 1.6)) if site in ("thigh", "buttock", "groin") else 1.0
    blobs = tuple(
        replace(blob, semi=point_of((blob.semi[0], blob.semi[1], blob.semi[2] * stretch)))
        for blob in lesion.blobs
    )
    cold = []
    if rng.uniform() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            middle = np.array(centre) + rng.normal(0, 0.28 * radius, 3)
            size = radius * rng.uniform(0.25, 0.6)
            cold.append(
                Ellipsoid(
                    point_of(middle),
                    point_of(size * rng.uniform(0.7, 1.3, 3)),
                    rotation(*rng.uniform(0, 360, 3)),
                    deformation=Deformation.draw(rng, 0.08 * size, max(10.0, size)),
                )
            )
    return replace(
        lesion,
        blobs=blobs,
        texture=float(rng.uniform(0.12, 0.42)),
        cold_parts=tuple(cold),
        cold_share=float(rng.uniform(0.15, 0.6)),
        whole_outline=True,
    )


def _bulky_nodes(
    anatomy: Anatomy,
    rng: np.random.Generator,
    count: tuple[int, int],
    diameter_mm: tuple[float, float],
) -> list[Lesion]:
    """Nodes of one or two stations, so large and near each other that they flow together."""
    lesions, suv = [], log_uniform(rng, 2.2, 14)
    sites = rng.choice(list(BULKY_SITES), 2, replace=False, p=list(BULKY_SITES.values()))
    for site in sites[: 1 + int(rng.uniform() < 0.5)]:
        middle = np.array(pick(anatomy, rng, str(site)))
        for _ in range(int(rng.integers(*count))):
            size = log_uniform(rng, *diameter_mm)
            centre = point_of(middle + rng.normal(0, 0.55 * diameter_mm[1], 3) * [0.7, 0.6, 1.0])
            own = suv * float(rng.uniform(0.75, 1.2))
            lesions.append(make_lesion("bulky node", str(site), centre, size, own, rng))
    return lesions
