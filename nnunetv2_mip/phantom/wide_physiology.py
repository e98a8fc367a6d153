"""Healthy uptake of the wide variety: what readers and networks mistake for tumours.

Added to a built anatomy: filled ureters in many courses and widths, dilated renal pelvises, hot
stretches of bowel, muscles, brown fat, thyroid, vocal cords, injection sites. Every rate was fixed
before anything was tuned on it; they are far above those of a clinic, so that a network sees enough
of each.
"""

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.body import FAT_HU, Anatomy
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid, Tube, point_of, rotation


def add_wide_physiology(anatomy: Anatomy, scan: Generator) -> None:
    """Add healthy uptake to a built anatomy.

    Args:
        anatomy: with all its organs and sites.
        scan: generator of what differs between the scans of a patient.
    """
    _add_ureters(anatomy, scan)
    _add_hot_bowel(anatomy, scan)
    _add_muscles(anatomy, scan)
    _add_neck(anatomy, scan)
    _add_brown_fat(anatomy, scan)
    _add_injection(anatomy, scan)


def _add_ureters(anatomy: Anatomy, scan: Generator) -> None:
    """Add a ureter's filled stretches for each kidney, and dilate some renal pelvises."""
    bladder = anatomy.solids("bladder")
    if not bladder:
        return
    low, high = bladder[0].bounds()
    for pelvis in anatomy.organs("renal pelvis"):
        start = np.array(pelvis.centre)
        side = np.sign(start[0] - (low[0] + high[0]) / 2)
        urine = float(np.exp(scan.uniform(np.log(2.5), np.log(35))))
        if scan.uniform() < 0.2:
            size = point_of(scan.uniform((9, 8, 12), (20, 16, 28)))
            shape = Deformation.draw(scan, 2.0, 40)
            anatomy.add("renal pelvis", Ellipsoid(point_of(start), size, deformation=shape), urine)
        if scan.uniform() < 0.35:
            continue
        end = np.array([(low[0] + high[0]) / 2 + side * 18, high[1] - 6, (low[2] + high[2]) / 2])
        steps = np.linspace(0, 1, 12)[:, None]
        course = start + steps * (end - start)
        # Towards the midline along the spine, out over the pelvic brim, back to the bladder.
        course[:, 0] -= side * 14 * np.sin(np.pi * steps[:, 0])
        course[6:11, 0] += side * np.array([4, 14, 22, 18, 8]) * float(scan.uniform(0.3, 1.3))
        course[1:-1] += np.cumsum(scan.normal(0, 2.6, (10, 3)), axis=0) * [1, 0.8, 0]
        radius = float(scan.uniform(1.8, 5.0))
        filled = scan.uniform()
        if filled < 0.35:
            stretches = [(0, 12)]
        else:
            first = scan.integers(0, 8, int(scan.integers(1, 4)))
            stretches = [(int(k), int(k + scan.integers(2, 5))) for k in first]
        for first_point, last_point in stretches:
            points = [point_of(p) for p in course[first_point : last_point + 1]]
            if len(points) > 1:
                suv = urine * float(scan.uniform(0.3, 1.0))
                anatomy.add("ureter", Tube(points, radius), suv, 20, texture=0.2)


def _add_hot_bowel(anatomy: Anatomy, scan: Generator) -> None:
    """Make stretches of colon and small bowel hot."""
    for name, chance in (("colon", 0.4), ("small bowel", 0.3)):
        loops = [solid for solid in anatomy.solids(name) if isinstance(solid, Tube)]
        if not loops or scan.uniform() > chance:
            continue
        level = float(np.exp(scan.uniform(np.log(2.5), np.log(10))))
        first = int(scan.integers(len(loops)))
        for loop in loops[first : first + int(scan.integers(1, 6))]:
            suv = level * float(scan.uniform(0.5, 1.2))
            anatomy.add(name, loop, suv, 25, texture=0.35)


