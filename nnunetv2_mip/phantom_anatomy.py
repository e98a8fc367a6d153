"""The phantom's healthy body: which solids it consists of, and what each takes up.

`build_anatomy` draws everything that differs between people (size, posture, organ positions and
shapes) from one generator and what differs between scans (uptake, bladder filling, bowel,
distractors) from another. The result is a list of parts in painting order; later parts cover
earlier ones.

Uptake follows what FDG studies show an hour after injection, in SUV: liver 2–2.8, blood pool
1.3–1.9, brain 6–14, muscle 0.6, lung 0.4; heart muscle, bowel, kidneys and bladder vary most.
Physiological uptake that resembles disease (brown fat, an injected vein, strained muscles, hot
bowel, inflamed joints) is on purpose: it is what makes a threshold useless.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_mip.phantom_shapes import Column, Ellipsoid, Point, Solid, Tube, Wobble, rotation

FAT_SUV, FAT_HU = 0.3, -100.0
MUSCLE_SUV, MUSCLE_HU = 0.68, 50.0
BONE_HU = 320.0

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
    """

    parts: list[Part] = field(default_factory=list)
    outline: list[Solid] = field(default_factory=list)
    top_mm: float = 1030.0
    bottom_mm: float = 20.0
    sites: dict[str, list[Point]] = field(default_factory=dict)
    scale: float = 1.0

    def add(self, name, solids, suv=None, hu=None, texture=0.08, inside=True) -> None:
        solids = [solids] if isinstance(solids, Solid) else list(solids)
        self.parts.append(Part(name, solids, suv, hu, texture, inside))

    def solids(self, name: str) -> list[Solid]:
        """All solids of the parts called `name`."""
        return [solid for part in self.parts if part.name == name for solid in part.solids]


@dataclass(frozen=True)
class _Frame:
    """Maps nominal millimetres to this person's."""

    width: float
    depth: float
    height: float

    def at(self, x: float, y: float, z: float) -> Point:
        return x * self.width, y * self.depth, z * self.height

    def semi(self, x: float, y: float, z: float) -> Point:
        return self.at(x, y, z)

    def tube(self, points, radii) -> Tube:
        return Tube([self.at(*point) for point in points], radii)


def spine_y(z: float) -> float:
    """Nominal y of the vertebral bodies at the nominal height z (lordosis and kyphosis)."""
    return float(np.interp(z, [200, 300, 400, 560, 650, 760, 880], [62, 42, 38, 52, 58, 42, 14]))


