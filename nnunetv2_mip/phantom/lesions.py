"""Disease of a phantom: the pattern of each subject, and its lesions with site, shape and uptake.

Frequencies were fixed here before anything was tuned on them. Of every three subjects in a row one
is healthy. Every eight diseased ones in a row have the same mixture of patterns, so that small
cohorts are not all of one kind.
"""

from dataclasses import dataclass

import numpy as np

from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid, Point, rotation

# Patterns of eight diseased subjects in a row, in random order; "rare" is one of RARE_PATTERNS.
PATTERN_BLOCK = (
    "lymphoma",
    "lymphoma",
    "lung cancer",
    "lung cancer",
    "bone metastases",
    "liver metastases",
    "necrotic mass",
    "rare",
)
RARE_PATTERNS = ("lung nodule", "low uptake", "hidden", "melanoma")
# Probability of an additional faint lesion in a subject with a pattern of PATTERN_BLOCK.
FAINT_CHANCE = 0.12


@dataclass(frozen=True)
class Lesion:
    """Lesion of a subject, before the scanner.

    Attributes:
        kind: e.g. "lung nodule", "node", "hidden".
        site: the anatomical site.
        blobs: ellipsoids whose union is the lesion.
        core: necrotic part, or None.
        suv: uptake of the part that is not necrotic.
        texture: relative spread of its uptake.
        cold_parts: further parts of less uptake.
        cold_share: their uptake as a share of `suv`.
        whole_outline: whether the true outline is that of the whole solid, its cold parts included,
            and not that of its uptake.
    """

    kind: str
    site: str
    blobs: tuple[Ellipsoid, ...]
    suv: float
    core: Ellipsoid | None = None
    texture: float = 0.12
    cold_parts: tuple[Ellipsoid, ...] = ()
    cold_share: float = 0.3
    whole_outline: bool = False


def disease_pattern(seed: int, index: int) -> str:
    """Pattern of subject `index`: "healthy", or a name of `PATTERN_BLOCK` or `RARE_PATTERNS`."""
    third, place = divmod(index, 3)
    healthy = np.random.default_rng([seed, 3, third]).integers(3)
    if place == healthy:
        return "healthy"
    # Number of diseased subjects before this one: two of every three, and those of this three.
    number = 2 * third + place - (place > healthy)
    block, position = divmod(int(number), len(PATTERN_BLOCK))
    rng = np.random.default_rng([seed, 8, block])
    pattern = PATTERN_BLOCK[rng.permutation(len(PATTERN_BLOCK))[position]]
    return str(rng.choice(RARE_PATTERNS)) if pattern == "rare" else pattern


def draw_lesions(pattern: str, anatomy: Anatomy, rng: np.random.Generator) -> list[Lesion]:
    """Random lesions of a subject with this pattern; none for "healthy"."""
    if pattern == "healthy":
        return []
    lesions = _PATTERNS[pattern](anatomy, rng)
    if pattern in PATTERN_BLOCK:
        if rng.uniform() < anatomy.hidden_chance:
            lesions += _hidden(anatomy, rng)
        if rng.uniform() < FAINT_CHANCE:
            lesions += _low_uptake(anatomy, rng)
    return lesions


def make_lesion(
    kind: str,
    site: str,
    centre: Point,
    diameter_mm: float,
    suv: float,
    rng: np.random.Generator,
    necrosis: float = 0.0,
) -> Lesion:
    """Irregular lesion: one to four merged ellipsoids, uneven in uptake.

    Args:
        kind, site: see `Lesion`.
        centre: (x, y, z) mm.
        diameter_mm: mean diameter of the whole lesion.
        suv: uptake of the part that is not necrotic.
        rng: generator of its shape.
        necrosis: diameter of the cold core as a share of the whole, 0 for none.
    """
    radius = diameter_mm / 2
    count = 1 if diameter_mm < 15 else int(rng.integers(2, 5))
    blobs = []
    for k in range(count):
        share = 1.0 if count == 1 else (0.85 if k == 0 else float(rng.uniform(0.5, 0.75)))
        offset = rng.normal(size=3)
        offset *= 0 if k == 0 else 0.5 * radius / np.linalg.norm(offset)
        blobs.append(
            Ellipsoid(
                tuple(np.array(centre) + offset),
                tuple(radius * share * rng.uniform(0.85, 1.18, 3)),
                rotation(*rng.uniform(0, 360, 3)),
                deformation=Deformation.draw(rng, 0.05 * radius, max(12.0, 1.3 * radius)),
            )
        )
    core = None
    if necrosis:
        middle = np.array(centre) + rng.normal(0, 0.08 * radius, 3)
        core = Ellipsoid(
            tuple(middle),
            tuple(necrosis * radius * rng.uniform(0.85, 1.1, 3)),
            rotation(*rng.uniform(0, 360, 3)),
            deformation=Deformation.draw(rng, 0.06 * radius, radius),
        )
    return Lesion(kind, site, tuple(blobs), suv, core, texture=float(rng.uniform(0.05, 0.2)))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Random value whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def near(point: Point, rng: np.random.Generator, spread_mm: float) -> Point:
    """Random point (x, y, z) mm around another, normally distributed."""
    return tuple(np.array(point) + rng.normal(0, spread_mm, 3))


