"""Head and neck of a phantom: skull, brain, glands, airway and thyroid.

Each function adds parts to an `Anatomy`; positions are nominal (see `phantom.body`).
"""

from numpy.random import Generator

from nnunetv2_mip.phantom.body import Anatomy, Frame
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid


def add_brain(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    """Add skull and brain."""
    skull = Ellipsoid(frame.at(0, -2, 950), frame.semi(69, 85, 78))
    anatomy.add("skull", skull, 0.7, 800)
    grey = float(scan.uniform(7.0, 14.0))
    deformation = Deformation.draw(body, 1.2, 45)
    brain = [
        Ellipsoid(
            frame.at(side * 24, -6, 962), frame.semi(40, 78, 56), power=2.3, deformation=deformation
        )
        for side in (-1, 1)
    ]
    brain.append(Ellipsoid(frame.at(0, -6, 965), frame.semi(30, 74, 52), deformation=deformation))
    brain.append(Ellipsoid(frame.at(0, 34, 920), frame.semi(50, 36, 30), deformation=deformation))
    brain.append(Ellipsoid(frame.at(0, 6, 912), frame.semi(16, 16, 26), deformation=deformation))
    anatomy.add("brain", brain, grey, 38, texture=0.11)
    white = [
        Ellipsoid(frame.at(side * 24, -6, 964), frame.semi(20, 52, 30), deformation=deformation)
        for side in (-1, 1)
    ]
    anatomy.add("white matter", white, 0.45 * grey, 32, texture=0.12)


def add_face(anatomy: Anatomy, frame: Frame, scan: Generator) -> None:
    """Add jaw, glands, tonsils, eyes, airway, larynx and thyroid."""
    teeth = frame.tube(
        [(-38, -30, 872), (-26, -72, 866), (0, -84, 864), (26, -72, 866), (38, -30, 872)], 7
    )
    anatomy.add("jaw", teeth, 0.8, 700)
    anatomy.add("airway", frame.tube([(0, -14, 868), (0, -16, 830), (0, -2, 720)], 7), 0.3, -950)
    pharynx = float(scan.uniform(1.1, 2.0))
    anatomy.add("neck", frame.tube([(0, -10, 875), (0, -14, 790)], 15), 1.1, None, 0.25)
    for side in (-1, 1):
        anatomy.add(
            "gland", Ellipsoid(frame.at(side * 55, -4, 880), frame.semi(11, 15, 19)), pharynx, 40
        )
        anatomy.add(
            "gland",
            Ellipsoid(frame.at(side * 28, -40, 850), frame.semi(11, 14, 9)),
            0.9 * pharynx,
            40,
        )
        tonsil = float(scan.uniform(1.6, 4.2))
        anatomy.add(
            "tonsil", Ellipsoid(frame.at(side * 13, -22, 868), frame.semi(6, 8, 9)), tonsil, 45
        )
        eye = Ellipsoid(frame.at(side * 30, -78, 925), frame.semi(12, 12, 12))
        anatomy.add("eye", eye, 1.2, 10)
    thyroid = float(scan.choice([1.2, 1.5, 4.0], p=[0.5, 0.4, 0.1]))
    larynx = float(scan.uniform(1.2, 3.0))
    anatomy.add("larynx", Ellipsoid(frame.at(0, -26, 822), frame.semi(12, 9, 6)), larynx, 50)
    for side in (-1, 1):
        lobe = Ellipsoid(frame.at(side * 15, -22, 798), frame.semi(8, 8, 17))
        anatomy.add("thyroid", lobe, thyroid, 100)
