"""Organ label maps on disk: finding the files, the organ of each number, reading and checking.

A folder of label maps holds images of whole numbers and, beside them, a file that names the
numbers: `names.json` (`{"1": "spleen", ...}` or `{"spleen": 1, ...}`) or nnU-Net's
`dataset.json`. Names are read in many spellings, TotalSegmentator's among them; sides and lobes of
an organ are one organ. Without names the maps are read with the numbering of the autoPET III organ
maps (MIC-DKFZ/autopet-3-submission), and refused if the organs are then in impossible places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import cc3d
import numpy as np

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import is_hidden, read_json
from nnunetv2_mip.io.volumes import has_suffix, read_volume
from nnunetv2_mip.parallel import for_each

NAME_FILES = ("names.json", "dataset.json")
AUTOPET3_NAMES = {
    1: "spleen", 2: "kidney", 3: "liver", 4: "bladder", 5: "lung",
    6: "brain", 7: "heart", 8: "stomach", 9: "prostate", 10: "gland",
}  # fmt: skip
# Organs that are painted from a map, and their least volume (ml): less is a stray label.
LEAST_ML = {
    "spleen": 30, "kidney": 60, "liver": 400, "bladder": 8, "lung": 600,
    "brain": 150, "heart": 150, "stomach": 30, "prostate": 8, "gland": 4,
}  # fmt: skip
# Organs that place a map in the body; at least two of them are needed.
LANDMARKS = ("bladder", "kidney", "lung", "brain")
_SAME = {
    "urinary bladder": "bladder",
    "head gland": "gland",
    "salivary gland": "gland",
    "parotid gland": "gland",
    "submandibular gland": "gland",
}
# Words that tell parts of one organ apart.
_PARTS = {
    "left", "right", "l", "r", "upper", "middle", "lower", "lobe", "myocardium", "atrium",
    "ventricle",
}  # fmt: skip
_SPECK_SHARE = 0.05


@dataclass(frozen=True)
class OrganMaps:
    """Label maps that bodies are built around.

    Attributes:
        files: sorted by name.
        names: organ of each number.
        assumed: whether the numbers are taken for autoPET III's, because no file names them.
    """

    files: tuple[Path, ...]
    names: tuple[tuple[int, str], ...]
    assumed: bool

    @property
    def organs(self) -> set[str]:
        """Names of the organs that the maps can show."""
        return {name for _, name in self.names}


@dataclass(frozen=True)
class OrganMap:
    """Label map in memory.

    Attributes:
        masks: bool (z, y, x) LPS of every organ in it, specks removed; all cut to one box.
        spacing_mm: (z, y, x).
        above_mm: from the top of the box to the top of the map.
        path: its file.
    """

    masks: dict[str, np.ndarray]
    spacing_mm: tuple[float, float, float]
    above_mm: float
    path: Path


def organ_of(name: str) -> str | None:
    """Organ of a label's name ("kidney_left": "kidney"), or None."""
    words = name.lower().replace("_", " ").replace("-", " ").split()
    words = [w.removesuffix("s") for w in words if w not in _PARTS]
    plain = " ".join(words)
    plain = _SAME.get(plain, plain)
    return plain if plain in LEAST_ML else None


