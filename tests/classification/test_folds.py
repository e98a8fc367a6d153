"""Folds and the studies they are made of."""

import pytest

from nnunetv2_mip.classification.folds import assigned_folds, inner_folds
from nnunetv2_mip.classification.study_labels import StudyLabel, require_both_classes
from nnunetv2_mip.errors import MipError


def test_fixed_folds_stay_and_the_rest_is_assigned():
    studies = [StudyLabel(f"s{n}", f"s{n}", True) for n in range(10)]
    studies += [StudyLabel(f"h{n}", f"h{n}", False) for n in range(25)]
    fixed = {f"s{n}": n % 5 for n in range(10)} | {"elsewhere": 3}
    folds = assigned_folds(studies, fixed)
    assert set(folds) == {study.case for study in studies}
    assert all(folds[case] == fold for case, fold in fixed.items() if case != "elsewhere")
    counts = [sum(folds[f"h{n}"] == fold for n in range(25)) for fold in range(5)]
    assert counts == [5] * 5


def test_a_patient_keeps_the_fold_of_its_other_study():
    names = (("a1", "a"), ("a2", "a"), ("b", "b"), ("c", "c"))
    studies = [StudyLabel(case, patient, True) for case, patient in names]
    assert assigned_folds(studies, {"a1": 1}, 2)["a2"] == 1
    with pytest.raises(MipError, match="patient a"):
        assigned_folds(studies, {"a1": 1, "a2": 0}, 2)
    with pytest.raises(MipError, match="fold 7"):
        assigned_folds(studies, {"a1": 7}, 2)


def test_there_are_as_many_inner_folds_as_the_rarer_class_allows():
    studies = [StudyLabel(f"c{n}", f"p{n}", True) for n in range(4)]
    studies += [StudyLabel("h1", "h", False), StudyLabel("g", "g", False)]
    assert set(inner_folds(studies)) == {0, 1}
    studies += [StudyLabel(f"h{n}", f"h{n}", False) for n in range(2, 9)]
    assert set(inner_folds(studies)) == {0, 1, 2, 3}


def test_both_classes_need_two_patients():
    controls = [StudyLabel(f"c{n}", f"p{n}", False) for n in range(4)]
    with pytest.raises(MipError, match="0 patients with lesions"):
        require_both_classes(controls)
    patients = [StudyLabel(f"c{n}", f"p{n}", True) for n in range(4)]
    with pytest.raises(MipError, match="0 patients without lesions"):
        require_both_classes(patients)
    with pytest.raises(MipError, match="empty"):
        require_both_classes([])
    # Two studies of one patient are one patient.
    one = [StudyLabel("h1", "h", False), StudyLabel("h2", "h", False)]
    with pytest.raises(MipError, match="1 patient without"):
        require_both_classes([*patients, *one])
