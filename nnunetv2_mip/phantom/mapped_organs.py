"""Organs of a label map in a phantom: their uptake, and the phantom's own organs for missing ones.

FDG uptake, SUV at about an hour, drawn for each scan from normal distributions cut at two standard
deviations:

- liver 2.1 ± 0.3, between 2.34 ± 0.16 of 531 patients (Parlak et al., Istanbul Medical Journal 20,
  2019) and 1.88 ± 0.41 of 343 (Liu et al., Iranian Journal of Radiology 16, 2019);
- blood pool 1.57 ± 0.14 (Parlak et al.);
- brain: grey matter as the cerebellum, 8.0 ± 2.2 (Wang et al., Molecular Imaging and Biology 9,
  2007); white matter 0.45 of it is our choice;
- heart muscle: like blood in 55 % of the scans, patchy in 28 %, all of it hot in the rest, as after
  an overnight fast (Kumar et al., Indian Journal of Nuclear Medicine 29, 2014); the SUV of the hot
  ones is our choice.

Spleen, kidneys, stomach, bowel, marrow, muscle, fat, lung and urine have the phantom's own ranges
(`phantom.anatomy`).
"""

from dataclasses import replace

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.body import LUNG_HU, LUNG_SUV, Anatomy
from nnunetv2_mip.phantom.distance_field import DistanceField, Intersection
from nnunetv2_mip.phantom.fitted_frame import KIDNEY_Z, FittedFrame
from nnunetv2_mip.phantom.head import add_brain, add_face
from nnunetv2_mip.phantom.organs import (
    PROSTATE_SUV,
    add_calyces,
    add_heart,
    add_liver,
    add_male_organs,
    add_spleen,
    add_stomach,
    add_ureter,
    add_urinary_tract,
    add_uterus,
)
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid, Solid, point_of, rotation
from nnunetv2_mip.phantom.trunk import add_lungs

LIVER_SUV, BLOOD_SUV, GREY_SUV = (2.1, 0.3), (1.57, 0.14), (8.0, 2.2)
# Shares of scans whose heart muscle is like blood, patchy, or hot all over.
HEART_SHARES = (0.55, 0.28, 0.17)
# A side with a smaller share of the kidneys' points has no kidney.
LEAST_KIDNEY_SHARE = 0.1
# Solids of the label map by organ.
Organs = dict[str, DistanceField]


def draw_suv(rng: Generator, distribution: tuple[float, float]) -> float:
    """Random value of a normal distribution (mean, standard deviation), cut at two deviations."""
    mean, spread = distribution
    return mean + spread * float(np.clip(rng.normal(), -2, 2))


def kidneys_by_side(organs: Organs, midline_x: float) -> dict[int, np.ndarray]:
    """Points (n, 3) of the kidney of each side, -1 right and 1 left; a missing kidney is left out.

    Args:
        organs: with a kidney, which is one solid for both sides.
        midline_x: x of the body's midline at the kidneys, mm.
    """
    points = organs["kidney"].points
    sides = {side: points[(points[:, 0] - midline_x) * side > 0] for side in (-1, 1)}
    least = LEAST_KIDNEY_SHARE * len(points)
    return {side: one for side, one in sides.items() if len(one) >= least}


def add_mapped_head(
    anatomy: Anatomy, frame: FittedFrame, organs: Organs, body: Generator, scan: Generator
) -> None:
    """Add brain, face and glands: those of the map, or else the phantom's own."""
    if "brain" not in organs:
        add_brain(anatomy, frame, body, scan)
        add_face(anatomy, frame, scan)
        return
    add_face(anatomy, frame, scan)
    if "gland" in organs:
        anatomy.parts = [part for part in anatomy.parts if part.name != "gland"]
    brain, grey = organs["brain"], draw_suv(scan, GREY_SUV)
    anatomy.add("skull", brain.grown(7), 0.7, 800)
    anatomy.add("brain", brain.grown(1), grey, 38, texture=0.11)
    # Cortex folds: the white matter's surface is uneven.
    folds = (Deformation.draw(body, 2.5, 34), *brain.deformations)
    white = replace(brain.grown(-11), deformations=folds)
    anatomy.add("white matter", white, 0.45 * grey, 32, texture=0.12)
    points = brain.points
    middle = np.array([np.percentile(points[:, k], p) for k, p in enumerate((50, 50, 40))])
    for side in (-1, 1):
        nucleus = Ellipsoid(tuple(middle + [side * 17 * frame.width, -4, 0]), frame.semi(8, 20, 11))
        anatomy.add("basal ganglia", nucleus, 1.05 * grey, 38, texture=0.1)
    if "gland" in organs:
        anatomy.add("gland", organs["gland"], float(scan.uniform(1.1, 2.0)), 40, texture=0.15)


