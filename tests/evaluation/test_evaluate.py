"""Evaluation on disk: matching by name, reports, and the command with its exit codes."""

import csv
import json
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run as run_command
from PIL import Image

from nnunetv2_mip.commands import evaluate as command
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.evaluation.evaluate import evaluate, write_report
from nnunetv2_mip.evaluation.matching import match

STUDY = "03-23-2003-NA-PET-CT Ganzkoerper  primaer mit KM-04689"
PNG_COLUMNS = (
    "case,dice,false_positive_pixels,false_negative_pixels,true_pixels,predicted_pixels,"
    "lesion_recall,lesion_precision,lesion_f1,lesions,lesions_found,predicted_lesions,"
    "predicted_lesions_right,has_lesion,missing_prediction"
)


def save_png(path, columns, shape=(6, 10), value=255):
    """A mask whose first row is foreground in the given columns."""
    array = np.zeros(shape, np.uint8)
    array[0, columns] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def save_nifti(path, array, spacing_zyx=(10.0, 10.0, 10.0), origin=(0.0, 0.0, 0.0)):
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(spacing_zyx[::-1])
    picture.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(picture, str(path))


def box(size, shape=(4, 6, 8)):
    """Foreground in the first `size` voxels of the first row."""
    array = np.zeros(shape, np.uint8)
    array[0, 0, :size] = 1
    return array


run = partial(run_command, command)


@pytest.fixture
def pngs(tmp_path):
    """Two patients (Dice 1 and 0.5) and a control with three false pixels."""
    for name, truth, prediction in (
        ("a", [0, 1], [0, 1]),
        ("b", [2, 3], [3, 4]),
        ("c", [], [5, 7, 9]),
    ):
        save_png(tmp_path / "gt" / f"{name}.png", truth)
        save_png(tmp_path / "pred" / f"{name}.png", prediction)
    return tmp_path


class TestPngs:
    def test_report(self, pngs):
        report = evaluate(pngs / "pred", pngs / "gt")
        assert report["kind"] == "png"
        assert list(report["cases"]) == ["a", "b", "c"]
        assert report["mean"]["dice"] == 0.75  # the control stays out
        assert math.isnan(report["cases"]["c"]["dice"])
        assert report["cases"]["c"]["false_positive_pixels"] == 3
        assert report["controls"] == {"with_false_positives": 1, "mean_false_positive_pixels": 3}
        counts = report["counts"]
        assert (counts["cases"], counts["with_lesions"], counts["controls"]) == (3, 2, 1)
        assert (counts["lesions"], counts["lesions_found"]) == (2, 2)
        assert report["pooled"] == {"lesion_recall": 1.0, "lesion_precision": 2 / 5}
        low, high = report["dice_interval_95"]
        assert (low, high) == (0.5, 1.0)

    def test_masks_of_the_dmiai_folder_are_named_like_their_images(self, tmp_path):
        data = tmp_path / "data"
        save_png(data / "patients/labels/segmentation_007.png", [1])
        for name in ("control_001", "control_002"):  # an image, not a mask
            save_png(data / f"controls/imgs/{name}.png", [0, 1, 2], value=99)
        save_png(tmp_path / "pred/patient_007.png", [1])
        save_png(tmp_path / "pred/control_002.png", [4, 5])
        report = evaluate(tmp_path / "pred", data)
        assert list(report["cases"]) == ["control_002", "patient_007"]
        assert report["cases"]["control_002"]["false_positive_pixels"] == 2
        assert report["mean"]["dice"] == 1
        assert report["controls_left_out"] == ["control_001"]
        assert "controls left out, no prediction: control_001" in command.describe(report)
        labels_only = evaluate(tmp_path / "pred", data / "patients/labels")
        assert list(labels_only["cases"]) == ["patient_007"]
        assert labels_only["ignored_predictions"] == ["control_002.png"]

    def test_single_files_need_no_equal_names(self, pngs):
        report = evaluate(pngs / "pred/b.png", pngs / "gt/a.png")
        assert report["cases"]["a"]["dice"] == 0

    def test_command_writes_json_csv_and_a_table(self, pngs, capsys):
        save_png(pngs / "pred/extra.png", [0])
        assert run("-p", pngs / "pred", "-g", pngs / "gt", "-o", pngs / "out/metrics.json") == 0
        content = json.loads((pngs / "out/metrics.json").read_text("utf-8"))
        assert content["format_version"] == 1
        assert content["cases"]["c"]["dice"] is None
        assert content["ignored_predictions"] == ["extra.png"]
        text = (pngs / "out/metrics.csv").read_text("utf-8")
        assert text.splitlines()[0] == PNG_COLUMNS
        rows = list(csv.DictReader(text.splitlines()))
        assert [(row["case"], row["dice"]) for row in rows] == [
            ("a", "1.0"),
            ("b", "0.5"),
            ("c", ""),
        ]
        assert sorted(path.name for path in (pngs / "out").iterdir()) == [
            "metrics.csv",
            "metrics.json",
        ]
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[2:5]] == ["b", "a", "c"]  # worst first
        assert len({len(line) for line in lines[:7]}) == 1  # aligned
        assert any("extra.png" in line for line in lines)
        assert any("mean Dice 0.750 over 2 cases" in line for line in lines)

    def test_equal_input_gives_equal_bytes(self, pngs):
        for name in ("one", "two"):
            run("-p", pngs / "pred", "-g", pngs / "gt", "-o", pngs / f"{name}.json")
        assert (pngs / "one.json").read_bytes() == (pngs / "two.json").read_bytes()
        assert (pngs / "one.csv").read_bytes() == (pngs / "two.csv").read_bytes()

    def test_a_long_table_is_cut(self, tmp_path, capsys):
        for index in range(command.TABLE_ROWS + 4):
            save_png(tmp_path / f"m/{index:03}.png", [0])
        run("-p", tmp_path / "m", "-g", tmp_path / "m", "-o", tmp_path / "o.json")
        assert "4 better cases" in capsys.readouterr().out
        assert len(json.loads((tmp_path / "o.json").read_text())["cases"]) == command.TABLE_ROWS + 4


