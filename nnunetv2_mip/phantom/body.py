"""Body of a phantom: its painted parts, and the frame that gives it its size.

Positions are nominal millimetres of a person of average size (see `phantom.shapes` for the axes),
which `Frame` maps to those of one person.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_mip.phantom.distance_field import DistanceField
from nnunetv2_mip.phantom.shapes import Ellipsoid, Point, Solid, Tube

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


@dataclass(frozen=True)
class Part:
    """Painted part of a body.

    Attributes:
        name: e.g. "liver"; several parts may have the same name.
        solids: their union is the part.
        suv, hu: its uptake and CT number; None leaves those of the parts painted before.
        texture: spread of its uptake between spots, relative.
        inside: whether it is cut off at the body's surface.
    """

    name: str
    solids: Sequence[Solid]
    suv: float | None
    hu: float | None
    texture: float = 0.08
    inside: bool = True


@dataclass
class Anatomy:
    """Body of a person, ready to be painted.

    Attributes:
        parts: in painting order, all in mm of the body's frame.
        outline: solids whose union is the body with its skin.
        top_mm, bottom_mm: heights between which the scan runs.
        sites: places of lesions by name: lists of (x, y, z) mm.
        scale: size of the body relative to the nominal one.
        hidden_sites: names of the sites beside or behind hot organs.
        hidden_chance: probability of an additional lesion at one of them in a diseased subject.
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
        """Add a part made of one solid or several; the arguments are those of `Part`."""
        solids = list(solids) if isinstance(solids, Sequence) else [solids]
        self.parts.append(Part(name, solids, suv, hu, texture, inside))

    def solids(self, name: str) -> list[Solid]:
        """Solids of all parts called `name`."""
        return [solid for part in self.parts if part.name == name for solid in part.solids]

    def organs(self, name: str) -> list[Ellipsoid | DistanceField]:
        """Solids of an organ, those that have a centre and random points inside."""
        return [s for s in self.solids(name) if isinstance(s, Ellipsoid | DistanceField)]


@dataclass(frozen=True)
class Frame:
    """Map from nominal millimetres to those of one person.

    Attributes:
        width, depth, height: size relative to the nominal one.
        trunk: the muscle surface, rows as in `TRUNK`, nominal.
    """

    width: float
    depth: float
    height: float
    trunk: np.ndarray = field(default_factory=lambda: TRUNK)

    def column(self) -> np.ndarray:
        """Rows (height, half width, half depth, y of the centre) of this person's trunk, in mm."""
        return self.trunk * [self.height, self.width, self.depth, self.depth]

    def at(self, x: float, y: float, z: float) -> Point:
        """Point (x, y, z) mm of this person for a nominal one."""
        return x * self.width, y * self.depth, z * self.height

    def semi(self, x: float, y: float, z: float) -> Point:
        """Semi-axes (x, y, z) mm of this person's solid for nominal ones."""
        return self.at(x, y, z)

    def tube(self, points, radii) -> Tube:
        """Tube through nominal points; `radii` are mm of this person."""
        return Tube([self.at(*point) for point in points], radii)
