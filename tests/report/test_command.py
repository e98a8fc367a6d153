"""The command: defaults, hints, and one line for what cannot be done."""

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunetv2_mip.commands import report
from nnunetv2_mip.io.study_layouts import find_studies
from nnunetv2_mip.report.content import ReportRequest
from nnunetv2_mip.report.rotating_mip import RotatingMIPSettings


def test_defaults_are_those_of_the_library():
    args = report.build_parser().parse_args(["-o", "x.html"])
    drawing = RotatingMIPSettings()
    assert (args.views, args.window) == (drawing.views, drawing.window_suv)
    assert (args.cases, args.min_overlap) == (ReportRequest().shown, ReportRequest().min_overlap)


def test_masks_without_their_images_are_counted(cohort, run, tmp_path, capsys):
    images = tmp_path / "images"
    study = next(iter(find_studies(cohort / "tree")))
    images.mkdir()
    shutil.copy(study.suv, images / f"{study.case}.nii.gz")
    plain = ["-i", cohort / "masks", "-o", tmp_path / "plain.html", "--views", 4, "--cases", 1]
    assert run(report, *plain) == 0
    assert "5 of 5 without an image: --images" in capsys.readouterr().out
    assert run(report, *plain, "--images", images) == 0
    assert "4 of 5 without an image: --images" in capsys.readouterr().out
    assert run(report, *plain, "--images", cohort / "tree") == 0
    assert "without an image" not in capsys.readouterr().out


def bad_inputs(folder: Path, cohort: Path) -> dict[str, list]:
    """Arguments that must be refused."""
    masks, tree = cohort / "masks", cohort / "tree"
    (folder / "empty").mkdir()
    (folder / "file").write_text("x")
    unknown = folder / "unknown"
    unknown.mkdir()
    first = sorted(masks.iterdir())[0]
    shutil.copy(first, unknown / "other.nii.gz")
    shutil.copytree(masks, folder / "moved")
    image = sitk.ReadImage(str(first))
    image.SetOrigin((7.0, 7.0, 7.0))
    sitk.WriteImage(image, str(folder / "moved" / first.name))
    return {
        "nothing": [],
        "no predictions": ["-i", folder / "absent", "-g", tree],
        "no truth": ["-i", masks, "-g", folder / "absent"],
        "no mask": ["-i", folder / "empty"],
        "other cases": ["-i", unknown, "-g", tree],
        "grid": ["-i", folder / "moved", "-g", tree],
        "grid of images": ["-i", folder / "moved", "--images", tree],
        "images": ["-i", masks, "--images", unknown],
        "model": ["-m", folder / "empty"],
        "data set": ["-d", folder / "empty"],
        "views": ["-i", masks, "-g", tree, "--views", 0],
    }


REASONS = {
    "nothing": "nothing to report on",
    "no predictions": "absent: no such file or folder",
    "no truth": "absent: no such file or folder",
    "no mask": "empty: holds no mask",
    "other cases": "holds no prediction for any of the 5 cases",
    "grid": "lies on another grid",
    "grid of images": "lies on another grid",
    "images": "unknown: holds no image of any of the 5 cases",
    "model": "is no model folder of nnU-Net",
    "data set": "is no raw nnU-Net data set",
    "views": "--views 0: choose between 1 and 90",
}


@pytest.mark.parametrize("what", REASONS)
def test_bad_input_gets_one_line_and_leaves_nothing(what, cohort, run, tmp_path, capsys):
    output = tmp_path / "out" / "report.html"
    assert run(report, *bad_inputs(tmp_path, cohort)[what], "-o", output) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(error) == 1 and REASONS[what] in error[0], error
    assert not output.exists() and not list(tmp_path.rglob("*.partial.*"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("report.pdf", "ends in .html"),
        ("file/report.html", "is a file"),
        ("folder.html", "is a folder"),
    ],
)
def test_where_no_report_can_be_written(name, reason, cohort, run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.html").mkdir()
    assert run(report, "-i", cohort / "masks", "-o", tmp_path / name) == 2
    assert reason in capsys.readouterr().err