def find_organ_maps(places: Sequence[Path | str]) -> OrganMaps:
    """Label maps in folders or among files, with the organ of each number.

    Args:
        places: folders, or label map files; the file of names is looked for beside the maps.

    Raises:
        MipError: nothing there, names that cannot be read or name no known organ, or two folders
            that number their organs differently.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = [
                p
                for p in place.iterdir()
                if has_suffix(p, VOLUME_SUFFIXES) and not is_hidden(p.name)
            ]
            if not inside:
                raise MipError(f"{place}: holds no label map ({', '.join(VOLUME_SUFFIXES)})")
            files += inside
        elif place.is_file() and has_suffix(place, VOLUME_SUFFIXES):
            files.append(place)
        elif place.exists():
            raise MipError(f"{place}: is no label map ({', '.join(VOLUME_SUFFIXES)})")
        else:
            raise MipError(f"{place}: no such file or folder")
    found = {folder: _read_names(folder) for folder in sorted({p.parent for p in files})}
    different = {tuple(sorted((names or AUTOPET3_NAMES).items())) for names in found.values()}
    if len(different) > 1:
        raise MipError(
            f"{', '.join(map(str, found))}: number their organs differently; "
            "use one at a time, or renumber"
        )
    files = sorted(set(files), key=lambda path: (path.name, str(path)))
    return OrganMaps(tuple(files), different.pop(), any(names is None for names in found.values()))


def _read_names(folder: Path) -> dict[int, str] | None:
    """Organ of each number, from the file of names in the folder; None without such a file."""
    for name in NAME_FILES:
        path = folder / name
        if path.is_file():
            break
    else:
        return None
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        content = content["labels"]
    example = '{"1": "spleen", "2": "kidney_left", ...}'
    if not isinstance(content, dict):
        raise MipError(f"{path}: does not name the organs; write {example}")
    pairs = []
    for key, value in content.items():
        number, organ = (key, value) if isinstance(value, str) else (value, key)
        try:
            pairs.append((int(number), organ))
        except (TypeError, ValueError):
            continue  # nnU-Net's regions and other keys
    numbered = {number: organ_of(name) for number, name in pairs if number > 0}
    organs = {number: organ for number, organ in numbered.items() if organ}
    if not organs:
        known = ", ".join(sorted(LEAST_ML))
        raise MipError(f"{path}: names none of the organs {known}; write {example}")
    return organs


def choose_map(maps: OrganMaps, seed: int, owner: int) -> Path:
    """Label map of body `owner` of a cohort: all maps in a random order, then all again."""
    turn, place = divmod(owner, len(maps.files))
    order = np.random.default_rng([seed, 9, turn]).permutation(len(maps.files))
    return maps.files[int(order[place])]


def read_organ_map(path: Path, maps: OrganMaps) -> OrganMap:
    """Label map of a file.

    Raises:
        MipError: unreadable, not whole numbers, fewer than two landmarks, or (where the names were
            assumed) organs in impossible places.
    """
    volume = read_volume(path)
    labels, spacing = volume.array, volume.spacing_mm
    if not np.issubdtype(labels.dtype, np.integer):
        rounded = np.rint(labels)
        if not np.array_equal(rounded, labels) or labels.min() < 0 or labels.max() > 65535:
            raise MipError(f"{path}: is not a label map (its values are not whole numbers)")
        labels = rounded.astype(np.uint16)
    box = _box(labels > 0)
    above_mm = (labels.shape[0] - box[0].stop) * spacing[0]
    labels = labels[box]
    voxel_ml = float(np.prod(spacing)) / 1000
    masks = {}
    for organ in sorted(maps.organs):
        numbers = [number for number, name in maps.names if name == organ]
        mask = np.isin(labels, numbers) if len(numbers) > 1 else labels == numbers[0]
        mask = _without_specks(mask)
        if mask.sum() * voxel_ml >= LEAST_ML[organ]:
            masks[organ] = mask
    there = [organ for organ in LANDMARKS if organ in masks]
    if len(there) < 2:
        raise MipError(
            f"{path}: shows {there[0] if there else 'none'} of {', '.join(LANDMARKS)}, two are "
            f"needed to build a body; is the map cut off, or {_names_hint(maps)}"
        )
    if maps.assumed:
        _check_places(masks, labels, path)
    return OrganMap(masks, spacing, above_mm, path)


def check_maps(maps: OrganMaps, seed: int, owners: Iterable[int], processes: int = 1) -> None:
    """Check that the maps of these bodies can be used, before the work begins.

    Args:
        owners: numbers of the bodies, as `choose_map` takes them.
        processes: worker processes.

    Raises:
        MipError: see `read_organ_map`.
    """
    paths = sorted({choose_map(maps, seed, owner) for owner in owners})
    for _ in for_each(partial(_check_map, maps=maps), paths, processes, in_order=True):
        pass


def _check_map(path: Path, maps: OrganMaps) -> None:
    read_organ_map(path, maps)


def _names_hint(maps: OrganMaps) -> str:
    if maps.assumed:
        return f"are its numbers not autoPET III's? Then name them in {NAME_FILES[0]} beside it"
    return "are its numbers named wrongly?"


def _box(mask: np.ndarray) -> tuple[slice, slice, slice]:
    """Smallest box around a mask; the whole grid for an empty mask."""
    z = np.flatnonzero(mask.any((1, 2)))
    if not len(z):
        depth, height, width = mask.shape
        return slice(0, depth), slice(0, height), slice(0, width)
    plane = np.any(mask[z[0] : z[-1] + 1], axis=0)
    y, x = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    return _span(z), _span(y), _span(x)


def _span(places: np.ndarray) -> slice:
    return slice(int(places[0]), int(places[-1]) + 1)


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Mask without components smaller than a share of the largest."""
    box = _box(mask)
    parts = cc3d.connected_components(np.ascontiguousarray(mask[box]), connectivity=26)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    clean = np.zeros_like(mask)
    clean[box] = (sizes >= max(1, _SPECK_SHARE * sizes.max()))[parts]
    return clean


def _check_places(masks: dict[str, np.ndarray], labels: np.ndarray, path: Path) -> None:
    """Raise MipError where organs with assumed names are in impossible places."""
    centre = {organ: np.argwhere(mask[::2, ::2, ::2]).mean(0) for organ, mask in masks.items()}
    upwards = [organ for organ in ("bladder", "kidney", "lung", "brain") if organ in centre]
    fits = labels.max() <= max(AUTOPET3_NAMES)
    fits &= all(centre[a][0] < centre[b][0] for a, b in pairwise(upwards))
    if "liver" in centre and "spleen" in centre:
        fits &= bool(centre["liver"][2] < centre["spleen"][2])
    if not fits:
        raise MipError(
            f"{path}: nothing says which number is which organ, and they are not those of autoPET "
            f'III; write {NAME_FILES[0]} beside it: {{"1": "spleen", "2": "kidney_left", ...}}'
        )
