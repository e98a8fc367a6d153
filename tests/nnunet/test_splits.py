import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.splits import check_splits, patient_grouped_splits, without_patients


@st.composite
def cohorts(draw, fewest=2):
    """Patients with 1–4 studies each: (case → patient, case → has a lesion)."""
    names = draw(st.lists(st.text("abc_0", min_size=1), min_size=fewest, max_size=25, unique=True))
    patients, has_lesion = {}, {}
    for name in names:
        for study in range(draw(st.integers(1, 4))):
            patients[f"{name}-{study}"] = name
            has_lesion[f"{name}-{study}"] = draw(st.booleans())
    return patients, has_lesion


def of_patients(cases, patients):
    return {patients[case] for case in cases}


@given(cohorts(), st.integers(2, 7))
def test_no_patient_is_in_two_folds(cohort, n_folds):
    patients, has_lesion = cohort
    seen = set()
    for fold in patient_grouped_splits(patients, has_lesion, n_folds):
        validated = of_patients(fold["val"], patients)
        assert validated.isdisjoint(of_patients(fold["train"], patients))
        assert validated.isdisjoint(seen)
        seen |= validated
    assert seen == set(patients.values())


@given(cohorts(), st.integers(2, 7))
def test_every_case_is_validated_once_and_used_in_every_fold(cohort, n_folds):
    patients, has_lesion = cohort
    splits = patient_grouped_splits(patients, has_lesion, n_folds)
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(patients)
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == sorted(patients)
        assert fold["train"] == sorted(fold["train"])
        assert fold["train"]


@given(cohorts(), st.integers(2, 7))
def test_folds_are_balanced(cohort, n_folds):
    patients, has_lesion = cohort
    ill = {patient for case, patient in patients.items() if has_lesion[case]}
    folds = [
        of_patients(fold["val"], patients)
        for fold in patient_grouped_splits(patients, has_lesion, n_folds)
    ]
    assert len(folds) == min(n_folds, len(set(patients.values())))
    for sizes in (
        [len(fold) for fold in folds],
        [len(fold & ill) for fold in folds],
        [len(fold - ill) for fold in folds],
    ):
        assert max(sizes) - min(sizes) <= 1


@given(cohorts(), st.randoms())
def test_order_of_the_cases_does_not_matter(cohort, random):
    patients, has_lesion = cohort
    shuffled = list(patients)
    random.shuffle(shuffled)
    assert patient_grouped_splits(patients, has_lesion) == patient_grouped_splits(
        {case: patients[case] for case in shuffled}, has_lesion
    )


@given(cohorts(), st.integers(2, 7))
def test_own_splits_pass_the_check(cohort, n_folds):
    patients, has_lesion = cohort
    splits = patient_grouped_splits(patients, has_lesion, n_folds)
    check_splits(json.loads(json.dumps(splits)), patients, list(patients))


def test_another_seed_gives_other_folds():
    patients = {f"case{i}": f"patient{i}" for i in range(30)}
    lesion = dict.fromkeys(patients, True)
    assert patient_grouped_splits(patients, lesion, seed=1) != patient_grouped_splits(
        patients, lesion, seed=2
    )


def test_a_patient_with_one_ill_study_counts_as_ill():
    """Two ill patients (one with a healthy study) and two healthy ones: one of each a fold."""
    patients = {"a1": "a", "a2": "a", "b": "b", "c": "c", "d": "d"}
    lesion = {"a1": False, "a2": True, "b": True, "c": False, "d": False}
    for fold in patient_grouped_splits(patients, lesion, n_folds=2):
        validated = of_patients(fold["val"], patients)
        assert len(validated & {"a", "b"}) == len(validated & {"c", "d"}) == 1


def test_one_patient_cannot_be_split():
    assert patient_grouped_splits({"x": "p", "y": "p"}, {"x": True, "y": False}) == []


@pytest.mark.parametrize(
    ("patients", "lesion", "folds", "message"),
    [
        ({}, {}, 5, "empty"),
        ({"x": "p"}, {"x": True}, 1, "at least 2"),
        ({"x": "p", "y": "q"}, {"x": True}, 2, "nothing about y"),
    ],
)
def test_bad_cohorts(patients, lesion, folds, message):
    with pytest.raises(MipError, match=message):
        patient_grouped_splits(patients, lesion, folds)


PATIENTS = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
GOOD = [{"train": ["b", "c"], "val": ["a1", "a2"]}, {"train": ["a1", "a2"], "val": ["b", "c"]}]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([{"train": ["a1", "b", "c"], "val": ["a2"]}], "fold 0 has patient a both in training"),
        (
            [GOOD[0], {"train": ["b"], "val": ["a1", "a2", "c"]}],
            "patient a is in the validation of folds 0 and 1",
        ),
        ([{"train": ["b", "c", "z"], "val": ["a1", "a2"]}], "stale: fold 0 names z"),
        ([GOOD[0], {"train": ["a1", "a2"], "val": ["b"]}], "stale: fold 1 does not use c"),
        ([{"train": ["a1", "a2", "b", "c"], "val": []}], "fold 0 has no val case"),
        ({"train": []}, "not a list"),
        ([{"train": ["a1"]}], "not a list"),
        ([{"train": "a1", "val": ["b"]}], "not a list"),
    ],
)
def test_bad_splits(splits, message):
    with pytest.raises(MipError, match=f"^data/splits.json: {message}"):
        check_splits(splits, PATIENTS, list(PATIENTS), source="data/splits.json")


def test_a_case_without_patient():
    with pytest.raises(MipError, match="does not name the patient of c"):
        check_splits(GOOD, {"a1": "a", "a2": "a", "b": "b"}, list(PATIENTS))


def test_good_splits_pass_and_no_folds_are_no_error():
    check_splits(GOOD, PATIENTS, set(PATIENTS))
    check_splits([], {"x": "p"}, ["x"])


def test_without_patients_leaves_the_original_alone():
    of_patients = {"patients": {"x": "p"}, "has_lesion": {}, "source_of": {"x": "dmiai"}}
    content = {"labels": {}, "mip": {**of_patients, "views": 3}}
    assert without_patients(content) == {"labels": {}, "mip": {"views": 3}}
    assert content["mip"]["patients"] == {"x": "p"}
    assert without_patients({"labels": {}}) == {"labels": {}}
