"""Organ label maps: names and numbers, order of use, and refused maps."""

import json

import pytest
import SimpleITK as sitk

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.phantom.label_maps import (
    AUTOPET3_NAMES,
    choose_map,
    find_organ_maps,
    organ_of,
    read_organ_map,
)


def test_every_map_is_used_before_one_is_used_again(maps):
    files = [choose_map(maps, 4, owner).name for owner in range(40)]
    assert all({files[k], files[k + 1]} == {"a.nii.gz", "b.nii.gz"} for k in range(0, 40, 2))
    assert len({tuple(files[k : k + 2]) for k in range(0, 40, 2)}) == 2


@pytest.mark.parametrize(
    ("name", "organ"),
    [
        ("kidney_left", "kidney"),
        ("Lung_upper_lobe_right", "lung"),
        ("urinary_bladder", "bladder"),
        ("heart_myocardium", "heart"),
        ("head glands", "gland"),
        ("parotid_gland_left", "gland"),
        ("lungs", "lung"),
        ("aorta", None),
        ("background", None),
    ],
)
def test_names_are_read_in_many_spellings(name, organ):
    assert organ_of(name) == organ


def test_names_may_be_given_either_way_or_as_nnunet_writes_them(tmp_path, maps, write_map, numbers):
    write_map(tmp_path / "a.nii.gz")
    for file, content in (
        ("names.json", numbers),
        ("dataset.json", {"labels": {"background": 0, **numbers}, "channel_names": {"0": "CT"}}),
    ):
        path = tmp_path / file
        path.write_text(json.dumps(content), "utf-8")
        found = find_organ_maps([tmp_path / "a.nii.gz"])
        assert dict(found.names) == dict(maps.names) and not found.assumed
        path.unlink()


def test_without_names_autopet_numbers_are_taken_where_the_organs_fit(tmp_path, write_map, numbers):
    organs = {organ_of(name) for name in numbers}
    autopet = {name: next(n for n, o in AUTOPET3_NAMES.items() if o == organ_of(name))
               for name in numbers}  # fmt: skip
    assert len(organs) == 8
    write_map(tmp_path / "right" / "a.nii.gz", autopet)
    found = find_organ_maps([tmp_path / "right"])
    assert found.assumed
    read = read_organ_map(found.files[0], found)
    assert set(read.masks) == organs
    # The same organs under other numbers: the bladder above the lungs.
    swapped = autopet | {"lungs": 4, "urinary_bladder": 5}
    write_map(tmp_path / "wrong" / "a.nii.gz", swapped)
    found = find_organ_maps([tmp_path / "wrong"])
    with pytest.raises(MipError, match=r"wrong.a\.nii\.gz.*names\.json"):
        read_organ_map(found.files[0], found)
    write_map(tmp_path / "other" / "a.nii.gz")
    found = find_organ_maps([tmp_path / "other"])
    with pytest.raises(MipError, match=r"names\.json"):
        read_organ_map(found.files[0], found)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ('{"1": "aorta"}', "names none of the organs"),
        ("[1, 2]", "does not name the organs"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_names_without_a_known_organ_are_refused(tmp_path, names, message, write_map):
    write_map(tmp_path / "a.nii.gz")
    (tmp_path / "names.json").write_text(names, "utf-8")
    with pytest.raises(MipError, match=message):
        find_organ_maps([tmp_path])


def test_maps_that_cannot_be_used_are_refused(tmp_path, folder, maps, write_map, numbers):
    with pytest.raises(MipError, match="no such file"):
        find_organ_maps([tmp_path / "nowhere"])
    with pytest.raises(MipError, match="holds no label map"):
        find_organ_maps([tmp_path])
    with pytest.raises(MipError, match="is no label map"):
        find_organ_maps([folder / "names.json"])
    write_map(tmp_path / "other" / "c.nii.gz")
    (tmp_path / "other" / "names.json").write_text('{"1": "liver"}', "utf-8")
    with pytest.raises(MipError, match="number their organs differently"):
        find_organ_maps([folder, tmp_path / "other"])
    headless = write_map(
        tmp_path / "few.nii.gz", leave=("kidney_left", "kidney_right", "brain", "lungs")
    )
    with pytest.raises(MipError, match=r"few\.nii\.gz: shows bladder of .* two are needed"):
        read_organ_map(headless, maps)
    image = sitk.Cast(sitk.ReadImage(str(folder / "a.nii.gz")), sitk.sitkFloat32) * 0.37
    sitk.WriteImage(image, str(tmp_path / "float.nii.gz"))
    with pytest.raises(MipError, match="not whole numbers"):
        read_organ_map(tmp_path / "float.nii.gz", maps)