def _add_muscles(anatomy: Anatomy, scan: Generator) -> None:
    """Add used muscles of limbs and trunk: long, tapered, on one side or both."""
    sites = [s for s in ("thigh", "buttock", "arm_r", "neck", "axilla") if anatomy.sites.get(s)]
    for _ in range(int(scan.choice(4, p=[0.45, 0.3, 0.15, 0.1]))):
        site = str(scan.choice(sites))
        points = anatomy.sites[site]
        both = scan.uniform() < 0.5
        suv, length = float(np.exp(scan.uniform(np.log(1.2), np.log(4.5)))), scan.uniform(30, 80)
        width = scan.uniform(6, 14)
        tilt = rotation(*scan.uniform(-25, 25, 3))
        middle = np.array(points[int(scan.integers(len(points)))]) + scan.normal(0, 12, 3)
        for sign in (1, -1) if both else (1,):
            centre = point_of(middle * [sign, 1, 1])
            muscle = Ellipsoid(
                centre,
                point_of((width, width * float(scan.uniform(0.7, 1.3)), length)),
                tilt,
                deformation=Deformation.draw(scan, 2.0, 60),
            )
            own = suv * float(scan.uniform(0.7, 1.2))
            anatomy.add("strained muscle", muscle, own, None, texture=0.3)


def _add_neck(anatomy: Anatomy, scan: Generator) -> None:
    """Add thyroid, vocal cords and tonsils, as placed by the lymph node stations of the neck."""
    if not anatomy.sites.get("supraclavicular") or not anatomy.sites.get("neck"):
        return
    low = np.mean(anatomy.sites["supraclavicular"], axis=0)
    top = np.max(np.array(anatomy.sites["neck"]), axis=0)
    middle = np.mean(anatomy.sites["neck"], axis=0)
    if scan.uniform() < 0.2:
        suv = float(scan.uniform(1.8, 6.0))
        for side in (-1, 1):
            lobe = Ellipsoid((middle[0] + side * 17, middle[1] - 14, low[2] + 12), (8.0, 9.0, 19.0))
            anatomy.add("thyroid", lobe, suv, 80, texture=0.15)
    if scan.uniform() < 0.25:
        suv = float(scan.uniform(1.8, 5.0))
        for side in (-1, 1) if scan.uniform() < 0.7 else (1,):
            cord = Ellipsoid((middle[0] + side * 6, middle[1] - 22, middle[2] + 6), (4.0, 9.0, 4.0))
            anatomy.add("vocal cord", cord, suv, 50)
    if scan.uniform() < 0.4:
        suv = float(scan.uniform(2.0, 6.5))
        for side in (-1, 1):
            size = point_of(scan.uniform(5, 9, 3))
            tonsil = Ellipsoid((middle[0] + side * 18, middle[1] - 6, top[2] + 22), size)
            anatomy.add("tonsil", tonsil, suv * float(scan.uniform(0.8, 1.2)), 50)


def _add_brown_fat(anatomy: Anatomy, scan: Generator) -> None:
    """Add spots of brown fat beside neck, shoulders and spine, on both sides."""
    if scan.uniform() > 0.12:
        return
    suv = float(np.exp(scan.uniform(np.log(2), np.log(10))))
    for name in ("supraclavicular", "neck", "axilla"):
        for point in anatomy.sites.get(name, []):
            for _ in range(int(scan.integers(0, 3))):
                spot = point_of(np.array(point) + scan.normal(0, [9, 9, 14], 3))
                blob = Ellipsoid(spot, point_of(scan.uniform(4, 11, 3)))
                anatomy.add("brown fat", blob, suv * float(scan.uniform(0.4, 1.1)), FAT_HU)


def _add_injection(anatomy: Anatomy, scan: Generator) -> None:
    """Add an injection site or a stretch of vein on one arm."""
    arms = [anatomy.sites[name] for name in ("arm_r", "arm_l") if anatomy.sites.get(name)]
    if not arms or scan.uniform() > 0.25:
        return
    arm = arms[int(scan.integers(len(arms)))]
    suv = float(np.exp(scan.uniform(np.log(2), np.log(40))))
    if scan.uniform() < 0.6:
        spot = point_of(np.array(arm[int(scan.integers(len(arm)))]) + scan.normal(0, 6, 3))
        size = point_of(scan.uniform(3, 14, 3))
        anatomy.add("injection", Ellipsoid(spot, size), suv, None)
    else:
        points = [point_of(np.array(p) + scan.normal(0, 3, 3)) for p in arm]
        anatomy.add("injection", Tube(points, float(scan.uniform(1.5, 3.5))), 0.5 * suv, None)
