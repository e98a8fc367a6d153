"""Organs of the trunk of a phantom, and uptake that is not disease.

Each function adds parts to an `Anatomy`; positions are nominal (see `phantom.body`). `body` is the
random generator of what stays between two studies of a patient, `scan` that of what differs.
"""

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.body import FAT_HU, Anatomy, Frame
from nnunetv2_mip.phantom.shapes import Deformation, Ellipsoid, Point, Tube, point_of, rotation

PROSTATE_SUV = 1.3


def add_liver(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    """Add liver and gallbladder."""
    liver_suv = float(scan.uniform(1.9, 2.8))
    size = float(np.clip(body.normal(1.0, 0.06), 0.88, 1.15))
    shift = body.normal(0, 4, 3)
    liver = [
        Ellipsoid(
            frame.at(-72 + shift[0], -4, 492 + shift[2]),
            frame.semi(67 * size, 80, 70 * size),
            rotation(degrees_y=-14),
            power=2.4,
            deformation=Deformation.draw(body, 3, 130),
        ),
        Ellipsoid(
            frame.at(-86 + shift[0], 8, 446 + shift[2]),
            frame.semi(52, 64, 78 * size),
            rotation(degrees_y=6),
            deformation=Deformation.draw(body, 3, 110),
        ),
        Ellipsoid(
            frame.at(4 + shift[0], -44, 508 + shift[2]),
            frame.semi(72 * size, 36, 34 * size),
            rotation(degrees_y=-20),
            deformation=Deformation.draw(body, 2, 100),
        ),
    ]
    anatomy.add("liver", liver, liver_suv, 105, texture=0.05)
    gallbladder = Ellipsoid(frame.at(-52, -58, 430), frame.semi(14, 14, 24))
    anatomy.add("gallbladder", gallbladder, 0.6 * liver_suv, 12)


def add_spleen(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    spleen = Ellipsoid(
        frame.at(104, 40, 496),
        frame.semi(25, 40, 52) if body.uniform() < 0.85 else frame.semi(31, 48, 68),
        rotation(degrees_y=16, degrees_z=12),
        deformation=Deformation.draw(body, 2, 80),
    )
    anatomy.add("spleen", spleen, float(scan.uniform(1.5, 2.3)), 110, texture=0.05)


def add_stomach(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    stomach = [
        Ellipsoid(
            frame.at(62, -18, 512),
            frame.semi(40, 44, 42),
            deformation=Deformation.draw(body, 3, 70),
        ),
        frame.tube([(64, -28, 490), (46, -50, 440), (0, -52, 418)], [30, 24, 17]),
    ]
    wall = float(scan.uniform(1.1, 2.6))
    anatomy.add("stomach", stomach, wall, 40, texture=0.25)
    lumen = [
        Ellipsoid(frame.at(62, -18, 512), frame.semi(29, 33, 31)),
        frame.tube([(64, -28, 490), (46, -50, 445)], [20, 13]),
    ]
    anatomy.add("stomach lumen", lumen, 0.7, 10, texture=0.2)


def add_pancreas(anatomy: Anatomy, frame: Frame, scan: Generator) -> None:
    """Add pancreas and oesophagus."""
    pancreas = frame.tube([(-30, -12, 415), (10, -16, 432), (60, 8, 448)], [15, 11, 10])
    anatomy.add("pancreas", pancreas, float(scan.uniform(1.1, 1.7)), 80, texture=0.15)
    oesophagus = frame.tube([(2, 22, 730), (6, 20, 600), (24, 4, 535)], 7)
    anatomy.add("oesophagus", oesophagus, float(scan.uniform(1.2, 2.4)), 40, texture=0.2)


def add_bowel(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    """Add colon and coiled small bowel, each loop with an uptake of its own."""
    colon = np.array(
        [
            (-100, -5, 235), (-108, 0, 290), (-106, 10, 350), (-98, 0, 392), (-50, -52, 380),
            (0, -62, 355), (50, -55, 385), (98, 0, 440), (110, 22, 390), (110, 20, 310),
            (100, 5, 262), (66, -15, 238), (30, 5, 246), (10, 30, 222), (0, 44, 180), (0, 44, 150),
        ],
        float,
    )  # fmt: skip
    colon[1:-2] += body.normal(0, 9, (len(colon) - 3, 3))
    level = float(scan.choice([1.0, 1.4, 2.2, 3.6], p=[0.45, 0.33, 0.15, 0.07]))
    for k in range(len(colon) - 1):
        width = float(scan.uniform(13, 20))
        piece = np.linspace(colon[k], colon[k + 1], 4)
        piece[1:3] += scan.normal(0, 5, (2, 3))
        suv = level * float(scan.lognormal(-0.1, 0.35))
        anatomy.add("colon", frame.tube(piece, width), suv, 20, texture=0.3)
        if scan.uniform() < 0.35:
            middle = [frame.at(*p) for p in piece[1:3]]
            anatomy.add("gas", Tube(middle, 0.55 * width), 0.6 * suv, -850)
    loops = float(scan.choice([0.9, 1.3, 2.0], p=[0.5, 0.35, 0.15]))
    position, heading = np.array([20.0, -30.0, 400.0]), scan.normal(size=3)
    low, high = np.array([-82, -62, 225]), np.array([82, -2, 405])
    for _ in range(16):
        path = [tuple(position)]
        for _ in range(4):
            heading = 0.75 * heading / np.linalg.norm(heading) + scan.normal(0, 0.45, 3)
            position = position + 24 * heading / np.linalg.norm(heading)
            outside = (position < low) | (position > high)
            heading[outside] *= -1
            position = np.clip(position, low, high)
            path.append(tuple(position))
        suv = loops * float(scan.lognormal(-0.1, 0.3))
        anatomy.add("small bowel", frame.tube(path, 10), suv, 30, texture=0.25)


def add_heart(
    anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator, blood: float
) -> None:
    """Add the right heart, and the left ventricle's wall, as dark as blood to hot, with cavity."""
    centre = np.array([34, -36, 590]) + body.normal(0, 4, 3)
    right = Ellipsoid(frame.at(*(centre + [-28, 2, 8])), frame.semi(42, 40, 42))
    anatomy.add("heart", right, blood, 130, texture=0.1)
    turn = rotation(degrees_x=-38, degrees_z=-48) @ rotation(degrees_x=90)
    muscle = Ellipsoid(frame.at(*(centre + [12, -4, -6])), (31, 31, 43), turn)
    fasting = scan.uniform()
    if fasting < 0.35:
        suv = blood * float(scan.uniform(1.0, 1.4))
    elif fasting < 0.7:
        suv = float(scan.uniform(2.5, 6.0))
    else:
        suv = float(scan.uniform(7.0, 15.0))
    anatomy.add("myocardium", muscle, suv, 110, texture=0.16)
    # The cavity is open towards the valves.
    axis = turn[:, 2] * (1 if turn[0, 2] < 0 else -1)
    cavity = Ellipsoid(tuple(np.array(muscle.centre) + 12 * axis), (19, 19, 38), turn)
    anatomy.add("heart", cavity, blood, 150, texture=0.1)
    anatomy.sites["behind heart"] = [frame.at(26, 22, 592), frame.at(6, 24, 575)]


def add_urinary_tract(
    anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator, female: bool
) -> None:
    """Add kidneys with calyces, ureters and bladder, with the uterus or the male organs."""
    cortex = float(scan.uniform(1.8, 3.6))
    urine = float(np.exp(scan.uniform(np.log(6), np.log(30))))
    fill = float(scan.uniform(0.55, 1.25))
    bladder_z = 168 + 16 * fill
    for side, z in ((-1, 412), (1, 426)):
        tilt = rotation(degrees_y=side * 12)
        centre = np.array(frame.at(side * 64, 40, z + float(body.normal(0, 7))))
        kidney = Ellipsoid(
            tuple(centre), frame.semi(27, 24, 54), tilt, deformation=Deformation.draw(body, 2, 60)
        )
        anatomy.add("kidney", kidney, cortex, 170, texture=0.15)
        hilum = centre + tilt @ np.array([-side * 13.0, -5.0, -4.0])
        add_calyces(anatomy, scan, side, hilum, tilt, urine)
        anatomy.sites.setdefault("beside kidney", []).append(
            tuple(centre + [-side * 42.0, -6.0, -8.0])
        )
        add_ureter(anatomy, frame, scan, side, hilum, frame.at(side * 30, 18, bladder_z - 8), urine)
    bladder = Ellipsoid(
        frame.at(float(body.normal(0, 4)), -26, bladder_z),
        point_of(fill * s for s in frame.semi(43, 36, 30)),
        deformation=Deformation.draw(scan, 2, 90),
    )
    anatomy.add("bladder", bladder, urine, 8, texture=0.03)
    reach = fill * 43 * frame.width
    anatomy.sites["beside bladder"] = [
        (bladder.centre[0] + side * (reach + 17), bladder.centre[1] + 16, bladder.centre[2] + 2)
        for side in (-1, 1)
    ]
    anatomy.sites["behind bladder"] = [
        (bladder.centre[0], bladder.centre[1] + fill * 36 * frame.depth + 17, bladder.centre[2])
    ]
    if female:
        add_uterus(anatomy, frame, scan)
        anatomy.add("bladder", bladder, urine, 8, texture=0.03)
    else:
        prostate = Ellipsoid(frame.at(0, -18, 138), frame.semi(19, 15, 15))
        anatomy.add("prostate", prostate, PROSTATE_SUV, 45, 0.2)
        add_male_organs(anatomy, frame, scan, urine)


def add_calyces(
    anatomy: Anatomy,
    scan: Generator,
    side: int,
    hilum: np.ndarray,
    tilt: np.ndarray,
    urine: float,
) -> None:
    """Add calyces and pelvis of the kidney of a side (-1 right, 1 left), around its hilum (mm)."""
    concentration = urine * float(scan.uniform(0.3, 0.75))
    for _ in range(int(scan.integers(6, 12))):
        reach = np.array(
            [side * scan.uniform(-4, 12), scan.uniform(-12, 10), scan.uniform(-36, 36)]
        )
        calyx = Ellipsoid(tuple(hilum + tilt @ reach), tuple(scan.uniform(4, 8, 3)))
        anatomy.add("calyx", calyx, concentration * float(scan.uniform(0.35, 1.0)), 60)
    pelvis = Ellipsoid(
        tuple(hilum + [-side * 8, -4, 0]), tuple(scan.uniform((6, 5, 9), (11, 8, 18)))
    )
    anatomy.add("renal pelvis", pelvis, concentration, 40)


def add_ureter(
    anatomy: Anatomy,
    frame: Frame,
    scan: Generator,
    side: int,
    hilum: np.ndarray,
    end: Point,
    urine: float,
) -> None:
    """Add the filled stretches of a ureter, from a kidney's hilum to its `end` at the bladder."""
    course = [
        tuple(hilum + [-side * 12.0, -4.0, -14.0]),
        frame.at(side * 40, 22, 360),
        frame.at(side * 38, 18, 300),
        frame.at(side * 50, 26, 240),
        end,
    ]
    for k in range(len(course) - 1):  # peristalsis: only some stretches are filled
        if scan.uniform() < 0.4:
            start, stop = np.array(course[k]), np.array(course[k + 1])
            a = float(scan.uniform(0, 0.4))
            b = float(scan.uniform(a + 0.2, 1.0))
            stretch = [tuple(start + a * (stop - start)), tuple(start + b * (stop - start))]
            suv = urine * float(scan.uniform(0.2, 0.9))
            anatomy.add("ureter", Tube(stretch, float(scan.uniform(2.0, 3.6))), suv, 20)


def add_uterus(anatomy: Anatomy, frame: Frame, scan: Generator) -> None:
    uterus = Ellipsoid(frame.at(0, 18, 208), frame.semi(24, 20, 30), rotation(30))
    anatomy.add("uterus", uterus, float(scan.uniform(0.9, 2.0)), 70, texture=0.2)


def add_male_organs(anatomy: Anatomy, frame: Frame, scan: Generator, urine: float) -> None:
    """Add testes, penis and, in a quarter of the scans, urine in the urethra."""
    testis = float(scan.uniform(1.5, 3.2))
    for side in (-1, 1):
        testicle = Ellipsoid(frame.at(side * 18, -72, 72), frame.semi(12, 13, 19))
        anatomy.outline.append(Ellipsoid(testicle.centre, point_of(s + 6 for s in testicle.semi)))
        anatomy.add("testis", testicle, testis, 40, inside=False)
    penis = frame.tube([(0, -62, 130), (0, -88, 95), (2, -92, 55)], 13)
    anatomy.outline.append(penis)
    anatomy.add("penis", penis, 0.8, 40, texture=0.2, inside=False)
    if scan.uniform() < 0.25:
        urethra = frame.tube([(0, -84, 98), (2, -90, 62)], 3)
        anatomy.add("urethra", urethra, 0.35 * urine, 20)


def add_distractors(anatomy: Anatomy, frame: Frame, scan: Generator) -> None:
    """Add uptake that is not disease, at sites and rates known from reading studies."""
    if scan.uniform() < 0.1:
        suv = float(scan.uniform(3, 9))
        for side in (-1, 1):
            for point in [
                (62, 12, 792),
                (88, 18, 782),
                (108, 22, 768),
                (40, 14, 812),
                (26, 66, 690),
            ]:
                spread = scan.normal(0, 4, 3)
                spot = tuple(np.array(frame.at(side * point[0], *point[1:])) + spread)
                blob = Ellipsoid(spot, tuple(scan.uniform(5, 11, 3)))
                anatomy.add("brown fat", blob, suv * float(scan.uniform(0.5, 1.1)), FAT_HU)
    if scan.uniform() < 0.2:
        arm = anatomy.sites["arm_r" if scan.uniform() < 0.5 else "arm_l"]
        vein = np.array(arm[2]) + scan.normal(0, 6, 3)
        anatomy.add(
            "injection", Ellipsoid(tuple(vein), (5, 5, 7)), float(scan.uniform(4, 25)), None
        )
    if scan.uniform() < 0.15:
        suv, side = float(scan.uniform(1.4, 2.6)), scan.choice([-1, 1])
        strained = frame.tube([(side * 24, 62, 470), (side * 22, 78, 600)], [15, 11])
        anatomy.add("strained muscle", strained, suv, None, texture=0.3)
    if scan.uniform() < 0.15:
        suv = float(scan.uniform(1.4, 2.4))
        for side in (-1, 1):
            neck = frame.tube([(side * 34, 8, 850), (side * 44, 26, 800)], [7, 9])
            anatomy.add("strained muscle", neck, suv, None, texture=0.3)
    if scan.uniform() < 0.3:
        for side in (-1, 1):
            x, y, z = (150, 10, 758) if scan.uniform() < 0.6 else (110, 8, 170)
            joint = Ellipsoid(frame.at(side * x, y, z + 4), frame.semi(24, 20, 10))
            anatomy.add("joint", joint, float(scan.uniform(1.2, 2.4)), None, texture=0.35)
