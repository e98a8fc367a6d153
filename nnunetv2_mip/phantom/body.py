"""The phantom's frame: trunk, limbs, skeleton, lungs, vessels and head.

Each function adds parts to an `Anatomy`. Positions are nominal millimetres of a person of average
size (see `phantom_shapes` for the axes), which `Frame` maps to the one at hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

from nnunetv2_mip.phantom.shapes import Column, Ellipsoid, Point, Solid, Tube, Wobble, rotation

FAT_SUV, FAT_HU = 0.3, -100.0
MUSCLE_SUV, MUSCLE_HU = 0.68, 50.0
BONE_HU = 320.0
LUNG_SUV, LUNG_HU = 0.38, -820.0

# Muscle surface of the trunk: height, half width, half depth, y of the centre (mm).
TRUNK = np.array(
    [
        [95, 120, 60, 8],
        [140, 158, 86, 6],
        [180, 163, 100, 5],
        [260, 156, 101, 3],
        [330, 139, 95, 0],
        [420, 142, 98, 0],
        [540, 150, 104, 0],
        [640, 158, 102, 0],
        [720, 160, 88, 5],
        [765, 142, 70, 8],
        [795, 90, 58, 10],
        [830, 50, 50, 6],
        [880, 47, 50, 0],
    ],
    float,
)
# Share of the subcutaneous fat at these heights.
FAT_PROFILE = ([95, 180, 330, 540, 720, 795, 830, 880], [0.9, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


@dataclass(frozen=True)
class Part:
    """Something that is painted.

    Attributes:
        name: e.g. "liver"; several parts may share one.
        solids: their union is the part.
        suv, hu: what it holds; None leaves what is there.
        texture: spread of its uptake between spots, relative.
        inside: cut off at the body's surface.
    """

    name: str
    solids: Sequence[Solid]
    suv: float | None
    hu: float | None
    texture: float = 0.08
    inside: bool = True


@dataclass
class Anatomy:
    """A body, ready to be painted.

    Attributes:
        parts: in painting order, all in mm of the body's frame.
        outline: solids whose union is the body with its skin.
        top_mm, bottom_mm: heights between which the scan runs.
        sites: where lesions can sit, by name: lists of (x, y, z) mm.
        scale: size of the body relative to the nominal one.
        hidden_sites: those beside or behind hot organs.
        hidden_chance: how often a lesion at one of them is added to a diseased subject.
    """

    parts: list[Part] = field(default_factory=list)
    outline: list[Solid] = field(default_factory=list)
    top_mm: float = 1030.0
    bottom_mm: float = 20.0
    sites: dict[str, list[Point]] = field(default_factory=dict)
    scale: float = 1.0
    hidden_sites: Sequence[str] = (
        "beside bladder",
        "behind bladder",
        "behind heart",
        "beside kidney",
    )
    hidden_chance: float = 0.25

    def add(self, name, solids, suv=None, hu=None, texture=0.08, inside=True) -> None:
        solids = list(solids) if isinstance(solids, Sequence) else [solids]
        self.parts.append(Part(name, solids, suv, hu, texture, inside))

    def solids(self, name: str) -> list[Solid]:
        """All solids of the parts called `name`."""
        return [solid for part in self.parts if part.name == name for solid in part.solids]


@dataclass(frozen=True)
class Frame:
    """Maps nominal millimetres to this person's.

    Attributes:
        width, depth, height: size relative to the nominal one.
        trunk: the muscle surface, rows as in `TRUNK`, nominal.
    """

    width: float
    depth: float
    height: float
    trunk: np.ndarray = field(default_factory=lambda: TRUNK)

    def column(self) -> np.ndarray:
        """The trunk's rows (height, half width, half depth, y of the centre) here, in mm."""
        return self.trunk * [self.height, self.width, self.depth, self.depth]

    def at(self, x: float, y: float, z: float) -> Point:
        return x * self.width, y * self.depth, z * self.height

    def semi(self, x: float, y: float, z: float) -> Point:
        return self.at(x, y, z)

    def tube(self, points, radii) -> Tube:
        return Tube([self.at(*point) for point in points], radii)


