"""Trunk and limbs of a phantom: skin, fat, muscle, lungs and vessels.

Each function adds parts to an `Anatomy`; positions are nominal (see `phantom.body`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.body import (
    BONE_HU,
    FAT_HU,
    FAT_SUV,
    LUNG_HU,
    LUNG_SUV,
    MUSCLE_HU,
    MUSCLE_SUV,
    TRUNK,
    Anatomy,
    Frame,
)
from nnunetv2_mip.phantom.shapes import (
    Column,
    Deformation,
    Ellipsoid,
    Point,
    Solid,
    point_of,
    rotation,
)

# Share of the subcutaneous fat at these heights.
FAT_PROFILE = ([95, 180, 330, 540, 720, 795, 830, 880], [0.9, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


@dataclass
class _Layers:
    """Solids of a body under collection: skin, flesh (skin without fat) and long bones."""

    skin: list[Solid]
    flesh: list[Solid]
    bones: list[Solid]


def add_trunk(
    anatomy: Anatomy,
    frame: Frame,
    body: Generator,
    scan: Generator,
    fat_mm: float,
    female: bool,
    skin_around: Sequence[Solid] = (),
    flesh_around: Sequence[Solid] = (),
) -> None:
    """Add skin, fat, muscle, limbs with their long bones, breasts, and the abdominal cavity.

    Args:
        fat_mm: thickness of the subcutaneous fat.
        skin_around, flesh_around: more solids of the skin and of the muscle.
    """
    inner, outer = _torso(frame, fat_mm, female)
    layers = _Layers([Column(outer)], [Column(inner)], [])
    _collect_thighs(layers, frame, fat_mm)
    _collect_arms(layers, anatomy, frame, scan, fat_mm)
    _collect_head(layers, frame, body)
    layers.skin += skin_around
    layers.flesh += flesh_around
    breasts = _breasts(frame, body, fat_mm) if female else []
    layers.skin += breasts

    anatomy.outline = layers.skin
    anatomy.add("fat", layers.skin, FAT_SUV, FAT_HU, texture=0.2, inside=False)
    if breasts:
        glands = [
            Ellipsoid(
                (b.centre[0], b.centre[1] + 6, b.centre[2]), point_of(0.55 * s for s in b.semi)
            )
            for b in breasts
        ]
        anatomy.add("breast", glands, float(scan.uniform(0.5, 1.1)), 10, texture=0.2)
    muscle = MUSCLE_SUV * float(scan.uniform(0.85, 1.2))
    anatomy.add("muscle", layers.flesh, muscle, MUSCLE_HU, texture=0.2)
    anatomy.add("long bone", layers.bones, 0.75, BONE_HU, texture=0.1)
    # The abdominal cavity: fat between the organs, slightly brighter than the muscle around it.
    cavity = [
        Ellipsoid(frame.at(0, -18, 370), frame.semi(122, 70, 170), power=3.0),
        Ellipsoid(frame.at(0, -5, 215), frame.semi(85, 60, 80)),
    ]
    anatomy.add("cavity", cavity, 0.62, -60, texture=0.35)


def _torso(frame: Frame, fat_mm: float, female: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the muscle surface and of the skin of the trunk, in mm (see `Frame.column`)."""
    inner = frame.column()
    if female:
        hips = np.exp(-(((TRUNK[:, 0] - 190) / 80) ** 2))
        inner[:, 1] *= 1 + 0.05 * hips - 0.04 * (TRUNK[:, 0] > 400)
    outer = inner.copy()
    fat = fat_mm * np.interp(TRUNK[:, 0], *FAT_PROFILE)
    outer[:, 1:3] += fat[:, None]
    # A belly grows to the front.
    belly = np.exp(-(((TRUNK[:, 0] - 340) / 110) ** 2)) * max(0, fat_mm - 12)
    outer[:, 2] += 0.7 * belly
    outer[:, 3] -= 0.7 * belly
    inner[:, 2] += 0.4 * belly
    inner[:, 3] -= 0.4 * belly
    return inner, outer


def _collect_thighs(layers: _Layers, frame: Frame, fat_mm: float) -> None:
    for side in (-1, 1):
        thigh = [(88, 5, 165), (92, 5, 80), (97, 8, -60)]
        mirrored = [(side * x, y, z) for x, y, z in thigh]
        muscle = np.array([80, 74, 66]) * frame.width
        layers.flesh.append(frame.tube(mirrored, muscle))
        layers.skin.append(frame.tube(mirrored, muscle + 0.7 * fat_mm))
        layers.bones.append(
            frame.tube([(side * x, y, z) for x, y, z in [(128, 8, 150), (100, 5, -60)]], 13)
        )