class TestVolumes:
    @pytest.mark.parametrize("processes", [1, 2])
    def test_report_in_ml(self, tmp_path, processes):
        save_nifti(tmp_path / "gt/x.nii.gz", box(4))
        save_nifti(tmp_path / "pred/x.mha", box(2))
        save_nifti(tmp_path / "gt/healthy.nii.gz", box(0))
        save_nifti(tmp_path / "pred/healthy.nii.gz", box(3))
        report = evaluate(tmp_path / "pred", tmp_path / "gt", processes=processes)
        assert report["kind"] == "volume"
        assert report["cases"]["x"]["dice"] == pytest.approx(2 * 2 / 6)
        assert report["cases"]["x"]["true_volume_ml"] == pytest.approx(4)
        assert report["cases"]["healthy"]["false_positive_volume_ml"] == pytest.approx(3)
        # autoPET: every case counts for the false positive volume.
        assert report["mean"]["false_positive_volume_ml"] == pytest.approx(1.5)
        assert report["mean"]["false_negative_volume_ml"] == 0
        assert report["controls"]["mean_false_positive_volume_ml"] == pytest.approx(3)

    def test_minimal_overlap(self, tmp_path):
        save_nifti(tmp_path / "gt.nii.gz", box(4))
        save_nifti(tmp_path / "pred.nii.gz", box(2))
        files = tmp_path / "pred.nii.gz", tmp_path / "gt.nii.gz"
        assert evaluate(*files)["counts"]["lesions_found"] == 1
        assert evaluate(*files, min_overlap=0.6)["counts"]["lesions_found"] == 0

    @pytest.mark.parametrize(
        "prediction",
        [
            "PETCT_1_03-23-2003_04689.nii.gz",
            f"PETCT_1/{STUDY}/SEG.nii.gz",
            f"PETCT_1/{STUDY}.nii.gz",
        ],
    )
    def test_study_tree(self, tmp_path, prediction):
        study = tmp_path / "tree/PETCT_1" / STUDY
        save_nifti(study / "SUV.nii.gz", box(4).astype(np.float32))
        save_nifti(study / "SEG.nii.gz", box(4))
        save_nifti(tmp_path / "pred" / prediction, box(4))
        report = evaluate(tmp_path / "pred", tmp_path / "tree")
        assert list(report["cases"]) == ["PETCT_1_03-23-2003_04689"]
        assert report["mean"]["dice"] == 1
        assert report["ignored_predictions"] == []

    def test_a_study_folder_is_a_tree_and_its_suv_is_no_mask(self, tmp_path):
        save_nifti(tmp_path / "STS_1/SUV.nii.gz", box(4).astype(np.float32) * 3.5)
        save_nifti(tmp_path / "STS_1/SEG.nii.gz", box(4))
        save_nifti(tmp_path / "pred/STS_1.nii.gz", box(4))
        assert evaluate(tmp_path / "pred", tmp_path / "STS_1")["cases"]["STS_1"]["dice"] == 1

    @pytest.mark.parametrize("prediction", ["fdg_1_" + STUDY, "fdg_1_03-23-2003_04689"])
    def test_release_matches_file_names_and_case_names(self, tmp_path, prediction):
        raw = "fdg_1_" + STUDY
        save_nifti(tmp_path / f"data/imagesTr/{raw}_0001.nii.gz", box(4).astype(np.float32))
        save_nifti(tmp_path / f"data/labelsTr/{raw}.nii.gz", box(4))
        save_nifti(tmp_path / f"pred/{prediction}.nii.gz", box(4))
        report = evaluate(tmp_path / "pred", tmp_path / "data")
        assert list(report["cases"]) == ["fdg_1_03-23-2003_04689"]