def pick(anatomy: Anatomy, rng: np.random.Generator, site: str) -> Point:
    """Random one of the points of a site."""
    points = anatomy.sites[site]
    return points[int(rng.integers(len(points)))]


def _lung_point(anatomy: Anatomy, rng) -> Point:
    """Random point in a lung, above the liver's dome and away from the heart."""
    lungs = anatomy.organs("lung")
    for _ in range(50):
        lung = lungs[int(rng.integers(len(lungs)))]
        point = lung.random_point(rng, 0.85)
        others = anatomy.solids("liver") + anatomy.solids("myocardium")
        others += anatomy.solids("spleen") + anatomy.solids("stomach")[:1]
        clear = min(float(s.distance(*(np.array(c) for c in point))) for s in others)
        if clear > 18:
            return point
    return lungs[0].centre


def _nodes(anatomy, rng, site, count, size_mm, suv) -> list[Lesion]:
    low, high = size_mm
    return [
        make_lesion(
            "node", site, near(pick(anatomy, rng, site), rng, 6), log_uniform(rng, low, high),
            suv * float(rng.uniform(0.6, 1.25)), rng,
        )
        for _ in range(count)
    ]  # fmt: skip


def _lymphoma(anatomy, rng) -> list[Lesion]:
    suv, lesions = log_uniform(rng, 5, 18), []
    lesions += _nodes(anatomy, rng, "mediastinum", int(rng.integers(4, 10)), (18, 55), suv)
    if rng.uniform() < 0.75:
        side_sites = ["neck", "supraclavicular"]
        for site in side_sites:
            lesions += _nodes(anatomy, rng, site, int(rng.integers(2, 7)), (10, 32), suv)
    for site, chance in (
        ("axilla", 0.45),
        ("retroperitoneum", 0.5),
        ("iliac", 0.3),
        ("groin", 0.25),
    ):
        if rng.uniform() < chance:
            lesions += _nodes(anatomy, rng, site, int(rng.integers(2, 6)), (12, 38), suv)
    if rng.uniform() < 0.2:
        spleen = anatomy.organs("spleen")[0]
        for _ in range(int(rng.integers(1, 4))):
            spot = spleen.random_point(rng, 0.6)
            lesions.append(
                make_lesion(
                    "organ lesion", "spleen", spot, log_uniform(rng, 10, 26), 0.8 * suv, rng
                )
            )
    return lesions


def _lung_cancer(anatomy, rng) -> list[Lesion]:
    suv, size = log_uniform(rng, 6, 20), log_uniform(rng, 32, 80)
    necrosis = float(rng.uniform(0.45, 0.65)) if size > 45 and rng.uniform() < 0.5 else 0.0
    lesions = [
        make_lesion("lung mass", "lung", _lung_point(anatomy, rng), size, suv, rng, necrosis)
    ]
    if rng.uniform() < 0.7:
        for site in ("hilum", "mediastinum"):
            lesions += _nodes(anatomy, rng, site, int(rng.integers(1, 4)), (10, 32), 0.8 * suv)
    if rng.uniform() < 0.3:
        lesions += _bone(anatomy, rng, int(rng.integers(1, 4)), 0.8 * suv)
    for _ in range(int(rng.integers(0, 4))):
        lesions.append(_nodule(anatomy, rng, (6, 16)))
    return lesions


def _nodule(anatomy, rng, size_mm) -> Lesion:
    return make_lesion(
        "lung nodule", "lung", _lung_point(anatomy, rng), log_uniform(rng, *size_mm),
        log_uniform(rng, 3, 12), rng,
    )  # fmt: skip


def _bone(anatomy, rng, count, suv) -> list[Lesion]:
    sites = ("spine", "pelvis", "ribs", "femur", "humerus")
    lesions = []
    for site in rng.choice(sites, count, p=[0.45, 0.27, 0.14, 0.09, 0.05]):
        low, high = (9, 22) if site == "ribs" else (13, 42)
        lesions.append(
            make_lesion(
                "bone metastasis", str(site), near(pick(anatomy, rng, site), rng, 5),
                log_uniform(rng, low, high), suv * float(rng.uniform(0.5, 1.3)), rng,
            )
        )  # fmt: skip
    return lesions


