"""Sites of lesions in a body built around a label map: clear of its organs, beside hot ones."""

import numpy as np

from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.distance_field import DistanceField, pushed_out
from nnunetv2_mip.phantom.mapped_organs import Organs, kidneys_by_side
from nnunetv2_mip.phantom.shapes import Point

# Probability of an additional lesion beside or behind a hot organ in a diseased subject.
HIDDEN_CHANCE = 0.5
# Distances of sites from the map's organs, and from the hot ones among them.
CLEAR_MM, HOT_CLEAR_MM = 6.0, 8.0
HOT_ORGANS = ("bladder", "kidney", "heart", "liver", "spleen")
NODE_STATIONS = ("mediastinum", "retroperitoneum", "iliac", "groin", "neck", "supraclavicular",
                 "axilla")  # fmt: skip


def clear_sites(anatomy: Anatomy, organs: Organs) -> None:
    """Move lymph node stations out of the map's organs, which the phantom's own sites ignore."""
    blockers = [o for name, o in organs.items() if name not in ("gland", "prostate")]
    for site in NODE_STATIONS:
        anatomy.sites[site] = [pushed_out(p, blockers, CLEAR_MM) for p in anatomy.sites[site]]


def add_hidden_sites(anatomy: Anatomy, organs: Organs, midline_x: float) -> None:
    """Add sites beside, behind and above hot organs, clear of all of them.

    Args:
        midline_x: x of the body's midline at the kidneys, mm.
    """
    hot = [organs[name] for name in HOT_ORGANS if name in organs]
    for name, points in _places(organs, midline_x).items():
        anatomy.sites[name] = [pushed_out(point, hot, HOT_CLEAR_MM) for point in points]
    anatomy.hidden_sites = tuple(
        name
        for name, points in anatomy.sites.items()
        if points and name.split()[0] in ("beside", "behind", "above")
    )
    anatomy.hidden_chance = HIDDEN_CHANCE


def _places(organs: Organs, midline_x: float) -> dict[str, list[Point]]:
    """Sites around the organs of the map by name, not yet moved away from other organs."""
    sites: dict[str, list[Point]] = {}
    if "bladder" in organs:
        low, high, middle = _extent(organs["bladder"])
        sites["beside bladder"] = [
            (low[0] - 15, middle[1] + 14, middle[2]),
            (high[0] + 15, middle[1] + 14, middle[2]),
        ]
        sites["behind bladder"] = [(middle[0], high[1] + 16, middle[2])]
    if "heart" in organs:
        low, high, middle = _extent(organs["heart"])
        sites["behind heart"] = [(middle[0] - 4, high[1] + 9, middle[2] + d) for d in (-12, 12)]
    if "kidney" in organs:
        for side, points in kidneys_by_side(organs, midline_x).items():
            low, high = np.percentile(points, (2, 98), axis=0)
            inner = low[0] if side > 0 else high[0]
            x, y, z = (points[:, axis].mean() for axis in range(3))
            sites.setdefault("beside kidney", []).append((inner - side * 12, y - 10, z + 10))
            # The adrenal glands, behind liver and stomach.
            sites.setdefault("above kidney", []).append((x - side * 10, y - 8, high[2] + 12))
    if "brain" in organs:
        low, high, middle = _extent(organs["brain"])
        sites["beside brain"] = [(x, middle[1] + 10, middle[2]) for x in (low[0] - 5, high[0] + 5)]
    return sites


def _extent(organ: DistanceField) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high corner (2nd and 98th percentiles) and centre of an organ, x, y, z mm."""
    points = organ.points
    low, high = np.percentile(points, (2, 98), axis=0)
    return low, high, points.mean(0)
