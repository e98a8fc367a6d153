"""Paired comparison of two sets of predictions: by hand, and through the command."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from nnunetv2_mip.commands import evaluate as command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.comparison import compare, grouping_of, patients_of
from nnunetv2_mip.evaluation.matching import truths_of
from nnunetv2_mip.io.patients import PatientOptions
from nnunetv2_mip.phantom.cohort import write_cohort


def report(**dice: float | None) -> dict:
    return {
        "kind": "volume",
        "cases": {
            case: {"dice": math.nan if value is None else value, "has_lesion": value is not None}
            for case, value in dice.items()
        },
    }


def test_the_difference_by_hand():
    found = compare(
        report(a=0.5, b=0.9, c=0.2, healthy=None), report(a=0.4, b=0.9, c=0.5, healthy=None)
    )
    assert found["dice_difference"] == pytest.approx((0.1 + 0 - 0.3) / 3)
    assert (found["better"], found["worse"], found["equal"]) == (1, 1, 1)
    assert (found["cases"], found["patients"]) == (3, 3)


def test_the_interval_draws_patients_not_cases():
    """Ten studies of one patient are one draw: with two patients the means are those of either."""
    first = report(**{f"a{n}": 0.8 for n in range(10)}, b=0.5)
    second = report(**{f"a{n}": 0.7 for n in range(10)}, b=0.9)
    patients = {case: case[0] for case in first["cases"]}
    found = compare(first, second, patients)
    assert found["patients"] == 2
    assert found["interval_95"] == pytest.approx([-0.4, 0.1])
    alone = compare(first, second)
    assert alone["patients"] == 11
    assert alone["interval_95"][0] > -0.2


def test_equal_predictions_do_not_differ():
    one = report(a=0.3, b=0.6)
    found = compare(one, one)
    assert found["dice_difference"] == 0
    assert found["interval_95"] == [0, 0]


def test_one_patient_has_no_interval():
    assert all(map(math.isnan, compare(report(a=0.3), report(a=0.2))["interval_95"]))


@pytest.mark.parametrize("other", [report(a=0.1), report(a=0.1, c=0.2)])
def test_other_cases_are_refused(other):
    with pytest.raises(MipError, match="not of the same cases"):
        compare(report(a=0.1, b=0.2), other)


def test_healthy_cases_alone_are_refused():
    with pytest.raises(MipError, match="no case has lesions"):
        compare(report(a=None), report(a=None))


@pytest.mark.slow
def test_patients_come_from_the_truths(tmp_path):
    tree = write_cohort(tmp_path / "tree", 4, seed=0, spacing_mm=12.0)
    found = patients_of(tree)
    assert len(found) == 4
    assert all(case.startswith(patient) for case, patient in found.items())
    (tmp_path / "set" / "labelsTr").mkdir(parents=True)
    content = {"mip": {"patients": {"case": "anna"}}}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content))
    assert patients_of(tmp_path / "set") == {"case": "anna"}
    assert patients_of(tmp_path / "set" / "labelsTr") == {"case": "anna"}
    (tmp_path / "masks").mkdir()
    assert patients_of(tmp_path / "masks") == {}


def test_patients_are_read_in_the_names_of_masks(tmp_path, capsys):
    for name in ("P1_baseline", "P1_followup", "P2_2001-01-01", "sub-01_ses-1", "sub-01_ses-2"):
        (tmp_path / f"{name}.nii.gz").touch()
    found, grouping = grouping_of(tmp_path)
    assert found == {
        "P1_baseline": "P1",
        "P1_followup": "P1",
        "P2_2001-01-01": "P2",
        "sub-01_ses-1": "sub-01",
        "sub-01_ses-2": "sub-01",
    }
    assert "5 studies of 3 patients" in grouping.line
    own, _ = grouping_of(tmp_path, PatientOptions(regex="^(..)"))
    assert set(own.values()) == {"P1", "P2", "su"}


def test_masks_alone_are_truths_of_a_tree(tmp_path):
    for name in ("A/1", "A/2", "B/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "SEG.nii.gz").touch()
    assert [pair.case for pair in truths_of(tmp_path)] == ["A_1", "A_2", "B_1"]
    assert patients_of(tmp_path) == {"A_1": "A", "A_2": "A", "B_1": "B"}


def test_the_command_writes_and_prints_the_comparison(tmp_path, capsys):
    for folder, rows in (("truth", 4), ("good", 4), ("bad", 2)):
        (tmp_path / folder).mkdir()
        for case in ("a", "b", "c"):
            mask = np.zeros((10, 10), np.uint8)
            mask[:rows] = 255
            Image.fromarray(mask).save(tmp_path / folder / f"{case}.png")
    arguments = ["-g", str(tmp_path / "truth"), "-o", str(tmp_path / "out.json")]
    with pytest.raises(SystemExit) as ended:
        command.main(["-p", str(tmp_path / "good"), "--against", str(tmp_path / "bad"), *arguments])
    assert ended.value.code == 0
    # 2 · 20 / (40 + 20) = 2 / 3
    assert "Dice +0.333 (95 % interval +0.333 to +0.333" in capsys.readouterr().out
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["comparison"]["dice_difference"] == pytest.approx(1 / 3)
    assert written["comparison"]["better"] == 3
    assert written["against"] == "bad"