def _bone_metastases(anatomy, rng) -> list[Lesion]:
    return _bone(anatomy, rng, int(rng.integers(6, 22)), log_uniform(rng, 7, 18))


def _liver_metastases(anatomy, rng) -> list[Lesion]:
    suv, liver, lesions = log_uniform(rng, 6, 15), anatomy.organs("liver"), []
    for _ in range(int(rng.integers(2, 10))):
        # The phantom's own liver has three lobes; a mapped one is a single solid.
        lobe = liver[int(rng.choice(3, p=[0.6, 0.2, 0.2]))] if len(liver) == 3 else liver[0]
        size = log_uniform(rng, 12, 55)
        necrosis = 0.5 if size > 42 and rng.uniform() < 0.4 else 0.0
        spot = lobe.random_point(rng, 0.7)
        lesions.append(
            make_lesion(
                "liver metastasis",
                "liver",
                spot,
                size,
                suv * float(rng.uniform(0.7, 1.2)),
                rng,
                necrosis,
            )
        )
    if rng.uniform() < 0.4:
        lesions += [_nodule(anatomy, rng, (7, 20)) for _ in range(int(rng.integers(1, 5)))]
    if rng.uniform() < 0.4:
        lesions += _nodes(
            anatomy, rng, "retroperitoneum", int(rng.integers(1, 5)), (10, 26), 0.9 * suv
        )
    return lesions


def _necrotic_mass(anatomy, rng) -> list[Lesion]:
    site = str(
        rng.choice(["thigh", "buttock", "lung", "retroperitoneum"], p=[0.35, 0.2, 0.25, 0.2])
    )
    point = _lung_point(anatomy, rng) if site == "lung" else near(pick(anatomy, rng, site), rng, 6)
    suv = log_uniform(rng, 7, 25)
    core = float(rng.uniform(0.45, 0.7))
    lesions = [
        make_lesion("necrotic mass", site, point, float(rng.uniform(60, 90)), suv, rng, core)
    ]
    if rng.uniform() < 0.5:
        lesions += [_nodule(anatomy, rng, (7, 22)) for _ in range(int(rng.integers(1, 6)))]
    return lesions


def _melanoma(anatomy, rng) -> list[Lesion]:
    lesions, suv = [], log_uniform(rng, 5, 18)
    for _ in range(int(rng.integers(4, 14))):
        site = str(rng.choice(["axilla", "groin", "buttock", "thigh", "liver", "lung", "ribs"]))
        if site == "lung":
            point = _lung_point(anatomy, rng)
        elif site == "liver":
            point = anatomy.organs("liver")[0].random_point(rng)
        else:
            point = near(pick(anatomy, rng, site), rng, 10)
        lesions.append(
            make_lesion(
                "melanoma metastasis",
                site,
                point,
                log_uniform(rng, 8, 30),
                suv * float(rng.uniform(0.6, 1.3)),
                rng,
            )
        )
    return lesions


def _low_uptake(anatomy, rng) -> list[Lesion]:
    """Tumour hardly brighter than the liver, at a site of low uptake."""
    site = str(rng.choice(["lung", "buttock", "thigh", "retroperitoneum"]))
    point = _lung_point(anatomy, rng) if site == "lung" else near(pick(anatomy, rng, site), rng, 5)
    size, suv = log_uniform(rng, 18, 50), float(rng.uniform(2.5, 3.6))
    return [make_lesion("low uptake", site, point, size, suv, rng)]


def _hidden(anatomy, rng) -> list[Lesion]:
    """Lesion that hotter or larger organs cover in many views."""
    site = str(rng.choice(anatomy.hidden_sites))
    point = near(pick(anatomy, rng, site), rng, 3)
    return [
        make_lesion("hidden", site, point, log_uniform(rng, 12, 30), log_uniform(rng, 4, 16), rng)
    ]


_PATTERNS = {
    "lymphoma": _lymphoma,
    "lung cancer": _lung_cancer,
    "bone metastases": _bone_metastases,
    "liver metastases": _liver_metastases,
    "necrotic mass": _necrotic_mass,
    "lung nodule": lambda anatomy, rng: [_nodule(anatomy, rng, (8, 30))],
    "melanoma": _melanoma,
    "low uptake": _low_uptake,
    "hidden": _hidden,
}
