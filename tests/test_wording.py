"""Numbers and their nouns in messages."""

import pytest

from nnunetv2_mip.wording import counted, part_of


@pytest.mark.parametrize(
    "number, noun, verb, expected",
    [
        (0, "lesion", "", "0 lesions"),
        (1, "lesion", "", "1 lesion"),
        (2, "lesion", "", "2 lesions"),
        (1, "study", "", "1 study"),
        (3, "DICOM study", "", "3 DICOM studies"),
        (2, "ray", "", "2 rays"),
        (2, "series", "", "2 series"),
        (1, "voxel", "is", "1 voxel is"),
        (2, "case", "has", "2 cases have"),
        (5, "request", "waits", "5 requests wait"),
    ],
)
def test_noun_and_verb_agree_with_the_number(number, noun, verb, expected):
    assert counted(number, noun, verb) == expected


def test_the_noun_agrees_with_the_total_and_the_verb_with_the_part():
    assert part_of(1, 3, "voxel", "is") == "1 of 3 voxels is"
    assert part_of(2, 3, "voxel", "is") == "2 of 3 voxels are"
    assert part_of(1, 1, "study") == "1 of 1 study"
