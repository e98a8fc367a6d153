"""Case names: as before for plain names, distinct and not empty for all others."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_mip.io.case_names import (
    LONGEST,
    case_name,
    case_name_of_folders,
    distinct_names,
    keeps_letters,
    safe_name,
)

FOLDERS = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1
)


@pytest.mark.parametrize(
    ("patient", "study", "expected"),
    [
        ("PETCT_ab c", "01-04-2001-NA-PET CT Ganzkörper  é-79537", "PETCT_ab_c_01-04-2001_79537"),
        ("Müller", "scan", "M_ller_scan"),
        ("a__b.", "..c", "a_b_c"),
    ],
)
def test_latin_names_are_as_they_always_were(patient, study, expected):
    assert case_name(patient, study) == expected


def test_other_scripts_get_a_hash_that_is_always_the_same():
    # sha256("患者一") and sha256("初诊") in UTF-8.
    assert case_name("患者一", "初诊") == "e2efe9ef_7ca44cea"
    assert case_name("患者二", "初诊").endswith("_7ca44cea")
    assert safe_name("P1 患") != safe_name("P1 者")
    assert safe_name("P1 患").startswith("P1_")


def test_composed_and_decomposed_accents_are_one_name():
    assert safe_name("\u0439\u0301") == safe_name("\u0438\u0306\u0301")


@given(FOLDERS)
def test_any_name_is_safe_and_not_empty(name):
    found = safe_name(name)
    assert re.fullmatch(r"[A-Za-z0-9-][A-Za-z0-9_-]*", found)
    assert re.search(r"[A-Za-z0-9]", found)
    assert keeps_letters(name) == (found == re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_"))


@given(st.lists(FOLDERS, min_size=1, max_size=5, unique=True))
def test_names_of_different_folders_are_distinct(folders):
    names = distinct_names([case_name("", folder) for folder in folders], folders)
    assert len(set(names)) == len(folders)
    assert all(0 < len(name) <= LONGEST for name in names)


def test_long_names_are_cut_and_stay_distinct():
    one, two = (case_name_of_folders(["x" * 250, end]) for end in ("a", "b"))
    assert one != two
    assert len(one) == len(two) == LONGEST
