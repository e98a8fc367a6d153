"""Organ label maps of a made-up person, and the anatomies built around them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_mip.phantom.body import Anatomy
from nnunetv2_mip.phantom.label_maps import (
    OrganMaps,
    choose_map,
    find_organ_maps,
    read_organ_map,
)
from nnunetv2_mip.phantom.mapped_anatomy import build_mapped_anatomy
from nnunetv2_mip.phantom.subject import body_index

# Organs of a made-up person: centre and semi-axes in mm (x left, y back, z head).
SHAPES = {
    "liver": [((-70, 0, 520), (72, 70, 75))],
    "spleen": [((105, 40, 520), (28, 40, 52))],
    "kidney_left": [((62, 45, 445), (27, 25, 52))],
    "kidney_right": [((-62, 45, 430), (27, 25, 52))],
    "urinary_bladder": [((3, -20, 200), (42, 36, 28))],
    "lungs": [((-85, 5, 665), (56, 80, 118)), ((85, 5, 665), (54, 80, 118))],
    "brain": [((4, -8, 985), (66, 80, 62))],
    "heart": [((30, -35, 610), (55, 45, 50))],
    "stomach": [((60, -20, 525), (36, 38, 40))],
}  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(SHAPES, start=20)}


def _write_map(
    path: Path, numbers: dict[str, int] = NUMBERS, shift_mm: float = 0.0, leave=()
) -> Path:
    """Label map on a grid whose y axis points to the front, as in autoPET's maps."""
    spacing = (5.0, 5.0, 6.0)
    shape = (190, 72, 72)
    z, y, x = np.indices(shape, np.float32)
    x, y, z = (x - 35.5) * 5.0 - shift_mm, (y - 35.5) * 5.0, z * 6.0 - 40
    labels = np.zeros(shape, np.uint8)
    for name, solids in SHAPES.items():
        if name in leave:
            continue
        for centre, semi in solids:
            grid = zip((x, y, z), centre, semi)
            labels[sum(((c - o) / s) ** 2 for c, o, s in grid) <= 1] = numbers[name]
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels[:, ::-1]))
    image.SetSpacing(spacing)
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-177.5, 177.5, -40))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def _anatomy_of(seed: int, index: int, maps: OrganMaps) -> Anatomy:
    """Anatomy of a subject, as `simulate_subject` draws it."""
    owner = body_index(seed, index)
    found = read_organ_map(choose_map(maps, seed, owner), maps)
    body, scan = np.random.default_rng([seed, 0, owner]), np.random.default_rng([seed, 1, index])
    return build_mapped_anatomy(found, body, scan, "prostate" in maps.organs)


@pytest.fixture(scope="session")
def numbers() -> dict[str, int]:
    """Number of each organ in the label maps."""
    return dict(NUMBERS)


@pytest.fixture(scope="session")
def write_map() -> Callable[..., Path]:
    """Writer of a label map: `write_map(path, numbers, shift_mm, leave)`."""
    return _write_map


@pytest.fixture(scope="session")
def anatomy_of() -> Callable[..., Anatomy]:
    """Anatomy of a subject around label maps: `anatomy_of(seed, index, maps)`."""
    return _anatomy_of


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Folder with two label maps and the file that names their numbers."""
    folder = tmp_path_factory.mktemp("maps")
    _write_map(folder / "a.nii.gz")
    _write_map(folder / "b.nii.gz", shift_mm=12.0, leave=("stomach",))
    names = {str(number): name for name, number in NUMBERS.items()} | {"0": "background"}
    (folder / "names.json").write_text(json.dumps(names), "utf-8")
    return folder


@pytest.fixture(scope="session")
def maps(folder) -> OrganMaps:
    """The two label maps."""
    return find_organ_maps([folder])
