"""`nnUNetv2_mip_classify`: scores of stacks, PNGs and volumes, and one-line errors."""

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.classification.classifier_file import (
    FILE_NAME,
    FORMAT_VERSION,
    read_classifier,
    write_classifier,
)
from nnunetv2_mip.classification.head import Head
from nnunetv2_mip.classification.metrics import (
    auroc,
)
from nnunetv2_mip.errors import MipError


def test_predict_scores_stacks_and_pngs(
    trained, tiny, tmp_path, monkeypatch, few_threads, capsys, classify, rows_of
):
    out, raw, _ = trained
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    scores = tmp_path / "new" / "scores.csv"
    source = raw / "Dataset801_Cohort" / "imagesTr"
    assert classify("predict", "-i", source, "-o", scores, "-m", out, "-device", "cpu") == 0
    table = rows_of(scores)
    assert list(table[0]) == ["case", "probability", "has_lesion", "views", "weight_0", "weight_1"]
    assert len(table) == 12
    for row in table:
        assert float(row["weight_0"]) + float(row["weight_1"]) == pytest.approx(1, abs=1e-4)
    truth = [row["case"] < "case_06" for row in table]
    assert auroc(truth, [float(row["probability"]) for row in table]) > 0.9
    assert "called with lesions" in capsys.readouterr().out
    pixels = np.full((44, 36), 220, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    alone = tmp_path / "one.csv"
    assert (
        classify("predict", "-i", tmp_path / "one.png", "-o", alone, "-m", out, "-device", "cpu")
        == 0
    )
    assert [row["case"] for row in rows_of(alone)] == ["one"]
    assert rows_of(alone)[0]["weight_0"] == "1.00000"


@pytest.mark.slow
def test_predict_projects_volumes(trained, tiny, tmp_path, few_threads, classify, rows_of):
    out, _, _ = trained
    suv = np.full((14, 12, 16), 0.2, np.float32)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (14, 8, 12))
    image = sitk.GetImageFromArray(suv)
    image.SetSpacing((16.0, 16.0, 16.0))
    tree = tmp_path / "tree" / "PETCT_01" / "study"
    tree.mkdir(parents=True)
    sitk.WriteImage(image, str(tree / "SUV.nii.gz"))
    scores = tmp_path / "scores.csv"
    code = classify("predict", "-i", tmp_path / "tree", "-o", scores, "-m", out, "-device", "cpu")
    assert code == 0
    (row,) = rows_of(scores)
    # By the model's inference.json: three views.
    assert row["views"] == "3"
    assert sum(float(row[f"weight_{view}"]) for view in range(3)) == pytest.approx(1, abs=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "tree"]


def test_errors_are_one_line(trained, tmp_path, monkeypatch, capsys, classify, write_cohort):
    out, _, _ = trained
    Image.fromarray(np.full((44, 36), 200, np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npz").write_bytes(b"no")
    lost = tmp_path / "lost.npz"
    about, arrays = read_classifier(out / FILE_NAME)
    write_classifier(lost, {**about, "network": str(tmp_path / "gone")}, arrays)
    later = tmp_path / "later.npz"
    write_classifier(later, {**about, "format_version": FORMAT_VERSION + 1}, arrays)
    for name, change in {
        "word": ({"threshold": "x"}, {}),
        "nan": ({}, {"0.mean": np.full_like(arrays["0.mean"], np.nan)}),
    }.items():
        write_classifier(tmp_path / f"{name}.npz", {**about, **change[0]}, {**arrays, **change[1]})
    with pytest.raises(MipError, match="not a whole classifier"):
        Head.from_arrays({**arrays, "0.mean": arrays["0.mean"][:1]}, "short.npz")
    png, table = tmp_path / "a.png", tmp_path / "s.csv"
    cases = [
        (["-i", png, "-o", table, "-m", tmp_path / "word.npz"], "damaged"),
        (["-i", png, "-o", table, "-m", tmp_path / "nan.npz"], "damaged"),
        (["-i", png, "-o", table, "-m", tmp_path / "none"], "no such classifier"),
        (["-i", png, "-o", table, "-m", tmp_path / "empty"], "no such classifier"),
        (["-i", png, "-o", table, "-m", tmp_path / "broken.npz"], "is no classifier"),
        (["-i", png, "-o", table, "-m", lost], "--network FOLDER"),
        (["-i", png, "-o", table, "-m", later], "another version"),
        (["-i", png, "-o", tmp_path / "s.txt", "-m", out], ".csv"),
        (["-i", tmp_path / "empty", "-o", table, "-m", out], "holds nothing to predict"),
        (["-i", tmp_path / "missing", "-o", table, "-m", out], "no such file or folder"),
    ]
    for arguments, words in cases:
        assert classify("predict", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words in error
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    write_cohort(tmp_path / "raw" / "Dataset802_Lesions", without=0, with_lesions=2)
    write_cohort(tmp_path / "raw" / "Dataset803_Controls", without=2, with_lesions=0)
    (tmp_path / "raw" / "Dataset804_Plain").mkdir()
    (tmp_path / "raw" / "Dataset804_Plain" / "dataset.json").write_text("{}")
    network = ["--network", about["network"]]
    cases = [
        (["-d", 802, "-o", tmp_path / "o", *network], "0 patients without lesions"),
        (["-d", 803, "-o", tmp_path / "o", *network], "0 patients with lesions"),
        (["-d", 804, "-o", tmp_path / "o", *network], "does not say which cases show lesions"),
        (["-d", 805, "-o", tmp_path / "o", *network], "no data set with id 805"),
        (["-d", 802, "-o", out, *network], "exists"),
        (["-d", 802, "-o", tmp_path / "o", "--network", tmp_path], "no such segmentation model"),
        (["-d", 802, "-o", tmp_path / "o", "--epochs", 0, *network], "--epochs 0"),
        (["-d", 802, "-o", tmp_path / "o", "--penalty", -1, *network], "--penalty -1"),
        (["-d", 802, "-o", tmp_path / "o", "--epochs", 3, *network], "--from_scratch"),
        (["-d", 802, "-o", tmp_path / "o", "--fold_networks"], "has no fold_0"),
        (["-d", 802, "-o", tmp_path / "o", "--pixel_mm", 0, *network], "--pixel_mm 0"),
    ]
    for arguments, words in cases:
        assert classify("train", *arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words in error
    assert not (tmp_path / "o").exists()