def build_anatomy(body: np.random.Generator, scan: np.random.Generator) -> Anatomy:
    """Draw a body.

    Args:
        body: for what stays between two studies of a patient.
        scan: for what differs between them.
    """
    height = float(np.clip(body.normal(1.0, 0.045), 0.9, 1.1))
    frame = _Frame(
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

    _trunk(anatomy, frame, body, scan, fat_mm, female)
    _lungs_and_vessels(anatomy, frame, body, blood)
    _skeleton(anatomy, frame, body, scan, marrow)
    _head(anatomy, frame, body, scan)
    _abdomen(anatomy, frame, body, scan, blood)
    _bowel(anatomy, frame, body, scan)
    _heart(anatomy, frame, body, scan, blood)
    _urinary_tract(anatomy, frame, body, scan, female)
    _distractors(anatomy, frame, scan)
    _node_sites(anatomy, frame)
    # Most scans start in the middle of the brain or above it, some at the vertex.
    anatomy.top_mm = frame.height * 1030 + float(scan.uniform(-55, 20))
    anatomy.bottom_mm = float(scan.uniform(-30, 50))
    return anatomy


def _trunk(anatomy, frame, body, scan, fat_mm, female) -> None:
    inner = TRUNK * [frame.height, frame.width, frame.depth, frame.depth]
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
            path = [(152, 12, 755), (208, 20, 640), (228, 26, 470), (220, -10, 250), (214, -18, 170)]
            path[2] = tuple(np.array(path[2]) + 0.6 * jitter)
            # Arms lie beside the trunk, whatever its girth.
            path[1:] = [(x + 0.75 * fat_mm, y, z) for x, y, z in path[1:]]
        path = [(side * x, y, z) for x, y, z in path]
        muscle = np.array([52, 40, 32, 27, 22][: len(path)]) * frame.width
        flesh.append(frame.tube(path, muscle))
        skin.append(frame.tube(path, muscle + 0.35 * fat_mm + 3))
        bones.append(frame.tube(path, 9))
        anatomy.sites[f"arm_{'r' if side < 0 else 'l'}"] = [frame.at(*p) for p in path]
    head = Ellipsoid(frame.at(0, -8, 938), frame.semi(75, 93, 94), wobble=Wobble.draw(body, 1, 90))
    jaw = Ellipsoid(frame.at(0, -50, 872), frame.semi(48, 44, 46))
    skin += [head, jaw]
    flesh += [
        Ellipsoid(head.centre, tuple(s - 5 for s in head.semi)),
        Ellipsoid(jaw.centre, tuple(s - 6 for s in jaw.semi)),
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


def _lungs_and_vessels(anatomy, frame, body, blood) -> None:
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
    anatomy.add("lung", lungs, 0.38, -820, texture=0.25)
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
            ([(0, 11, 330), (side * 40, 18, 265), (side * 72, -38, 175), (side * 78, -32, 60),
              (side * 84, -14, -60)], [7, 7, 6, 5, 5])
        )
    anatomy.add("vessel", [frame.tube(p, r) for p, r in trunk_vessels], blood, 150, texture=0.12)


def _skeleton(anatomy, frame, body, scan, marrow) -> None:
    heights = [292 + 33 * k for k in range(5)]
    heights += [heights[-1] + 30 + 24.5 * k for k in range(12)]
    heights += [heights[-1] + 20 + 16 * k for k in range(7)]
    vertebrae = []
    for k, z in enumerate(heights):
        semi = (22, 16, 12.5) if k < 5 else (16, 14, 9.5) if k < 17 else (10, 8, 6)
        vertebrae.append(
            Ellipsoid(frame.at(0, spine_y(z), z), frame.semi(*semi), power=3.5)
        )
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
                a, b, y = (np.interp(z, TRUNK[:, 0], TRUNK[:, c]) for c in (1, 2, 3))
                path.append(
                    (side * (a - 9) * np.sin(angle), y + (b - 9) * np.cos(angle), z)
                )
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
        flat.append(frame.tube([(side * 18, -66, 758), (side * 80, -34, 778), (side * 140, 4, 776)], 6))
        flat.append(Ellipsoid(frame.at(side * 150, 10, 758), frame.semi(22, 22, 22)))
        flat.append(
            Ellipsoid(frame.at(side * 98, 76, 700), frame.semi(38, 5, 58), rotation(8, 0, side * 22))
        )
    anatomy.sites["pelvis"] = [p.centre for p in pelvis]
    anatomy.sites["femur"] = [frame.at(s * 112, 8, z) for s in (-1, 1) for z in (165, 90, 40)]
    anatomy.sites["humerus"] = [frame.at(s * 150, 10, 758) for s in (-1, 1)]
    anatomy.add("pelvis", pelvis, 0.85 * marrow, 210, texture=0.12)
    anatomy.add("flat bone", flat, 0.65 * marrow, BONE_HU)


def _head(anatomy, frame, body, scan) -> None:
    skull = Ellipsoid(frame.at(0, -2, 950), frame.semi(69, 85, 78))
    anatomy.add("skull", skull, 0.7, 800)
    teeth = frame.tube([(-38, -30, 872), (-26, -72, 866), (0, -84, 864), (26, -72, 866), (38, -30, 872)], 7)
    anatomy.add("jaw", teeth, 0.8, 700)
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
    anatomy.add("airway", frame.tube([(0, -14, 868), (0, -16, 830), (0, -2, 720)], 7), 0.3, -950)
    pharynx = float(scan.uniform(1.1, 2.0))
    anatomy.add("neck", frame.tube([(0, -10, 875), (0, -14, 790)], 15), 1.1, None, 0.25)
    for side in (-1, 1):
        anatomy.add("gland", Ellipsoid(frame.at(side * 55, -4, 880), frame.semi(11, 15, 19)), pharynx, 40)
        anatomy.add("gland", Ellipsoid(frame.at(side * 28, -40, 850), frame.semi(11, 14, 9)), 0.9 * pharynx, 40)
        tonsil = float(scan.uniform(1.6, 4.2))
        anatomy.add("tonsil", Ellipsoid(frame.at(side * 13, -22, 868), frame.semi(6, 8, 9)), tonsil, 45)
        eye = Ellipsoid(frame.at(side * 30, -78, 925), frame.semi(12, 12, 12))
        anatomy.add("eye", eye, 1.2, 10)
    thyroid = float(scan.choice([1.2, 1.5, 4.0], p=[0.5, 0.4, 0.1]))
    larynx = float(scan.uniform(1.2, 3.0))
    anatomy.add("larynx", Ellipsoid(frame.at(0, -26, 822), frame.semi(12, 9, 6)), larynx, 50)
    for side in (-1, 1):
        lobe = Ellipsoid(frame.at(side * 15, -22, 798), frame.semi(8, 8, 17))
        anatomy.add("thyroid", lobe, thyroid, 100)


def _abdomen(anatomy, frame, body, scan, blood) -> None:
    liver_suv = float(scan.uniform(1.9, 2.8))
    size = float(np.clip(body.normal(1.0, 0.06), 0.88, 1.15))
    shift = body.normal(0, 4, 3)
    liver = [
        Ellipsoid(
            frame.at(-72 + shift[0], -4, 492 + shift[2]),
            frame.semi(67 * size, 80, 70 * size),
            rotation(degrees_y=-14),
            power=2.4,
            wobble=Wobble.draw(body, 3, 130),
        ),
        Ellipsoid(
            frame.at(-86 + shift[0], 8, 446 + shift[2]),
            frame.semi(52, 64, 78 * size),
            rotation(degrees_y=6),
            wobble=Wobble.draw(body, 3, 110),
        ),
        Ellipsoid(
            frame.at(4 + shift[0], -44, 508 + shift[2]),
            frame.semi(72 * size, 36, 34 * size),
            rotation(degrees_y=-20),
            wobble=Wobble.draw(body, 2, 100),
        ),
    ]
    anatomy.add("liver", liver, liver_suv, 105, texture=0.05)
    gallbladder = Ellipsoid(frame.at(-52, -58, 430), frame.semi(14, 14, 24))
    anatomy.add("gallbladder", gallbladder, 0.6 * liver_suv, 12)
    spleen = Ellipsoid(
        frame.at(104, 40, 496),
        frame.semi(25, 40, 52) if body.uniform() < 0.85 else frame.semi(31, 48, 68),
        rotation(degrees_y=16, degrees_z=12),
        wobble=Wobble.draw(body, 2, 80),
    )
    anatomy.add("spleen", spleen, float(scan.uniform(1.5, 2.3)), 110, texture=0.05)
    stomach = [
        Ellipsoid(frame.at(62, -18, 512), frame.semi(40, 44, 42), wobble=Wobble.draw(body, 3, 70)),
        frame.tube([(64, -28, 490), (46, -50, 440), (0, -52, 418)], [30, 24, 17]),
    ]
    wall = float(scan.uniform(1.1, 2.6))
    anatomy.add("stomach", stomach, wall, 40, texture=0.25)
    lumen = [
        Ellipsoid(frame.at(62, -18, 512), frame.semi(29, 33, 31)),
        frame.tube([(64, -28, 490), (46, -50, 445)], [20, 13]),
    ]
    anatomy.add("stomach lumen", lumen, 0.7, 10, texture=0.2)
    pancreas = frame.tube([(-30, -12, 415), (10, -16, 432), (60, 8, 448)], [15, 11, 10])
    anatomy.add("pancreas", pancreas, float(scan.uniform(1.1, 1.7)), 80, texture=0.15)
    oesophagus = frame.tube([(2, 22, 730), (6, 20, 600), (24, 4, 535)], 7)
    anatomy.add("oesophagus", oesophagus, float(scan.uniform(1.2, 2.4)), 40, texture=0.2)


def _bowel(anatomy, frame, body, scan) -> None:
    """Colon along its frame and coiled small bowel, each loop with an uptake of its own."""
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


def _heart(anatomy, frame, body, scan, blood) -> None:
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


def _urinary_tract(anatomy, frame, body, scan, female) -> None:
    cortex = float(scan.uniform(1.8, 3.6))
    urine = float(np.exp(scan.uniform(np.log(6), np.log(30))))
    fill = float(scan.uniform(0.55, 1.25))
    bladder_z = 168 + 16 * fill
    for side, z in ((-1, 412), (1, 426)):
        tilt = rotation(degrees_y=side * 12)
        centre = np.array(frame.at(side * 64, 40, z + float(body.normal(0, 7))))
        kidney = Ellipsoid(
            tuple(centre), frame.semi(27, 24, 54), tilt, wobble=Wobble.draw(body, 2, 60)
        )
        anatomy.add("kidney", kidney, cortex, 170, texture=0.15)
        hilum = centre + tilt @ np.array([-side * 13.0, -5.0, -4.0])
        concentration = urine * float(scan.uniform(0.3, 0.75))
        for k in range(int(scan.integers(6, 12))):
            reach = np.array([side * scan.uniform(-4, 12), scan.uniform(-12, 10), scan.uniform(-36, 36)])
            calyx = Ellipsoid(tuple(hilum + tilt @ reach), tuple(scan.uniform(4, 8, 3)))
            anatomy.add("calyx", calyx, concentration * float(scan.uniform(0.35, 1.0)), 60)
        pelvis = Ellipsoid(
            tuple(hilum + [-side * 8, -4, 0]), tuple(scan.uniform((6, 5, 9), (11, 8, 18)))
        )
        anatomy.add("renal pelvis", pelvis, concentration, 40)
        anatomy.sites.setdefault("beside kidney", []).append(tuple(centre + [-side * 42.0, -6.0, -8.0]))
        course = [
            tuple(hilum + [-side * 12.0, -4.0, -14.0]),
            frame.at(side * 40, 22, 360),
            frame.at(side * 38, 18, 300),
            frame.at(side * 50, 26, 240),
            frame.at(side * 30, 18, bladder_z - 8),
        ]
        for k in range(len(course) - 1):  # peristalsis: only some stretches are filled
            if scan.uniform() < 0.4:
                start, end = np.array(course[k]), np.array(course[k + 1])
                a = float(scan.uniform(0, 0.4))
                b = float(scan.uniform(a + 0.2, 1.0))
                stretch = [tuple(start + a * (end - start)), tuple(start + b * (end - start))]
                suv = urine * float(scan.uniform(0.2, 0.9))
                anatomy.add("ureter", Tube(stretch, float(scan.uniform(2.0, 3.6))), suv, 20)
    bladder = Ellipsoid(
        frame.at(float(body.normal(0, 4)), -26, bladder_z),
        tuple(fill * s for s in frame.semi(43, 36, 30)),
        wobble=Wobble.draw(scan, 2, 90),
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
        uterus = Ellipsoid(frame.at(0, 18, 208), frame.semi(24, 20, 30), rotation(30))
        anatomy.add("uterus", uterus, float(scan.uniform(0.9, 2.0)), 70, texture=0.2)
        anatomy.add("bladder", bladder, urine, 8, texture=0.03)
    else:
        anatomy.add(
            "prostate", Ellipsoid(frame.at(0, -18, 138), frame.semi(19, 15, 15)), 1.3, 45, 0.2
        )
        testis = float(scan.uniform(1.5, 3.2))
        for side in (-1, 1):
            testicle = Ellipsoid(frame.at(side * 18, -72, 72), frame.semi(12, 13, 19))
            anatomy.outline.append(Ellipsoid(testicle.centre, tuple(s + 6 for s in testicle.semi)))
            anatomy.add("testis", testicle, testis, 40, inside=False)
        penis = frame.tube([(0, -62, 130), (0, -88, 95), (2, -92, 55)], 13)
        anatomy.outline.append(penis)
        anatomy.add("penis", penis, 0.8, 40, texture=0.2, inside=False)
        if scan.uniform() < 0.25:
            urethra = frame.tube([(0, -84, 98), (2, -90, 62)], 3)
            anatomy.add("urethra", urethra, 0.35 * urine, 20)


def _distractors(anatomy, frame, scan) -> None:
    """Uptake that is not disease, at the places and rates where readers meet it."""
    if scan.uniform() < 0.1:
        suv = float(scan.uniform(3, 9))
        for side in (-1, 1):
            for point in [(62, 12, 792), (88, 18, 782), (108, 22, 768), (40, 14, 812), (26, 66, 690)]:
                spread = scan.normal(0, 4, 3)
                spot = tuple(np.array(frame.at(side * point[0], *point[1:])) + spread)
                blob = Ellipsoid(spot, tuple(scan.uniform(5, 11, 3)))
                anatomy.add("brown fat", blob, suv * float(scan.uniform(0.5, 1.1)), FAT_HU)
    if scan.uniform() < 0.2:
        arm = anatomy.sites["arm_r" if scan.uniform() < 0.5 else "arm_l"]
        spot = np.array(arm[2]) + scan.normal(0, 6, 3)
        anatomy.add("injection", Ellipsoid(tuple(spot), (5, 5, 7)), float(scan.uniform(4, 25)), None)
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


def _node_sites(anatomy, frame) -> None:
    """Lymph node stations, both sides where there are two."""
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
    anatomy.sites["thigh"] = [frame.at(s * 92, y, z) for s in (-1, 1) for y, z in ((10, 70), (-10, 110))]
    anatomy.sites["buttock"] = [frame.at(s * 80, 70, 200) for s in (-1, 1)]
