"""Skeleton of a phantom: spine, ribs, sternum, pelvis and flat bones.

Each function adds parts to an `Anatomy`; positions are nominal (see `phantom.body`).
"""

import numpy as np

from nnunetv2_mip.phantom.body import BONE_HU, Anatomy, Frame
from nnunetv2_mip.phantom.shapes import Ellipsoid, Solid, point_of, rotation


def spine_y(z: float) -> float:
    """Nominal y (mm) of the vertebral bodies at the nominal height z: lordosis and kyphosis."""
    return float(np.interp(z, [200, 300, 400, 560, 650, 760, 880], [62, 42, 38, 52, 58, 42, 14]))


def add_skeleton(anatomy: Anatomy, frame: Frame, marrow: float) -> None:
    """Add spine, ribs, sternum, pelvis, and the flat bones of shoulder and hip.

    Args:
        marrow: SUV of the vertebral bodies; the marrow of other bones is a share of it.
    """
    _add_spine(anatomy, frame, marrow)
    _add_ribs(anatomy, frame, marrow)
    anatomy.add(
        "sternum",
        Ellipsoid(frame.at(0, -92, 650), frame.semi(17, 6, 72), rotation(-6), power=3.0),
        0.9 * marrow,
        220,
    )
    _add_pelvis_and_flat_bones(anatomy, frame, marrow)


def _add_spine(anatomy: Anatomy, frame: Frame, marrow: float) -> None:
    heights: list[float] = [292 + 33 * k for k in range(5)]
    heights += [heights[-1] + 30 + 24.5 * k for k in range(12)]
    heights += [heights[-1] + 20 + 16 * k for k in range(7)]
    vertebrae = []
    for k, z in enumerate(heights):
        semi = (22, 16, 12.5) if k < 5 else (16, 14, 9.5) if k < 17 else (10, 8, 6)
        vertebrae.append(Ellipsoid(frame.at(0, spine_y(z), z), frame.semi(*semi), power=3.5))
    anatomy.sites["spine"] = [v.centre for v in vertebrae[:18]]
    arches = [
        Ellipsoid(frame.at(0, spine_y(z) + 27, z), frame.semi(13, 10, 9)) for z in heights[:17]
    ]
    anatomy.add("spine", vertebrae, marrow, 230, texture=0.12)
    anatomy.add("spine", arches, 0.75 * marrow, BONE_HU)


def _add_ribs(anatomy: Anatomy, frame: Frame, marrow: float) -> None:
    ribs = []
    for k in range(10):
        back, drop = 735 - 22.5 * k, 30 + 6 * k
        angles = np.linspace(0.12, 0.93 if k < 7 else 0.7, 9) * np.pi
        for side in (-1, 1):
            path = []
            for angle in angles:
                z = back - drop * (angle / np.pi) ** 1.2
                a, b, y = (np.interp(z, frame.trunk[:, 0], frame.trunk[:, c]) for c in (1, 2, 3))
                path.append((side * (a - 9) * np.sin(angle), y + (b - 9) * np.cos(angle), z))
            ribs.append(frame.tube(path, 4.5))
    anatomy.sites["ribs"] = [point_of(p) for rib in ribs for p in rib.points[2:7]]
    anatomy.add("rib", ribs, 0.8 * marrow, BONE_HU)


def _add_pelvis_and_flat_bones(anatomy: Anatomy, frame: Frame, marrow: float) -> None:
    pelvis = [Ellipsoid(frame.at(0, 66, 238), frame.semi(36, 13, 48), rotation(18), power=2.5)]
    flat: list[Solid] = []
    for side in (-1, 1):
        pelvis.append(
            Ellipsoid(
                frame.at(side * 84, 38, 262),
                frame.semi(12, 46, 52),
                rotation(degrees_y=side * 24, degrees_z=side * -38),
                power=2.5,
            )
        )
        pelvis.append(Ellipsoid(frame.at(side * 92, 12, 182), frame.semi(26, 26, 26)))
        flat.append(frame.tube([(side * 62, -28, 150), (side * 12, -48, 142)], 9))
        flat.append(frame.tube([(side * 72, 34, 165), (side * 52, 30, 112)], 11))
        flat.append(frame.tube([(side * 96, 10, 182), (side * 128, 8, 150)], 15))
        flat.append(
            frame.tube([(side * 18, -66, 758), (side * 80, -34, 778), (side * 140, 4, 776)], 6)
        )
        flat.append(Ellipsoid(frame.at(side * 150, 10, 758), frame.semi(22, 22, 22)))
        flat.append(
            Ellipsoid(
                frame.at(side * 98, 76, 700), frame.semi(38, 5, 58), rotation(8, 0, side * 22)
            )
        )
    anatomy.sites["pelvis"] = [p.centre for p in pelvis]
    anatomy.sites["femur"] = [frame.at(s * 112, 8, z) for s in (-1, 1) for z in (165, 90, 40)]
    anatomy.sites["humerus"] = [frame.at(s * 150, 10, 758) for s in (-1, 1)]
    anatomy.add("pelvis", pelvis, 0.85 * marrow, 210, texture=0.12)
    anatomy.add("flat bone", flat, 0.65 * marrow, BONE_HU)
