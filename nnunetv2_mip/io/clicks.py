"""Clicks of a reader: voxels marked as tumour or as background.

Two kinds of file are read. That of autoPET IV and V (grand-challenge's "Multiple points"):

    {"version": {...}, "type": "Multiple points",
     "points": [{"point": [x, y, z], "name": "tumor" | "background"}, ...]}

and that of the training clicks of autoPET IV:

    {"tumor": [[x, y, z], ...], "background": [[x, y, z], ...]}

with voxel indices along the axes of the image file. Names count in upper and lower case. A file
without points is valid (the first step of the challenge).
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
_EXPECTED = (
    f'{{"type": "{KIND}", "points": [{{"point": [x, y, z], "name": "{TUMOUR}"}}, ...]}} or '
    f'{{"{TUMOUR}": [[x, y, z], ...], "{BACKGROUND}": [...]}}'
)

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
    listed = _listed(content)
    if listed is None:
        raise MipError(f"{path}: is not a file of clicks; expected is {_EXPECTED}")
    found: list[tuple[Sequence[float], str]] = []
    for number, (place, given) in enumerate(listed, start=1):
        name = _name(given)
        if name is None:
            raise MipError(
                f'{path}: click {number}: its name is neither "tumor" nor "background" ({given!r})'
            )
        if not (isinstance(place, list) and len(place) == 3 and all(map(_is_index, place))):
            raise MipError(f"{path}: click {number} ({name}): [x, y, z] in voxels is expected")
        found.append((place, name))
    return found


def _listed(content: Any) -> list[tuple[Any, Any]] | None:
    """Points (place, name) of either kind of file, not yet checked; None of another file."""
    if isinstance(content, dict) and "points" in content:
        points = content["points"]
        if not isinstance(points, list) or content.get("type", KIND) != KIND:
            return None
        return [_place_and_name(point, None) for point in points]
    if isinstance(content, dict):
        by_name = {key: points for key, points in content.items() if _name(key) is not None}
        if not by_name or not all(isinstance(points, list) for points in by_name.values()):
            return None
        return [_place_and_name(point, key) for key, points in by_name.items() for point in points]
    if isinstance(content, list) and content and all(isinstance(p, dict) for p in content):
        return [_place_and_name(point, None) for point in content]
    return None


def _place_and_name(point: Any, name: Any) -> tuple[Any, Any]:
    """Place and name of a point; one in a list of a name may be the place alone."""
    if not isinstance(point, dict):
        return point, name
    return point.get("point"), point.get("name") if name is None else name


def _name(given: Any) -> str | None:
    """Name as it is compared, or None where it is none of the two."""
    name = given.strip().lower() if isinstance(given, str) else None
    return name if name in (TUMOUR, BACKGROUND) else None


def _is_index(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # NaN fails too.
    return number and abs(value) < 2**31


def _tell(warn: Callable[[str], None] | None, line: str) -> None:
    if warn is not None:
        warn(line)