def _collect_arms(
    layers: _Layers, anatomy: Anatomy, frame: Frame, scan: Generator, fat_mm: float
) -> None:
    """Collect both arms, raised in most scans, and name their sites `arm_r` and `arm_l`."""
    arms_up = bool(scan.uniform() < 0.72)
    for side in (-1, 1):
        jitter = scan.normal(0, 10, 3)
        path: list[Point]
        if arms_up:
            path = [(150, 12, 762), (196, -6, 845), (212, -20, 960), (150, -30, 1085)]
            path[2] = tuple(np.array(path[2]) + jitter)
        else:
            path = [
                (152, 12, 755),
                (208, 20, 640),
                (228, 26, 470),
                (220, -10, 250),
                (214, -18, 170),
            ]
            path[2] = tuple(np.array(path[2]) + 0.6 * jitter)
            # Arms lie beside the trunk, whatever its girth.
            path[1:] = [(min(x + 0.75 * fat_mm, 262 / frame.width), y, z) for x, y, z in path[1:]]
        path = [(side * x, y, z) for x, y, z in path]
        muscle = np.array([52, 40, 32, 27, 22][: len(path)]) * frame.width
        layers.flesh.append(frame.tube(path, muscle))
        layers.skin.append(frame.tube(path, muscle + 0.35 * fat_mm + 3))
        layers.bones.append(frame.tube(path, 9))
        anatomy.sites[f"arm_{'r' if side < 0 else 'l'}"] = [frame.at(*p) for p in path]


def _collect_head(layers: _Layers, frame: Frame, body: Generator) -> None:
    head = Ellipsoid(
        frame.at(0, -8, 938), frame.semi(75, 93, 94), deformation=Deformation.draw(body, 1, 90)
    )
    jaw = Ellipsoid(frame.at(0, -50, 872), frame.semi(48, 44, 46))
    layers.skin += [head, jaw]
    layers.flesh += [
        Ellipsoid(head.centre, point_of(s - 5 for s in head.semi)),
        Ellipsoid(jaw.centre, point_of(s - 6 for s in jaw.semi)),
    ]


def _breasts(frame: Frame, body: Generator, fat_mm: float) -> list[Ellipsoid]:
    size = float(body.uniform(45, 68))
    return [
        Ellipsoid(frame.at(side * 75, -95 - 0.5 * fat_mm, 628), (size, size * 0.75, size))
        for side in (-1, 1)
    ]


def add_lungs(anatomy: Anatomy, frame: Frame, body: Generator) -> None:
    """Add both lungs."""
    lungs = []
    for side, (half_width, half_height) in ((-1, (60, 122)), (1, (57, 126))):
        lungs.append(
            Ellipsoid(
                frame.at(side * 84, 8, 638),
                frame.semi(half_width, 80, half_height),
                power=2.5,
                turn=rotation(degrees_y=side * 5),
                deformation=Deformation.draw(body, 2.5, 120),
            )
        )
    anatomy.add("lung", lungs, LUNG_SUV, LUNG_HU, texture=0.25)


def add_vessels(anatomy: Anatomy, frame: Frame, blood: float) -> None:
    """Add the mediastinum, and the great vessels down to the thighs."""
    anatomy.add(
        "mediastinum",
        Ellipsoid(frame.at(4, -12, 680), frame.semi(30, 48, 95), power=2.5),
        0.9 * blood,
        40,
        texture=0.12,
    )
    trunk_vessels = [
        ([(8, -30, 610), (-6, -38, 670), (4, -22, 708), (18, 12, 704), (22, 34, 670)], 14),
        ([(22, 34, 670), (20, 30, 560), (10, 14, 430), (4, 10, 330)], [12, 11, 9, 8]),
        ([(-20, -12, 600), (-24, -22, 740), (-58, -8, 768)], 9),
        ([(-18, -2, 590), (-20, 8, 500), (-14, 12, 330)], [11, 11, 9]),
        ([(4, -22, 708), (26, -2, 780), (30, -2, 870)], [8, 5, 4]),
        ([(-10, -25, 715), (-28, -2, 780), (-31, -2, 870)], [7, 5, 4]),
        ([(18, -8, 735), (62, -6, 772), (130, 4, 768)], [6, 5, 4]),
        ([(-58, -8, 768), (-130, 4, 768)], [6, 4]),
    ]
    for side in (-1, 1):
        trunk_vessels.append(
            (
                [
                    (0, 11, 330),
                    (side * 40, 18, 265),
                    (side * 72, -38, 175),
                    (side * 78, -32, 60),
                    (side * 84, -14, -60),
                ],
                [7, 7, 6, 5, 5],
            )
        )
    anatomy.add("vessel", [frame.tube(p, r) for p, r in trunk_vessels], blood, 150, texture=0.12)
