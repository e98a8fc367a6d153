"""The check of a data set finds likely errors and names the cases."""

import json
import shutil
from pathlib import Path

import pytest

from nnunetv2_mip.commands import report
from nnunetv2_mip.report.case_facts import CaseFacts
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import ReportRequest
from nnunetv2_mip.report.dataset_check import check_cases, conversion_findings, shorten_paths


@pytest.fixture
def flawed(untrained) -> Path:
    """Raw data set with lesion files, a patient on both sides of a fold and a repeated image."""
    splits = json.loads((untrained.raw / "splits_final.json").read_text())
    lesions = {
        "format_version": 1,
        "angles_deg": [0, 60, 120],
        "lesions": [
            {"volume_ml": 7.5, "suv_max": 5.0, "seen_in": [0, 2]},
            {"volume_ml": 2.0, "suv_max": 4.0, "seen_in": []},
        ],
    }
    images = untrained.raw / "imagesTr"
    for case in ("ann_1", "ann_2", "bob_1", "eve_1"):
        of_case = lesions if case != "eve_1" else {**lesions, "lesions": []}
        (images / f"{case}_lesions.json").write_text(json.dumps(of_case))
    splits[0] = {"train": ["bob_1", "eve_1", "ann_1"], "val": ["ann_2"]}
    (untrained.raw / "splits_final.json").write_text(json.dumps(splits))
    shutil.copy(images / "ann_1_0000.nii.gz", images / "bob_1_0000.nii.gz")
    return untrained.raw


def test_findings_name_their_cases(flawed):
    findings = collect(ReportRequest(dataset=flawed, shown=0)).check.findings
    for level, *words in (
        ("warning", "patient ann", "training", "validation"),
        ("warning", "ann_1 = bob_1"),
        ("note", "1 of 4 labels", "eve_1"),
        ("note", "3 of 6 lesions", "6.0 ml", "ann_1, ann_2, bob_1"),
        ("ok", "one spacing", "4 × 5 mm"),
    ):
        found = [f for f in findings if all(word in f.text for word in words)]
        assert [f.level for f in found] == [level], words
    assert [f.level for f in findings[:2]] == ["warning", "warning"]


def test_a_data_set_is_checked_by_its_number(flawed, run, read_page, tmp_path, capsys):
    output = tmp_path / "data.html"
    assert run(report, "-d", 901, "-o", output, "--cases", 1) == 0
    printed, page = capsys.readouterr().out, read_page(output)
    for finding in collect(ReportRequest(dataset=flawed, shown=0)).check.findings:
        assert finding.text in page.words
        assert (finding.text in printed) == (finding.level == "warning")
    assert "Data set check" in page.words and "Metrics" not in page.words
    assert len(page.pictures) == 2


def facts_of(case: str, **changes) -> CaseFacts:
    usual = {
        "kind": "volume", "size": (100, 100, 200), "spacing_mm": (4.0, 4.0, 3.0),
        "burden": 3.0, "predicted_burden": None, "unit": "ml",
        "lesions": [{"volume_ml": 3.0}], "predicted": None, "uptake": 0.8,
        "digest": hash(case),
    }  # fmt: skip
    return CaseFacts(case=case, **{**usual, **changes})


def test_odd_cases_are_named():
    usual = [facts_of(f"case_{n}") for n in range(5)]
    assert {f.level for f in check_cases(Path("x"), usual).findings} == {"ok"}
    odd = [
        facts_of("short", size=(100, 100, 60)),
        facts_of("coarse", spacing_mm=(4.0, 4.0, 8.0)),
        facts_of("slip", lesions=[{"volume_ml": 0.01}]),
        facts_of("unit", warnings=["the median of the body is 4000"]),
    ]
    lines = {f.text: f.level for f in check_cases(Path("x"), usual + odd).findings}
    for text, level in (
        ("odd size", "warning"),
        ("short (100 × 100 × 60)", "warning"),
        ("coarse (4 × 4 × 8)", "warning"),
        ("smaller than 0.05 ml", "note"),
        ("unit: the median of the body is 4000", "warning"),
        ("2 different spacings; 8 of 9 cases have 4 × 4 × 3 mm", "note"),
    ):
        assert [known for line, known in lines.items() if text in line] == [level], text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/data/my trial/p1/SUV.nii.gz: median SUV 40", "p1/SUV.nii.gz: median SUV 40"),
        ("/data/p1: left out by the conversion: /data/p1/CT.nii.gz: no such file",
         "data/p1: left out by the conversion: p1/CT.nii.gz: no such file"),
        ("a.nii.gz: not on the grid of /data/x/b.nii.gz; resample it",
         "a.nii.gz: not on the grid of x/b.nii.gz; resample it"),
        (r"C:\trial\p1\SUV.nii.gz: 3 g/ml and 2 / 3", "p1/SUV.nii.gz: 3 g/ml and 2 / 3"),
    ],
)  # fmt: skip
def test_a_report_names_no_folder_of_this_machine(line, shown, tmp_path):
    assert shorten_paths(line) == shown
    (tmp_path / "conversion.json").write_text(
        json.dumps({"warnings": [line], "skipped": [{"case": line, "reason": line}]})
    )
    warning, skipped = conversion_findings(tmp_path)
    assert warning.text == shown and skipped.text.count(shown) == 2
