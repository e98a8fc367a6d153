"""Clicks of a reader: voxels marked as tumour or as background.

The file is that of autoPET IV (grand-challenge's "Multiple points"):

    {"version": {...}, "type": "Multiple points",
     "points": [{"point": [x, y, z], "name": "tumor" | "background"}, ...]}

with voxel indices along the axes of the image file. A file without points is valid (the first step
of the challenge).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.io.grid import SourceGrid

KIND = "Multiple points"
TUMOUR, BACKGROUND = "tumor", "background"

Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Clicks:
    """Clicked voxels (z, y, x) on canonical axes; no voxel is in both."""

    tumour: tuple[Voxel, ...] = ()
    background: tuple[Voxel, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tumour or self.background)

    def __str__(self) -> str:
        return f"{len(self.tumour)} tumour, {len(self.background)} background"


def read_clicks(
    path: Path | str, grid: SourceGrid, warn: Callable[[str], None] | None = None
) -> Clicks:
    """Clicks of a file, on the image with this grid.

    A click between voxels counts for the nearest one. Of contradictory clicks in one voxel the
    later one counts. Clicks outside of the image are left out. `warn` is called with a line for
    each of either kind.

    Raises:
        MipError: no such file, or no file of clicks.
    """
    path = Path(path)
    stands: dict[Voxel, str] = {}
    for number, (point, name) in enumerate(_points(read_json(path), path), start=1):
        # Half a voxel is always rounded up.
        index = [math.floor(value + 0.5) for value in point]
        where = f"{path}: click {number} ({name}) at voxel {', '.join(map(str, index))}"
        if not all(0 <= i < size for i, size in zip(index, grid.size)):
            size = " x ".join(map(str, grid.size))
            _tell(warn, f"{where} lies outside of the image of {size} voxels and is left out")
            continue
        voxel = grid.to_canonical_index(index)
        if stands.get(voxel, name) != name:
            _tell(warn, f"{where} contradicts an earlier one ({stands[voxel]}); the later stands")
        stands[voxel] = name
    return Clicks(
        tuple(voxel for voxel, name in stands.items() if name == TUMOUR),
        tuple(voxel for voxel, name in stands.items() if name == BACKGROUND),
    )


def write_clicks(clicks: Clicks, grid: SourceGrid, path: Path | str) -> None:
    """Write clicks on the image with this grid, in the format of `read_clicks`."""
    points = [
        {"point": list(grid.from_canonical_index(voxel)), "name": name}
        for name, voxels in ((TUMOUR, clicks.tumour), (BACKGROUND, clicks.background))
        for voxel in voxels
    ]
    write_json(path, {"version": {"major": 1, "minor": 0}, "type": KIND, "points": points})


def _points(content: Any, path: Path) -> list[tuple[Sequence[float], str]]:
    """Points (place, name) of a decoded file, checked."""
    points = content.get("points") if isinstance(content, dict) else None
    if not isinstance(points, list) or content.get("type", KIND) != KIND:
        raise MipError(f'{path}: is not a file of clicks ("type": "{KIND}", "points": [...])')
    found: list[tuple[Sequence[float], str]] = []
    for number, point in enumerate(points, start=1):
        place, name = map(point.get, ("point", "name")) if isinstance(point, dict) else (None, None)
        if name not in (TUMOUR, BACKGROUND):
            raise MipError(f'{path}: click {number}: its name is neither "tumor" nor "background"')
        if not (isinstance(place, list) and len(place) == 3 and all(map(_is_index, place))):
            raise MipError(f"{path}: click {number}: [x, y, z] in voxels is expected")
        found.append((place, name))
    return found


def _is_index(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN fails too.
    return number and abs(value) < 2**31


def _tell(warn: Callable[[str], None] | None, line: str) -> None:
    if warn is not None:
        warn(line)