class TestStacks:
    spacing = (1000.0, 2.0, 2.0)

    def test_views_are_judged_one_by_one_in_pixels(self, tmp_path):
        truth = np.zeros((3, 4, 8), np.uint8)
        truth[0, 0, :4] = 1
        truth[1, 0, 0] = 1
        prediction = truth.copy()
        prediction[1] = 0
        prediction[2, 0, :2] = 1
        save_nifti(tmp_path / "raw/labelsTr/case.nii.gz", truth, self.spacing)
        save_nifti(tmp_path / "pred/case.nii.gz", prediction, self.spacing)
        report = evaluate(tmp_path / "pred", tmp_path / "raw")
        assert report["kind"] == "stack"
        case = report["cases"]["case"]
        assert case["dice"] == 0.5
        assert (case["views"], case["views_with_lesions"]) == (3, 2)
        assert (case["false_positive_pixels"], case["false_negative_pixels"]) == (2, 1)
        assert not any(name.endswith("_ml") for name in case)
        run("-p", tmp_path / "pred", "-g", tmp_path / "raw", "-o", tmp_path / "m.json")
        assert (tmp_path / "m.csv").read_text().startswith("case,dice,false_positive_pixels,")

    def test_ignored_pixels_count_for_nothing(self, tmp_path):
        truth = box(2, (1, 4, 8))
        truth[0, 0, 2:5] = 2
        save_nifti(tmp_path / "gt.nii.gz", truth, self.spacing)
        save_nifti(tmp_path / "pred.nii.gz", box(5, (1, 4, 8)), self.spacing)
        report = evaluate(tmp_path / "pred.nii.gz", tmp_path / "gt.nii.gz")
        assert report["mean"]["dice"] == 1
        assert report["mean"]["false_positive_pixels"] == 0

    def test_other_labels_are_refused(self, tmp_path):
        save_nifti(tmp_path / "gt.nii.gz", box(2, (1, 4, 8)) * 7, self.spacing)
        with pytest.raises(MipError, match=r"gt\.nii\.gz.*also 7"):
            evaluate(tmp_path / "gt.nii.gz", tmp_path / "gt.nii.gz")