def spine_y(z: float) -> float:
    """Nominal y of the vertebral bodies at the nominal height z (lordosis and kyphosis)."""
    return float(np.interp(z, [200, 300, 400, 560, 650, 760, 880], [62, 42, 38, 52, 58, 42, 14]))


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
    """Skin, fat, muscle, limbs with their long bones, breasts, and the abdominal cavity.

    `skin_around` and `flesh_around` are more solids of the skin and of the muscle.
    """
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

    skin, flesh, bones = [Column(outer)], [Column(inner)], []
    for side in (-1, 1):
        thigh = [(88, 5, 165), (92, 5, 80), (97, 8, -60)]
        mirrored = [(side * x, y, z) for x, y, z in thigh]
        muscle = np.array([80, 74, 66]) * frame.width
        flesh.append(frame.tube(mirrored, muscle))
        skin.append(frame.tube(mirrored, muscle + 0.7 * fat_mm))
        bones.append(
            frame.tube([(side * x, y, z) for x, y, z in [(128, 8, 150), (100, 5, -60)]], 13)
        )
    arms_up = bool(scan.uniform() < 0.72)
    for side in (-1, 1):
        jitter = scan.normal(0, 10, 3)
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
        flesh.append(frame.tube(path, muscle))
        skin.append(frame.tube(path, muscle + 0.35 * fat_mm + 3))
        bones.append(frame.tube(path, 9))
        anatomy.sites[f"arm_{'r' if side < 0 else 'l'}"] = [frame.at(*p) for p in path]
    head = Ellipsoid(frame.at(0, -8, 938), frame.semi(75, 93, 94), wobble=Wobble.draw(body, 1, 90))
    jaw = Ellipsoid(frame.at(0, -50, 872), frame.semi(48, 44, 46))
    skin += [head, jaw, *skin_around]
    flesh += [
        Ellipsoid(head.centre, tuple(s - 5 for s in head.semi)),
        Ellipsoid(jaw.centre, tuple(s - 6 for s in jaw.semi)),
        *flesh_around,
    ]
    breasts = []
    if female:
        size = float(body.uniform(45, 68))
        for side in (-1, 1):
            centre = (side * 75, -95 - 0.5 * fat_mm, 628)
            breasts.append(Ellipsoid(frame.at(*centre), (size, size * 0.75, size)))
    skin += breasts
    anatomy.outline = skin
    anatomy.add("fat", skin, FAT_SUV, FAT_HU, texture=0.2, inside=False)
    if breasts:
        glands = [
            Ellipsoid((b.centre[0], b.centre[1] + 6, b.centre[2]), tuple(0.55 * s for s in b.semi))
            for b in breasts
        ]
        anatomy.add("breast", glands, float(scan.uniform(0.5, 1.1)), 10, texture=0.2)
    muscle = MUSCLE_SUV * float(scan.uniform(0.85, 1.2))
    anatomy.add("muscle", flesh, muscle, MUSCLE_HU, texture=0.2)
    anatomy.add("long bone", bones, 0.75, BONE_HU, texture=0.1)
    # The abdominal cavity: fat between the organs, slightly brighter than the muscle around it.
    cavity = [
        Ellipsoid(frame.at(0, -18, 370), frame.semi(122, 70, 170), power=3.0),
        Ellipsoid(frame.at(0, -5, 215), frame.semi(85, 60, 80)),
    ]
    anatomy.add("cavity", cavity, 0.62, -60, texture=0.35)


def add_lungs(anatomy: Anatomy, frame: Frame, body: Generator) -> None:
    """Both lungs."""
    lungs = []
    for side, (half_width, half_height) in ((-1, (60, 122)), (1, (57, 126))):
        lungs.append(
            Ellipsoid(
                frame.at(side * 84, 8, 638),
                frame.semi(half_width, 80, half_height),
                power=2.5,
                turn=rotation(degrees_y=side * 5),
                wobble=Wobble.draw(body, 2.5, 120),
            )
        )
    anatomy.add("lung", lungs, LUNG_SUV, LUNG_HU, texture=0.25)


def add_vessels(anatomy: Anatomy, frame: Frame, blood: float) -> None:
    """Mediastinum and the great vessels down to the thighs."""
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


def add_skeleton(
    anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator, marrow: float
) -> None:
    """Spine, ribs, sternum, pelvis, and the flat bones of shoulder and hip."""
    heights = [292 + 33 * k for k in range(5)]
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
    anatomy.sites["ribs"] = [tuple(p) for rib in ribs for p in rib.points[2:7]]
    anatomy.add("rib", ribs, 0.8 * marrow, BONE_HU)
    anatomy.add(
        "sternum",
        Ellipsoid(frame.at(0, -92, 650), frame.semi(17, 6, 72), rotation(-6), power=3.0),
        0.9 * marrow,
        220,
    )
    pelvis = [Ellipsoid(frame.at(0, 66, 238), frame.semi(36, 13, 48), rotation(18), power=2.5)]
    flat = []
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


def add_brain(anatomy: Anatomy, frame: Frame, body: Generator, scan: Generator) -> None:
    """Skull and brain."""
    skull = Ellipsoid(frame.at(0, -2, 950), frame.semi(69, 85, 78))
    anatomy.add("skull", skull, 0.7, 800)
    grey = float(scan.uniform(7.0, 14.0))
    wobble = Wobble.draw(body, 1.2, 45)
    brain = [
        Ellipsoid(frame.at(side * 24, -6, 962), frame.semi(40, 78, 56), power=2.3, wobble=wobble)
        for side in (-1, 1)
    ]
    brain.append(Ellipsoid(frame.at(0, -6, 965), frame.semi(30, 74, 52), wobble=wobble))
    brain.append(Ellipsoid(frame.at(0, 34, 920), frame.semi(50, 36, 30), wobble=wobble))
    brain.append(Ellipsoid(frame.at(0, 6, 912), frame.semi(16, 16, 26), wobble=wobble))
    anatomy.add("brain", brain, grey, 38, texture=0.11)
    white = [
        Ellipsoid(frame.at(side * 24, -6, 964), frame.semi(20, 52, 30), wobble=wobble)
        for side in (-1, 1)
    ]
    anatomy.add("white matter", white, 0.45 * grey, 32, texture=0.12)


def add_face(anatomy: Anatomy, frame: Frame, scan: Generator) -> None:
    """Jaw, glands, tonsils, eyes, airway, larynx and thyroid."""
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
