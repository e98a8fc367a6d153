"""Commands for views: projection and conversion with channels, label kinds and pixels."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run
from simulated import (
    occluded_study,
    volume_of,
)

from nnunetv2_mip.commands import convert_autopet, project
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.io.volumes import read_mask, read_suv, write_volume
from nnunetv2_mip.views.channels import make_views
from nnunetv2_mip.views.intensity import levels_from_suv
from nnunetv2_mip.views.resampling import to_pixels, view_shape
from nnunetv2_mip.views.stack_files import load_geometry, load_pixel_mm, read_stack


def write_study(folder: Path, seed: int = 0, with_ct: bool = True) -> Path:
    suv, ct, seg = occluded_study(seed)
    grid = volume_of(suv, (5.0, 4.0, 4.0)).grid
    write_volume(suv, grid, folder / "SUV.nii.gz")
    write_volume(seg, grid, folder / "SEG.nii.gz")
    if with_ct:
        write_volume(ct, grid, folder / "CTres.nii.gz")
    return folder


def test_a_data_set_with_all_channels_ignore_labels_and_pixels(tmp_path, raw, capsys):
    write_study(tmp_path / "tree" / "PETCT_a" / "s")
    arguments = ["-i", tmp_path / "tree", "-d", 502, "--angles", 0, 30, 75]
    arguments += ["--channels", "suv,ct,depth", "--labels", "ignore", "--pixel", 2.5]
    arguments += ["--visible_share", 1, "--fragment_mm", 0, "--gradient", 0]
    assert run(convert_autopet, *arguments) == 0
    assert "2 lesions" in capsys.readouterr().out
    folder = raw / "Dataset502_AutoPETMIP"
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "suv", "1": "ct", "2": "depth"}
    assert dataset["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
    mip = dataset["mip"]
    assert (mip["labels"], mip["pixel_mm"], mip["angles_deg"]) == ("ignore", 2.5, [0, 30, 75])
    assert mip["occlusion"] == {"visible_share": 1.0, "fragment_mm": 0.0, "gradient": 0.0}
    assert set(mip["intensity"]) == {"suv", "ct", "depth"}
    assert all(constants["std"] >= 1 for constants in mip["intensity"].values())
    assert InferenceConfig.from_dataset_json(dataset).channels == ("suv", "ct", "depth")

    suv, ct, _ = occluded_study()
    geometry = load_geometry(folder / "imagesTr" / "PETCT_a_s_0000.nii.gz")
    assert load_pixel_mm(folder / "imagesTr" / "PETCT_a_s_geometry.json") == 2.5
    views = make_views(suv, ct, geometry, ("suv", "ct", "depth"), 10.0, 2.5)
    for channel in range(3):
        stack, spacing = read_stack(folder / "imagesTr" / f"PETCT_a_s_{channel:04d}.nii.gz")
        assert spacing == (1000, 2.5, 2.5)
        assert np.array_equal(stack, views.levels[channel])
    label, _ = read_stack(folder / "labelsTr" / "PETCT_a_s.nii.gz")
    projected, _ = read_stack(folder / "labelsTr_projected" / "PETCT_a_s.nii.gz")
    assert set(np.unique(label)) == {0, 1, 2}
    assert np.array_equal(label > 0, projected > 0)
    assert set(np.unique(projected)) == {0, 1}
    lesions = json.loads((folder / "imagesTr" / "PETCT_a_s_lesions.json").read_text())
    assert len(lesions["lesions"]) == 2
    summary = json.loads((folder / "conversion.json").read_text())
    assert summary["lesions"] == 2
    assert summary["lesions_seen_in_no_view"] == len(lesions["seen_in_no_view"])


def test_a_study_without_ct_is_named(tmp_path, raw, capsys):
    write_study(tmp_path / "tree" / "PETCT_a" / "s", with_ct=False)
    assert run(convert_autopet, "-i", tmp_path / "tree", "-d", 502, "--channels", "suv,ct") == 2
    assert "no CTres.nii.gz; the channel ct needs it" in capsys.readouterr().err
    assert not list(raw.glob("*"))


def test_changed_label_settings_do_not_continue_a_partial_conversion(tmp_path, raw, capsys):
    write_study(tmp_path / "tree" / "PETCT_a" / "s")
    (write_study(tmp_path / "tree" / "PETCT_b" / "s") / "SUV.nii.gz").write_bytes(b"broken")
    arguments = ("-i", tmp_path / "tree", "-d", 502, "--views", 2, "--labels", "visible")
    assert run(convert_autopet, *arguments) == 2
    assert run(convert_autopet, *arguments, "--visible_share", 0.5) == 2
    assert "with other settings" in capsys.readouterr().err


def test_project_writes_channels_labels_and_pictures(tmp_path, capsys):
    folder = write_study(tmp_path / "study")
    out = tmp_path / "views"
    arguments = ["-i", folder / "SUV.nii.gz", "-o", out, "--seg", folder / "SEG.nii.gz"]
    arguments += ["--ct", folder / "CTres.nii.gz", "--channels", "suv,ct,depth", "--png"]
    arguments += ["--labels", "ignore", "--views", 3, "--window", 8]
    assert run(project, *arguments) == 0
    suv, ct, _ = occluded_study()
    geometry = load_geometry(out / "suv.nii.gz")
    expected = make_views(suv, ct, geometry, ("suv", "ct", "depth"), 8.0)
    for name, values in (
        ("suv", expected.suv),
        ("ct", expected.ct_hu),
        ("depth", expected.depth_mm),
    ):
        stack, _ = read_stack(out / f"{name}.nii.gz")
        assert np.allclose(stack, values, equal_nan=True)
    assert set(np.unique(read_stack(out / "seg.nii.gz")[0])) <= {0, 1, 2}
    assert len(json.loads((out / "lesions.json").read_text())["lesions"]) == 2
    pictures = sorted((out / "png").iterdir())
    assert [path.name for path in pictures] == ["view_000.png", "view_001.png", "view_002.png"]
    # Pixels of 2 mm, dark = uptake: what the decoder of the PNG world reads.
    got = decode_png(pictures[0])
    assert got.shape == (50, geometry.columns * 2)
    assert np.array_equal(got, levels_from_suv(to_pixels(expected.suv, geometry, 2.0), 8.0)[0])
    assert sitk.ReadImage(str(pictures[0])).GetNumberOfComponentsPerPixel() == 3

    assert run(project, "-i", folder / "SUV.nii.gz", "-o", out, "--labels", "visible") == 2
    assert "needs the lesion mask" in capsys.readouterr().err
    assert (
        run(project, "-i", folder / "SUV.nii.gz", "-o", tmp_path / "new", "--channels", "suv,ct")
        == 2
    )
    assert "--ct" in capsys.readouterr().err
    # Views of two runs never meet in one folder.
    assert run(project, "-i", folder / "SUV.nii.gz", "-o", out, "--views", 2) == 2
    assert "is not empty" in capsys.readouterr().err
    ct = ("--ct", folder / "CTres.nii.gz")
    assert run(project, "-i", folder / "SUV.nii.gz", "-o", tmp_path / "new", *ct) == 2
    assert "add --channels suv,ct" in capsys.readouterr().err


def test_stacks_in_other_pixels_are_fused_back(tmp_path):
    from nnunetv2_mip.commands import fuse

    folder = write_study(tmp_path / "study")
    views = tmp_path / "views"
    arguments = ["-i", folder / "SUV.nii.gz", "-o", views, "--seg", folder / "SEG.nii.gz"]
    assert run(project, *arguments, "--views", 24, "--pixel", 2) == 0
    assert read_stack(views / "seg.nii.gz")[1] == (1000, 2, 2)
    out = tmp_path / "mask.nii.gz"
    assert run(fuse, "-i", views, "-o", out, "--rule", "hull") == 0
    suv = read_suv(folder / "SUV.nii.gz")
    mask, seg = read_mask(out, suv).array, read_mask(folder / "SEG.nii.gz", suv).array
    assert 2 * (mask & seg).sum() / (mask.sum() + seg.sum()) > 0.8


@pytest.mark.slow
def test_three_channels_with_ignore_labels_train_and_predict(
    untrained, tmp_path, capsys, run_nnunet_training
):
    """Converted, planned, trained for a moment, and asked for a mask."""
    from nnunetv2_mip.commands import plan_and_preprocess
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.read_study import Study, read_ct

    for index in range(4):
        write_study(tmp_path / "tree" / f"PETCT_{index}" / "s", seed=index)
    arguments = ["-i", tmp_path / "tree", "-d", 503, "--views", 3]
    arguments += ["--channels", "suv,ct,depth", "--labels", "ignore"]
    arguments += ["--visible_share", 1, "--fragment_mm", 0, "--gradient", 0]
    assert run(convert_autopet, *arguments) == 0
    assert run(plan_and_preprocess, "-d", 503, "--preset", untrained.preset, "-np", 1) == 0
    prepared = untrained.base / "nnUNet_preprocessed" / "Dataset503_AutoPETMIP"
    plans = json.loads((prepared / "nnUNetMIPPlans_tiny.json").read_text())
    mip = json.loads((prepared / "dataset.json").read_text())["mip"]
    properties = plans["foreground_intensity_properties_per_channel"]
    for index, channel in enumerate(("suv", "ct", "depth")):
        assert properties[str(index)]["mean"] == mip["intensity"][channel]["low"]
    run_nnunet_training(replace(untrained, number=503, name="Dataset503_AutoPETMIP"), fold=0)
    model = (
        untrained.base / "nnUNet_results" / "Dataset503_AutoPETMIP"
        / "nnUNetTrainerMIP_tiny__nnUNetMIPPlans_tiny__2d"
    )  # fmt: skip
    predictor = MIPPredictor.from_model_folder(model, device="cpu").override(tta=False)
    assert predictor.config.channels == ("suv", "ct", "depth")
    folder = tmp_path / "tree" / "PETCT_0" / "s"
    suv = read_suv(folder / "SUV.nii.gz")
    with pytest.raises(MipError, match="needs the CT"):
        predictor.predict_study(Study(suv))
    with pytest.raises(MipError, match="the model wants 3"):
        predictor.predict_image(np.full((20, 20), 9, np.uint8))
    found = predictor.predict_study(Study(suv, read_ct(folder / "CTres.nii.gz", suv)))
    assert found.views.levels.shape == (3, *found.geometry.stack_shape)
    raw = untrained.base / "nnUNet_raw" / "Dataset503_AutoPETMIP" / "imagesTr"
    for channel in range(3):
        stack, _ = read_stack(raw / f"PETCT_0_s_{channel:04d}.nii.gz")
        assert np.array_equal(found.views.levels[channel], stack)
    assert found.mask.shape == suv.array.shape
    fine = predictor.override(pixel_mm=2.0).predict_study(
        Study(suv, read_ct(folder / "CTres.nii.gz", suv))
    )
    assert fine.views.levels.shape[2:] == view_shape(fine.geometry, 2.0)[1:]
    assert fine.spacing_mm == (1000.0, 2.0, 2.0)
    assert fine.mask.shape == suv.array.shape