class TestBadInput:
    """One line that names the file, exit code 2, nothing written."""

    def refuse(self, capsys, folder, *names, pred="pred", gt="gt", extra=()):
        output = folder / "out" / "metrics.json"
        assert run("-p", folder / pred, "-g", folder / gt, "-o", output, *extra) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("nnUNetv2_mip_evaluate: error: ")
        for name in names:
            assert str(name) in message
        assert not output.parent.exists()

    def test_missing_prediction(self, pngs, capsys):
        (pngs / "pred/b.png").unlink()
        self.refuse(capsys, pngs, pngs / "pred/b.png", "1 of 3", "--allow_missing")

    def test_missing_prediction_counts_as_empty_on_request(self, pngs, capsys):
        (pngs / "pred/a.png").unlink()
        output = pngs / "m.json"
        assert run("-p", pngs / "pred", "-g", pngs / "gt", "-o", output, "--allow_missing") == 0
        content = json.loads(output.read_text("utf-8"))
        assert content["cases"]["a"]["dice"] == 0
        assert content["mean"]["dice"] == 0.25
        assert content["missing_predictions"] == ["a"]
        assert "missing, counted as empty: a" in capsys.readouterr().out

    def test_cases_that_were_not_predicted_are_left_out_on_request(self, pngs, capsys):
        (pngs / "pred/a.png").unlink()
        output = pngs / "m.json"
        assert run("-p", pngs / "pred", "-g", pngs / "gt", "-o", output, "--only_predicted") == 0
        content = json.loads(output.read_text("utf-8"))
        assert sorted(content["cases"]) == ["b", "c"]
        assert content["mean"]["dice"] == 0.5
        assert (content["not_predicted"], content["missing_predictions"]) == (["a"], [])
        assert "cases left out, no prediction: a" in capsys.readouterr().out

    def test_only_one_way_to_treat_missing_predictions(self, pngs, capsys):
        extra = ["--only_predicted", "--allow_missing"]
        assert run("-p", pngs, "-g", pngs, "-o", pngs / "m.json", *extra) == 2
        assert "not allowed with" in capsys.readouterr().err

    def test_missing_volume_counts_as_empty_on_request(self, tmp_path):
        for name in ("a", "b"):
            save_nifti(tmp_path / f"gt/{name}.nii.gz", box(4))
        save_nifti(tmp_path / "pred/a.nii.gz", box(4))
        report = evaluate(tmp_path / "pred", tmp_path / "gt", allow_missing=True)
        assert report["cases"]["b"]["false_negative_volume_ml"] == pytest.approx(4)
        assert report["mean"]["dice"] == 0.5

    def test_a_folder_without_any_prediction_is_never_empty_predictions(self, pngs, capsys):
        (pngs / "other").mkdir()
        self.refuse(capsys, pngs, pngs / "other", pred="other", extra=["--allow_missing"])

    def test_no_such_folder(self, pngs, capsys):
        self.refuse(capsys, pngs, pngs / "nowhere", pred="nowhere")
        self.refuse(capsys, pngs, pngs / "nowhere", gt="nowhere")

    def test_truth_folder_without_truth(self, pngs, capsys):
        (pngs / "empty").mkdir()
        self.refuse(capsys, pngs, pngs / "empty", gt="empty")

    def test_file_against_folder(self, pngs, capsys):
        self.refuse(capsys, pngs, pngs / "pred/a.png", pngs / "gt", pred="pred/a.png")

    def test_png_against_volume(self, pngs, capsys):
        save_nifti(pngs / "gt.nii.gz", box(4))
        self.refuse(capsys, pngs, "a.png", "gt.nii.gz", pred="pred/a.png", gt="gt.nii.gz")

    def test_unknown_kind_of_file(self, pngs, capsys):
        (pngs / "mask.txt").write_text("x")
        self.refuse(capsys, pngs, "mask.txt", pred="mask.txt", gt="mask.txt")

    def test_other_image_size(self, pngs, capsys):
        save_png(pngs / "pred/b.png", [0], shape=(6, 11))
        self.refuse(capsys, pngs, pngs / "pred/b.png", pngs / "gt/b.png", "11x6", "10x6")

    @pytest.mark.parametrize("folder", ["pred", "gt"])
    def test_labels_other_than_0_and_255(self, pngs, capsys, folder):
        save_png(pngs / folder / "b.png", [0], value=1)
        self.refuse(capsys, pngs, pngs / folder / "b.png", "0 and 255")

    @pytest.mark.parametrize("folder", ["pred", "gt"])
    def test_unreadable_png(self, pngs, capsys, folder):
        path = pngs / folder / "b.png"
        path.write_bytes(path.read_bytes()[:40])
        self.refuse(capsys, pngs, path)

    @pytest.mark.parametrize("folder", ["pred", "gt"])
    @pytest.mark.parametrize("processes", [1, 2])
    def test_truncated_volume(self, tmp_path, capsys, folder, processes):
        noise = np.random.default_rng(0).integers(0, 2, (20, 20, 20), np.uint8)
        for place in ("pred", "gt"):
            for name in ("a", "b"):
                save_nifti(tmp_path / place / f"{name}.nii.gz", noise)
        path = tmp_path / folder / "b.nii.gz"
        path.write_bytes(path.read_bytes()[:-200])
        self.refuse(capsys, tmp_path, path, extra=["-np", processes])

    @pytest.mark.parametrize(
        "changes",
        [{"origin": (50.0, 0.0, 0.0)}, {"spacing_zyx": (9.0, 10.0, 10.0)}],
        ids=["origin", "spacing"],
    )
    def test_other_grid(self, tmp_path, capsys, changes):
        save_nifti(tmp_path / "gt/a.nii.gz", box(4))
        save_nifti(tmp_path / "pred/a.nii.gz", box(4), **changes)
        self.refuse(capsys, tmp_path, tmp_path / "gt/a.nii.gz", tmp_path / "pred/a.nii.gz")

    @pytest.mark.parametrize("folder", ["pred", "gt"])
    def test_volume_of_several_labels(self, tmp_path, capsys, folder):
        for place in ("pred", "gt"):
            save_nifti(tmp_path / place / "a.nii.gz", box(4))
        several = box(4)
        several[1, 0, 0] = 3
        save_nifti(tmp_path / folder / "a.nii.gz", several)
        self.refuse(capsys, tmp_path, tmp_path / folder / "a.nii.gz", "not a mask")

    def test_nan_is_no_label(self, tmp_path, capsys):
        save_nifti(tmp_path / "gt/a.nii.gz", box(4))
        array = box(4).astype(np.float32)
        array[0, 0, 0] = np.nan
        # Not NIfTI: its reader turns NaN into 0 before anyone sees it.
        save_nifti(tmp_path / "pred/a.mha", array)
        self.refuse(capsys, tmp_path, tmp_path / "pred/a.mha", "nan")

    def test_two_predictions_of_one_case(self, tmp_path, capsys):
        save_nifti(tmp_path / "gt/a.nii.gz", box(4))
        for name in ("a.nii.gz", "a.mha"):
            save_nifti(tmp_path / "pred" / name, box(4))
        self.refuse(capsys, tmp_path, "a.nii.gz", "a.mha")

    def test_stacks_and_volumes_together(self, tmp_path, capsys):
        for place in ("pred", "gt"):
            save_nifti(tmp_path / place / "a.nii.gz", box(4))
            save_nifti(tmp_path / place / "b.nii.gz", box(4), (1000.0, 2.0, 2.0))
        self.refuse(capsys, tmp_path, tmp_path / "gt/a.nii.gz", tmp_path / "gt/b.nii.gz", "stack")

    def test_pngs_and_volumes_together(self, pngs, capsys):
        save_nifti(pngs / "gt/x.nii.gz", box(4))
        self.refuse(capsys, pngs, pngs / "gt", "PNGs and volumes")

    @pytest.mark.parametrize(
        "extra", [["--min_overlap", 2], ["-np", 0]], ids=["min-overlap", "processes"]
    )
    def test_options_out_of_range(self, pngs, capsys, extra):
        self.refuse(capsys, pngs, extra[0], extra=extra)

    def test_output_must_be_json(self, pngs, capsys):
        assert run("-p", pngs / "pred", "-g", pngs / "gt", "-o", pngs / "m.csv") == 2
        assert "m.csv" in capsys.readouterr().err
        with pytest.raises(MipError, match=r"m\.csv"):
            write_report(evaluate(pngs / "pred", pngs / "gt"), pngs / "m.csv")
        assert not (pngs / "m.csv").exists()