def add_mapped_trunk_organs(
    anatomy: Anatomy,
    frame: FittedFrame,
    organs: Organs,
    body: Generator,
    scan: Generator,
    blood: float,
) -> None:
    """Add lungs, liver, spleen, stomach and heart: those of the map, or else the phantom's own."""
    if "lung" in organs:
        anatomy.add("lung", organs["lung"], LUNG_SUV, LUNG_HU, texture=0.25)
    else:
        add_lungs(anatomy, frame, body)
    liver = draw_suv(scan, LIVER_SUV)
    if "liver" in organs:
        anatomy.add("liver", organs["liver"], liver, 105, texture=0.05)
    else:
        add_liver(anatomy, frame, body, scan)
    if "spleen" in organs:
        spleen = liver * float(scan.uniform(0.72, 1.0))
        anatomy.add("spleen", organs["spleen"], spleen, 110, texture=0.05)
    else:
        add_spleen(anatomy, frame, body, scan)
    if "stomach" in organs:
        anatomy.add("stomach", organs["stomach"], float(scan.uniform(1.1, 2.6)), 40, texture=0.25)
        anatomy.add("stomach lumen", organs["stomach"].grown(-9), 0.7, 10, texture=0.2)
    else:
        add_stomach(anatomy, frame, body, scan)
    if "heart" in organs:
        _add_mapped_heart(anatomy, organs["heart"], scan, blood)
    else:
        add_heart(anatomy, frame, body, scan, blood)


def _add_mapped_heart(
    anatomy: Anatomy, heart: DistanceField, scan: Generator, blood: float
) -> None:
    """Add the map's heart, filled with blood, and the wall of its left ventricle."""
    anatomy.add("heart", heart, blood, 130, texture=0.1)
    points = heart.points
    low, high = np.percentile(points, (2, 98), axis=0)
    size = float(np.clip(np.prod(high - low) ** (1 / 3) / 105, 0.85, 1.1))
    centre = points.mean(0) + (high - low) * [0.17, -0.02, -0.10]
    turn = rotation(degrees_x=-38, degrees_z=-48) @ rotation(degrees_x=90)
    semi = point_of(size * s for s in (31, 31, 43))
    muscle = Intersection([Ellipsoid(tuple(centre), semi, turn), heart.grown(3)])
    kind = int(scan.choice(3, p=HEART_SHARES))
    if kind == 0:
        suv, texture = blood * float(scan.uniform(1.0, 1.4)), 0.12
    elif kind == 1:
        suv, texture = float(scan.uniform(2.5, 6.0)), 0.4
    else:
        suv, texture = float(scan.uniform(6.0, 14.0)), 0.14
    anatomy.add("myocardium", muscle, suv, 110, texture=texture)
    # The cavity is open towards the valves.
    axis = turn[:, 2] * (1 if turn[0, 2] < 0 else -1)
    cavity = Ellipsoid(tuple(centre + 12 * size * axis), (19 * size, 19 * size, 38 * size), turn)
    anatomy.add("heart", Intersection([cavity, heart.grown(3)]), blood, 150, texture=0.1)


def add_mapped_urinary_tract(
    anatomy: Anatomy,
    frame: FittedFrame,
    organs: Organs,
    body: Generator,
    scan: Generator,
    female: bool,
) -> None:
    """Add kidneys, ureters and bladder, with the uterus or the male organs beside it."""
    if "kidney" not in organs or "bladder" not in organs:
        add_urinary_tract(anatomy, frame, body, scan, female)
        return
    cortex = float(scan.uniform(1.8, 3.6))
    urine = float(np.exp(scan.uniform(np.log(6), np.log(30))))
    kidney, bladder = organs["kidney"], organs["bladder"]
    anatomy.add("kidney", kidney, cortex, 170, texture=0.15)
    pool = bladder.points
    for side, points in kidneys_by_side(organs, frame.at(0, 0, KIDNEY_Z)[0]).items():
        centre = points.mean(0)
        tilt = rotation(degrees_y=side * 12)
        hilum = centre + tilt @ np.array([-side * 9.0, -4.0, -2.0])
        add_calyces(anatomy, scan, side, hilum, tilt, urine)
        end = pool.mean(0) + [side * 0.8 * pool[:, 0].std() * 2, 8, -5]
        add_ureter(anatomy, frame, scan, side, hilum, tuple(end), urine)
    if female:
        add_uterus(anatomy, frame, scan)
    anatomy.add("bladder", bladder, urine, 8, texture=0.03)
    if not female:
        prostate: Solid = (
            organs["prostate"]
            if "prostate" in organs
            else Ellipsoid(frame.at(0, -18, 138), frame.semi(19, 15, 15))
        )
        anatomy.add("prostate", prostate, PROSTATE_SUV, 45, texture=0.2)
        anatomy.add("bladder", bladder, urine, 8, texture=0.03)
        add_male_organs(anatomy, frame, scan, urine)
