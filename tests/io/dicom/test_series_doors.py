"""Every command that reads DICOM: the series and values of the user, and the lines it prints."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run

pytest.importorskip("pydicom")
from pydicom.uid import generate_uid

from nnunetv2_mip.classification.data import find_studies_to_score
from nnunetv2_mip.commands import convert_autopet, fuse, project, report
from nnunetv2_mip.efficiency.inputs import studies_of_tree
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.io.dicom.options import DicomOptions
from nnunetv2_mip.io.dicom.pet import read_dicom_pet
from nnunetv2_mip.io.volumes import write_volume


@pytest.fixture
def two(tmp_path, write_pet) -> tuple[Path, str, str]:
    """Study with a mask and two reconstructions, and the UIDs of these; the second is doubled."""
    folder = tmp_path / "tree" / "PETCT_a" / "s-1"
    uids = generate_uid(), generate_uid()
    for uid, slope in zip(uids, ("0.001", "0.002")):
        write_pet(
            folder / uid[-6:],
            SeriesInstanceUID=uid,
            StudyInstanceUID="1.2.3",
            FrameOfReferenceUID="1.2.4",
            RescaleSlope=slope,
        )
    pet = read_dicom_pet(folder, DicomOptions((uids[0],)))
    mask = (pet.suv.array > 5).astype(np.uint8)
    write_volume(mask, pet.suv.grid, folder / "SEG.nii.gz")
    return folder, *uids


def _max(path: Path) -> float:
    return float(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).max())


@pytest.mark.slow
def test_project_and_fuse(two, tmp_path, capsys):
    folder, first, second = two
    views = tmp_path / "views"
    assert run(project, "-i", folder, "-o", views, "--views", 2) == 2
    assert second in capsys.readouterr().err and not views.exists()
    seg = ("--seg", folder / "SEG.nii.gz")
    assert run(project, "-i", folder, "-o", views, "--views", 2, *seg, "--series", second) == 0
    assert _max(views / "suv.nii.gz") == pytest.approx(14, rel=1e-3)
    mask = tmp_path / "mask.nii.gz"
    assert run(fuse, "-i", views, "-o", mask, "--suv", folder) == 2
    assert "--series UID" in capsys.readouterr().err
    assert run(fuse, "-i", views, "-o", mask, "--suv", folder, "--series", first) == 0
    assert _max(mask) == 1
    assert run(fuse, "-i", views, "-o", mask, "--series", first) == 2
    assert "without --suv" in capsys.readouterr().err


def test_convert_autopet(two, tmp_path, capsys, monkeypatch, write_pet):
    folder, first, second = two
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    tree = tmp_path / "tree"
    options = ("-i", tree, "-d", 800, "--views", 2)
    assert run(convert_autopet, *options) == 2
    assert "--series UID" in capsys.readouterr().err
    assert run(convert_autopet, *options, "--series", "1.2.99") == 2
    assert "no DICOM study has the series 1.2.99" in capsys.readouterr().err
    # A finished study waits, and is not lost by the choice for another one.
    write_pet(tree / "PETCT_b" / "s-2")
    shutil.copy(folder / "SEG.nii.gz", tree / "PETCT_b" / "s-2")
    assert run(convert_autopet, *options) == 2
    assert "1 finished cases wait" in capsys.readouterr().err
    assert run(convert_autopet, *options, "--series", first, "--weight_kg", 70) == 2
    assert "belongs to one study" in capsys.readouterr().err
    images = tmp_path / "raw" / ".Dataset800_AutoPETMIP.partial" / "imagesTr"
    before = {path.name: path.stat().st_mtime_ns for path in images.iterdir()}
    assert run(convert_autopet, *options, "--series", second) == 0
    (record,) = (tmp_path / "raw").glob("Dataset800*/conversion.json")
    cases = json.loads(record.read_text())["cases"]
    assert [case.get("dicom") for case in cases.values()] == [{"series": [second]}, None]
    after = {path.name: path.stat().st_mtime_ns for path in record.with_name("imagesTr").iterdir()}
    assert before.items() <= after.items()


@pytest.mark.slow
def test_report_study_and_classify(two, tmp_path, capsys):
    folder, first, second = two
    tree, page = tmp_path / "tree", tmp_path / "r.html"
    assert run(report, "-g", tree, "-o", page, "--views", 2) == 2
    assert "--series UID" in capsys.readouterr().err
    assert run(report, "-g", tree, "-o", page, "--views", 2, "--series", first) == 0
    (study,), _ = studies_of_tree(tree, options=DicomOptions((second,)))
    assert study.options.series == (second,)
    jobs = find_studies_to_score(folder / second[-6:], tmp_path / "s.csv", DicomOptions((second,)))
    assert [job.dicom.pet.uid for job in jobs] == [second]


@pytest.mark.parametrize("said", [{"series": ("1.2",)}, {"weight_kg": 70.0}, {"dose_mbq": 3.0}])
def test_options_are_refused_where_no_dicom_is_read(said, tmp_path, two, capsys):
    pet = read_dicom_pet(two[0], DicomOptions((two[1],)))
    suv = tmp_path / "plain" / "PETCT_a" / "s-1" / "SUV.nii.gz"
    write_volume(pet.suv.array, pet.suv.grid, suv)
    write_volume((pet.suv.array > 5).astype(np.uint8), pet.suv.grid, suv.parent / "SEG.nii.gz")
    options = DicomOptions(**said)
    with pytest.raises(MipError, match="is for DICOM"):
        find_studies_to_score(suv, tmp_path / "s.csv", options)
    with pytest.raises(MipError, match="is for DICOM"):
        studies_of_tree(tmp_path / "plain", options=options)
    words = options.describe().split()
    for command, where in ((project, suv), (report, tmp_path / "plain")):
        option = "-g" if command is report else "-i"
        target = tmp_path / "out.html" if command is report else tmp_path / "out"
        assert run(command, option, where, "-o", target, *words) == 2
        assert "is for DICOM" in capsys.readouterr().err