def test_match_orders_by_case_and_skips_hidden_files(tmp_path):
    for name in ("b", "a", ".hidden"):
        save_png(tmp_path / f"gt/{name}.png", [0])
        save_png(tmp_path / f"pred/{name}.png", [0])
    found = match(tmp_path / "pred", tmp_path / "gt")
    assert [pair.case for pair in found.pairs] == ["a", "b"]
    assert found.ignored == []


def test_command_meets_the_golden_values(tmp_path):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set (real data for tests)")
    folder = Path(data) / "golden_metrics"
    files = ["-p", folder / "prediction.nii.gz", "-g", folder / "ground_truth.nii.gz"]
    assert run(*files, "-o", tmp_path / "m.json") == 0
    case = json.loads((tmp_path / "m.json").read_text())["cases"]["ground_truth"]
    expected = json.loads((folder / "expected.json").read_text())
    for name in ("dice", "false_positive_volume_ml", "false_negative_volume_ml"):
        assert case[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-4)


def test_what_the_predictor_keeps_beside_a_mask_is_not_remarked_on(tmp_path):
    mask = np.zeros((4, 5, 6), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    save_nifti(tmp_path / "truth" / "a.nii.gz", mask)
    for name in (
        "a",
        "a_probabilities",
        "a_views/levels",
        "a_views/probabilities",
        "b_views/levels",
    ):
        save_nifti(tmp_path / "found" / f"{name}.nii.gz", mask)
    report = evaluate(tmp_path / "found", tmp_path / "truth")
    assert report["ignored_predictions"] == ["b_views/levels.nii.gz"]
