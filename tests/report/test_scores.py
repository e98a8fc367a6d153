"""Scores and lesions of a report are those of the evaluation and of the lesion tables."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_mip.commands import evaluate, report
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.io.volumes import read_mask, read_suv
from nnunetv2_mip.lesions.lesion_table import lesion_table
from nnunetv2_mip.report.collect import collect
from nnunetv2_mip.report.content import ReportRequest

VOLUME_SCORES = ("dice", "hd95_mm", "false_positive_volume_ml", "false_negative_volume_ml")


def test_scores_are_those_of_the_evaluation(cohort, volume_report, run, read_page, tmp_path):
    metrics = tmp_path / "metrics.json"
    assert run(evaluate, "-p", cohort / "masks", "-g", cohort / "tree", "-o", metrics) == 0
    expected = json.loads(metrics.read_text())
    page = read_page(volume_report)
    for name in VOLUME_SCORES:
        # Shown with one decimal at least.
        assert float(page.scores[name]) == pytest.approx(expected["mean"][name], abs=0.051), name
    assert float(page.scores["dice"]) == pytest.approx(expected["mean"]["dice"], abs=0.00051)
    low, high = expected["dice_interval_95"]
    assert f"{low:.3f}–{high:.3f}" in page.words
    found, lesions = expected["counts"]["lesions_found"], expected["counts"]["lesions"]
    assert f"{found} of {lesions}" in page.words and lesions > 1
    for case, scores in expected["cases"].items():
        values = page.rows[case]
        assert values[: len(VOLUME_SCORES)] == [scores[name] for name in VOLUME_SCORES]
        assert values[-2:] == [scores["lesions"], scores["lesions_found"]]


def test_found_and_missed_lesions_agree_with_the_counts(cohort):
    content = collect(ReportRequest(cohort / "masks", cohort / "tree", shown=0))
    for case, facts in content.facts.items():
        scores = content.scores["cases"][case]
        assert sum(row["hit"] for row in facts.lesions) == scores["lesions_found"]
        assert sum(row["hit"] for row in facts.predicted) == scores["predicted_lesions_right"]
        assert facts.burden == pytest.approx(scores["true_volume_ml"])
        assert facts.predicted_burden == pytest.approx(scores["predicted_volume_ml"])
    assert content.scores["counts"]["lesions_found"] < content.scores["counts"]["lesions"]
    assert not content.pictures


def test_a_missing_prediction_counts_as_empty(cohort, pngs, tmp_path):
    for masks, truths in ((cohort / "masks", cohort / "tree"), (pngs / "masks", pngs / "data")):
        some = tmp_path / truths.name
        shutil.copytree(masks, some)
        case = "patient_1" if truths == pngs / "data" else find_studies(truths)[-1].case
        next(some.glob(f"{case}.*")).unlink()
        content = collect(ReportRequest(some, truths, shown=0, allow_missing=True))
        facts, counts = content.facts[case], content.scores["counts"]
        assert counts["missing_predictions"] == 1 and facts.predicted_burden == 0
        rows = [row for f in content.facts.values() for row in f.lesions]
        assert len(rows) == counts["lesions"] and facts.lesions
        assert sum(row["hit"] for row in rows) == counts["lesions_found"]


def test_cases_that_were_not_predicted_are_left_out_on_request(pngs, tmp_path):
    shutil.copytree(pngs / "masks", tmp_path / "some")
    (tmp_path / "some/patient_1.png").unlink()
    request = ReportRequest(tmp_path / "some", pngs / "data", shown=0, only_predicted=True)
    content = collect(request)
    assert "patient_1" not in content.facts and content.facts
    assert content.scores["not_predicted"] == ["patient_1"]


def test_stacks_are_scored_as_the_evaluation_does(untrained, run, read_page, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in sorted((untrained.raw / "labelsTr").iterdir()):
        # Two columns beside the truth, and 255 where others write 1.
        labels = sitk.ReadImage(str(path))
        moved = 255 * np.roll(sitk.GetArrayFromImage(labels) == 1, 2, axis=2).astype(np.uint8)
        image = sitk.GetImageFromArray(moved)
        image.CopyInformation(labels)
        sitk.WriteImage(image, str(masks / path.name))
    output, metrics = tmp_path / "stacks.html", tmp_path / "metrics.json"
    assert run(report, "-i", masks, "-g", untrained.raw, "-o", output, "--cases", 1) == 0
    assert run(evaluate, "-p", masks, "-g", untrained.raw, "-o", metrics) == 0
    page, expected = read_page(output), json.loads(metrics.read_text())["mean"]
    assert float(page.scores["dice"]) == pytest.approx(expected["dice"], abs=0.00051)
    assert 0 < expected["dice"] < 0.99
    assert float(page.scores["true_pixels"]) == pytest.approx(expected["true_pixels"], abs=0.51)
    picture = next(iter(page.pictures.values()))
    assert picture["views"] == 3 and picture["has_image"]


def test_without_truth_the_lesions_are_listed(cohort, run, read_page, tmp_path, capsys):
    output = tmp_path / "plain.html"
    arguments = ["-i", cohort / "masks", "--images", cohort / "tree", "-o", output, "--views", 4]
    assert run(report, *arguments, "--cases", 1) == 0
    assert "nothing is scored" in capsys.readouterr().out
    page = read_page(output)
    assert not page.scores and "Dice" not in page.words
    for study in find_studies(cohort / "tree"):
        suv = read_suv(study.suv)
        mask = read_mask(cohort / "masks" / f"{study.case}.nii.gz", like=suv)
        rows = lesion_table(mask.array, suv.array, suv.grid)
        number, ml, suv_max, tlg = page.rows[study.case]
        assert number == len(rows) and ml == pytest.approx(sum(r["volume_ml"] for r in rows))
        assert suv_max == max(r["suv_max"] for r in rows)
        assert tlg == pytest.approx(sum(r["tlg"] for r in rows))
