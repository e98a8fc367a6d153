"""Sampling of cases: the share of controls, each source, and a part of the patients."""

import pytest

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.training.sampling import (
    part_of_patients,
    repeated_by_source,
    repeated_for_share,
)


@pytest.mark.parametrize(("share", "got"), [(0.2, 0.2), (0.5, 0.5), (0.31, 0.31)])
def test_controls_are_drawn_with_the_share(share, got):
    cases = [f"p{i}" for i in range(106)] + [f"c{i}" for i in range(48)]
    drawn = repeated_for_share(cases, {f"c{i}" for i in range(48)}, share)
    assert sum(case[0] == "c" for case in drawn) / len(drawn) == pytest.approx(got, abs=0.02)
    assert set(drawn) == set(cases)


def test_shares_at_the_edges():
    assert repeated_for_share(["a", "b"], ["b"], 0) == ["a"]
    assert repeated_for_share(["a", "b"], [], 0.3) == ["a", "b"]
    assert repeated_for_share(["a", "b"], ["a", "b"], 0.3) == ["a", "b"]
    with pytest.raises(MipError, match="control share"):
        repeated_for_share(["a", "b"], ["b"], 1.0)


def test_cases_are_repeated_as_their_source_and_lesions_say():
    cases = ["s1", "p1", "p2", "s2"]
    source_of = {"p1": "png", "p2": "png", "s1": "study", "s2": "study"}
    has_lesion = {"p1": True, "p2": False, "s2": False}
    got = repeated_by_source(cases, source_of, has_lesion, {"png": (3, 1), "study": (2, 0)})
    # Nothing says that s1 is without lesions.
    assert got == ["s1", "s1", "p1", "p1", "p1", "p2"]


@pytest.mark.parametrize(
    ("repeats", "words"),
    [
        ({"png": (1, 1)}, "source study is none of png"),
        ({"png": (1, 1), "study": (0, 0)}, "none of which is drawn"),
        ({"study": (1, -1)}, "no two whole numbers"),
        ({"study": (1, 0.5)}, "no two whole numbers"),
        ({"study": (1,)}, "no two whole numbers"),
    ],
)
def test_repetitions_that_cannot_be(repeats, words):
    with pytest.raises(MipError, match=words):
        repeated_by_source(["s1"], {"s1": "study"}, {"s1": True}, repeats)
    with pytest.raises(MipError, match="source None"):
        repeated_by_source(["x"], {}, {}, {"png": (1, 1)})


def test_a_part_of_the_patients_keeps_their_cases_together_and_all_controls():
    # Patients p0 to p9 with two cases with lesions each; p0 has one without, c0 and c1 no other.
    patients = {f"p{i}_{k}": f"p{i}" for i in range(10) for k in range(2)}
    lesions = set(patients)
    patients |= {"p0_2": "p0", "c0_0": "c0", "c1_0": "c1"}
    parts = {s: part_of_patients(list(patients), patients, lesions, s) for s in (0.01, 0.25, 0.5)}
    for share, number in ((0.01, 1), (0.25, 3), (0.5, 5)):
        kept = {patients[case] for case in parts[share]} - {"c0", "c1"}
        assert len(kept) == number
        assert parts[share] == [c for c in patients if patients[c] in kept | {"c0", "c1"}]
    assert set(parts[0.01]) < set(parts[0.25]) < set(parts[0.5])
    assert part_of_patients(list(patients), patients, lesions, 1) == list(patients)
    for share in (0, 1.5):
        with pytest.raises(MipError, match="patient share"):
            part_of_patients(list(patients), patients, lesions, share)
