"""Healthy anatomy of a phantom: its solids, and the FDG uptake of each.

`build_anatomy` draws all that differs between people (size, posture, organ positions and shapes)
from one random generator, and all that differs between scans (uptake, bladder filling, bowel,
distractors) from another. The result is a list of parts in painting order; later parts cover
earlier ones.

Uptake follows what FDG studies show an hour after injection, in SUV: liver 2–2.8, blood pool
1.3–1.9, brain 6–14, muscle 0.6, lung 0.4; heart muscle, bowel, kidneys and bladder vary most.
Physiological uptake that resembles disease (brown fat, an injected vein, strained muscles, hot
bowel, inflamed joints) is added on purpose: no threshold shall separate lesions from it.
"""

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.body import Anatomy, Frame
from nnunetv2_mip.phantom.head import add_brain, add_face
from nnunetv2_mip.phantom.organs import (
    add_bowel,
    add_distractors,
    add_heart,
    add_liver,
    add_pancreas,
    add_spleen,
    add_stomach,
    add_urinary_tract,
)
from nnunetv2_mip.phantom.skeleton import add_skeleton
from nnunetv2_mip.phantom.trunk import add_lungs, add_trunk, add_vessels


def build_anatomy(body: Generator, scan: Generator) -> Anatomy:
    """Random healthy body.

    Args:
        body: generator of what stays between two studies of a patient.
        scan: generator of what differs between them.
    """
    height = float(np.clip(body.normal(1.0, 0.045), 0.9, 1.1))
    frame = Frame(
        float(np.clip(body.normal(1.0, 0.05), 0.88, 1.12)) * height**0.5,
        float(np.clip(body.normal(1.0, 0.05), 0.88, 1.12)) * height**0.5,
        height,
    )
    anatomy = Anatomy(scale=(frame.width * frame.depth * frame.height) ** (1 / 3))
    female = bool(body.uniform() < 0.45)
    fat_mm = float(np.clip(body.lognormal(np.log(16), 0.4), 7, 38))
    blood = float(scan.uniform(1.3, 1.9))
    marrow = float(scan.uniform(1.0, 1.7))
    if scan.uniform() < 0.12:  # activated, as after growth factors
        marrow *= float(scan.uniform(1.6, 2.4))

    add_trunk(anatomy, frame, body, scan, fat_mm, female)
    add_lungs(anatomy, frame, body)
    add_vessels(anatomy, frame, blood)
    add_skeleton(anatomy, frame, marrow)
    add_brain(anatomy, frame, body, scan)
    add_face(anatomy, frame, scan)
    add_liver(anatomy, frame, body, scan)
    add_spleen(anatomy, frame, body, scan)
    add_stomach(anatomy, frame, body, scan)
    add_pancreas(anatomy, frame, scan)
    add_bowel(anatomy, frame, body, scan)
    add_heart(anatomy, frame, body, scan, blood)
    add_urinary_tract(anatomy, frame, body, scan, female)
    add_distractors(anatomy, frame, scan)
    add_sites(anatomy, frame)
    # Most scans start in the middle of the brain or above it, some at the vertex.
    anatomy.top_mm = frame.height * 1030 + float(scan.uniform(-55, 20))
    anatomy.bottom_mm = float(scan.uniform(-30, 50))
    return anatomy


def add_sites(anatomy: Anatomy, frame: Frame) -> None:
    """Add the sites of lymph nodes, on both sides where there are two, and sites in muscle."""
    stations = {
        "neck": [(34, -2, 850), (42, 4, 825), (38, 2, 800), (30, -6, 780)],
        "supraclavicular": [(58, -2, 782), (80, 4, 780)],
        "axilla": [(128, 10, 728), (136, 16, 706), (120, 0, 745)],
        "hilum": [(40, 4, 655), (46, 2, 635)],
        "retroperitoneum": [(22, 14, 450), (24, 14, 415), (22, 16, 380), (20, 16, 345)],
        "iliac": [(52, 10, 270), (68, -12, 215), (74, -32, 185)],
        "groin": [(80, -52, 150), (84, -54, 130)],
    }
    for name, points in stations.items():
        anatomy.sites[name] = [frame.at(s * x, y, z) for s in (-1, 1) for x, y, z in points]
    middle = [(-14, -20, 715), (12, -30, 700), (-16, -8, 680), (14, -8, 668), (0, 8, 650),
              (-8, -50, 690), (10, -48, 665)]  # fmt: skip
    anatomy.sites["mediastinum"] = [frame.at(*point) for point in middle]
    anatomy.sites["thigh"] = [
        frame.at(s * 92, y, z) for s in (-1, 1) for y, z in ((10, 70), (-10, 110))
    ]
    anatomy.sites["buttock"] = [frame.at(s * 80, 70, 200) for s in (-1, 1)]
