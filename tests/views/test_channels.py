"""Channels, pixels and kinds of label: from the study to the trained network and back."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_mip.commands import convert_autopet, project
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.io.volumes import Volume, read_mask, read_suv, write_volume
from nnunetv2_mip.views.channels import make_views, sample_at_depth
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.intensity import ct_levels_from_hu, levels_from_depth, levels_from_suv
from nnunetv2_mip.views.projection import project as project_volume
from nnunetv2_mip.views.projection import project_mask
from nnunetv2_mip.views.resampling import to_detector, to_pixels, view_shape
from nnunetv2_mip.views.settings import ViewSettings
from nnunetv2_mip.views.stack_files import load_geometry, load_pixel_mm, read_stack

IDENTITY = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


def volume_of(array: np.ndarray, spacing_zyx=(5.0, 4.0, 4.0)) -> Volume:
    grid = SourceGrid(array.shape[::-1], spacing_zyx[::-1], (0.0, 0.0, 0.0), IDENTITY)
    return Volume(array, grid, Path("SUV.nii.gz"))


def study(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SUV, CT and lesions: a body, a lesion before a hot slab and one behind it."""
    rng = np.random.default_rng(seed)
    suv = np.zeros((20, 24, 24), np.float32)
    suv[:, 3:-3, 3:-3] = rng.uniform(0.5, 1.5, (20, 18, 18))
    suv[:, 18:20, 8:20] = 12
    seg = np.zeros(suv.shape, np.uint8)
    seg[3:8, 10:14, 9:14] = 1
    seg[14:17, 5:8, 12:18] = 1
    suv[seg == 1] = 6
    ct = rng.integers(-100, 300, suv.shape).astype(np.int16)
    ct[suv == 0] = -1000
    return suv, ct, seg


def write_study(folder: Path, seed: int = 0, with_ct: bool = True) -> Path:
    suv, ct, seg = study(seed)
    grid = volume_of(suv).grid
    write_volume(suv, grid, folder / "SUV.nii.gz")
    write_volume(seg, grid, folder / "SEG.nii.gz")
    if with_ct:
        write_volume(ct, grid, folder / "CTres.nii.gz")
    return folder


def run(module, *argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        module.main([str(part) for part in argv])
    return ended.value.code


# --- scales and channels


def test_ct_and_depth_have_fixed_levels():
    assert ct_levels_from_hu(np.array([-3000, -1000, 0, 1000, 5000])).tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]
    depth = np.array([np.nan, -900, -350, 0, 350, 900], np.float32)
    assert levels_from_depth(depth).tolist() == [0, 1, 1, 128, 255, 255]


def test_channels_hold_suv_ct_and_depth_of_the_winner():
    suv = np.zeros((3, 9, 7), np.float32)
    suv[:, 2:7, 1:6] = 1
    suv[1, 4, 2] = 5
    ct = np.arange(suv.size, dtype=np.int16).reshape(suv.shape)
    volume = volume_of(suv)
    geometry = ViewGeometry.for_volume(volume, (0.0, 90.0))
    views = make_views(suv, ct, geometry, ("suv", "ct", "depth"), 10.0)
    assert views.levels.shape == (3, *geometry.stack_shape)
    assert np.array_equal(views.levels[0], levels_from_suv(views.suv, 10.0))
    side = (geometry.columns - 7) // 2
    # x = 2 is column 2 of the front view; y = 4 is the middle of the side view. z = 1 is row 1.
    assert views.suv[0, 1, side + 2] == views.suv[1, 1, (geometry.columns - 1) // 2] == 5
    assert views.ct_hu[0, 1, side + 2] == ct[1, 4, 2]
    assert views.ct_hu[1, 1, (geometry.columns - 1) // 2] == ct[1, 4, 2]
    # Depth runs along (−sin, cos): at 0° y = 4 is the centre, at 90° x = 2 lies one voxel beyond.
    assert views.depth_mm[0, 1, side + 2] == 0
    assert views.depth_mm[1, 1, (geometry.columns - 1) // 2] == 4
    air = views.suv == 0
    assert air.any()
    assert (views.levels[1][air] == 0).all()
    assert (views.levels[2][air] == 0).all()
    assert (views.levels[2][~air] > 0).all()


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(0, 180), seed=st.integers(0, 1000))
def test_sampling_the_suv_itself_where_it_wins_gives_the_maximum(angle, seed):
    suv = np.random.default_rng(seed).uniform(0.1, 9, (4, 9, 12)).astype(np.float32)
    geometry = ViewGeometry.for_volume(volume_of(suv, (3.0, 2.0, 2.7)), (angle,))
    found = project_volume(suv, geometry, depth=True)
    again = sample_at_depth(suv, found.depth_mm, geometry, outside=0.0)
    assert again == pytest.approx(found.suv, abs=2e-3)


def test_channels_that_cannot_be_made_are_refused():
    suv, ct, _ = study()
    geometry = ViewGeometry.for_volume(volume_of(suv), (0.0,))
    with pytest.raises(MipError, match=r"SUV\.nii\.gz: the channel ct needs the CT.*--ct"):
        make_views(suv, None, geometry, ("suv", "ct"), 10.0)
    for channels in ((), ("ct",), ("suv", "mr"), ("suv", "suv")):
        with pytest.raises(MipError, match="choose suv first"):
            make_views(suv, ct, geometry, channels, 10.0)
    with pytest.raises(ValueError, match="grid"):
        make_views(suv, ct[1:], geometry, ("suv", "ct"), 10.0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"window_suv": 0}, "--window"),
        ({"pixel_mm": -2}, "--pixel"),
        ({"arc_deg": 0}, "--arc"),
        ({"start_deg": float("nan")}, "--start"),
        ({"labels": "some"}, "--labels"),
        ({"views": 0}, "--views"),
        ({"angles_deg": ()}, "--angles"),
        ({"angles_deg": (0, 30, 0)}, "twice"),
        ({"angles_deg": (0, 30), "arc_deg": 90}, "leave --arc"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, words):
    with pytest.raises(MipError, match=words):
        ViewSettings(**wrong)


def test_listed_angles_set_the_number_of_views():
    chosen = ViewSettings(angles_deg=(0, 30, 75))
    assert (chosen.views, chosen.angles) == (3, (0.0, 30.0, 75.0))
    assert ViewSettings(views=2, arc_deg=90, start_deg=10).angles == (10.0, 55.0)
    config = InferenceConfig.from_dataset_json({"mip": {"views": 3, "angles_deg": [0, 30, 75]}})
    assert config.angles == (0, 30, 75)
    assert InferenceConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(MipError, match="angles_deg"):
        InferenceConfig(views=4, angles_deg=(0.0, 30.0))


# --- pixels


def test_pixels_of_the_detectors_own_size_change_nothing():
    suv, _, seg = study()
    geometry = ViewGeometry.for_volume(volume_of(suv, (4.0, 4.0, 4.0)), view_angles(3))
    views = project_volume(suv, geometry).suv
    assert np.array_equal(to_pixels(views, geometry, 4.0), views)
    labels = project_mask(seg, geometry)
    assert np.array_equal(to_pixels(labels, geometry, 4.0, nearest=True), labels)
    assert to_pixels(views, geometry, None) is views


def test_pixels_keep_the_place_and_the_size_of_things():
    suv = np.zeros((40, 31, 31), np.float32)
    suv[:, 2:-2, 2:-2] = 1
    suv[8:20, 10:20, 12:24] = 5
    geometry = ViewGeometry.for_volume(volume_of(suv, (5.0, 4.0, 4.0)), (0.0,))
    views = project_volume(suv, geometry).suv
    for pixel in (2.0, 3.3, 7.0):
        got = to_pixels(views, geometry, pixel)
        assert got.shape == view_shape(geometry, pixel)
        assert got.shape[1:] == (
            round(40 * 5 / pixel), round(geometry.columns * 4 / pixel)
        )  # fmt: skip
        assert got.max() == pytest.approx(5)
        # Area above half the height, and its middle, in mm.
        hot, before = got[0] > 3, views[0] > 3
        assert hot.sum() * pixel**2 == pytest.approx(before.sum() * 20, rel=0.06 * pixel)
        for axis, step in ((0, 5.0), (1, 4.0)):
            middle = np.argwhere(hot)[:, axis].mean() - (hot.shape[axis] - 1) / 2
            expected = np.argwhere(before)[:, axis].mean() - (before.shape[axis] - 1) / 2
            assert middle * pixel == pytest.approx(expected * step, abs=pixel / 2)


def test_fusion_goes_back_from_pixels_to_the_volume():
    _, _, seg = study()
    body = np.ones(seg.shape, np.float32)
    geometry = ViewGeometry.for_volume(volume_of(body), view_angles(24))
    views = project_mask(seg, geometry).astype(np.float32)
    plain = backproject(views, geometry, "hull") >= 0.5
    fine = to_detector(to_pixels(views, geometry, 2.0), geometry, 2.0)
    again = backproject(fine, geometry, "hull") >= 0.5
    dice = 2 * (plain & again).sum() / (plain.sum() + again.sum())
    assert dice > 0.95
    with pytest.raises(ValueError, match="views"):
        to_detector(views, geometry, 2.0)


# --- the commands


def test_a_data_set_with_all_channels_ignore_labels_and_pixels(tmp_path, raw, capsys):
    write_study(tmp_path / "tree" / "PETCT_a" / "s")
    arguments = ["-i", tmp_path / "tree", "-d", 502, "--angles", 0, 30, 75]
    arguments += ["--channels", "suv,ct,depth", "--labels", "ignore", "--pixel", 2.5]
    arguments += ["--visible-share", 1, "--fragment-mm", 0, "--gradient", 0]
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

    suv, ct, _ = study()
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
    assert run(convert_autopet, *arguments, "--visible-share", 0.5) == 2
    assert "with other settings" in capsys.readouterr().err


def test_project_writes_channels_labels_and_pictures(tmp_path, capsys):
    folder = write_study(tmp_path / "study")
    out = tmp_path / "views"
    arguments = ["-i", folder / "SUV.nii.gz", "-o", out, "--seg", folder / "SEG.nii.gz"]
    arguments += ["--ct", folder / "CTres.nii.gz", "--channels", "suv,ct,depth", "--png"]
    arguments += ["--labels", "ignore", "--views", 3, "--window", 8]
    assert run(project, *arguments) == 0
    suv, ct, _ = study()
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


# --- to the network


def test_three_channels_with_ignore_labels_train_and_predict(
    untrained, tmp_path, capsys, run_nnunet_training
):
    """Converted, planned, trained for a moment, and asked for a mask."""
    from nnunetv2_mip.commands import plan_and_preprocess
    from nnunetv2_mip.inference.predictor import MIPPredictor
    from nnunetv2_mip.io.read_study import read_ct

    for index in range(4):
        write_study(tmp_path / "tree" / f"PETCT_{index}" / "s", seed=index)
    arguments = ["-i", tmp_path / "tree", "-d", 503, "--views", 3]
    arguments += ["--channels", "suv,ct,depth", "--labels", "ignore"]
    arguments += ["--visible-share", 1, "--fragment-mm", 0, "--gradient", 0]
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
        predictor.predict_study(suv)
    with pytest.raises(MipError, match="the model wants 3"):
        predictor.predict_image(np.full((20, 20), 9, np.uint8))
    found = predictor.predict_study(suv, read_ct(folder / "CTres.nii.gz", suv))
    assert found.views.shape == (3, *found.geometry.stack_shape)
    raw = untrained.base / "nnUNet_raw" / "Dataset503_AutoPETMIP" / "imagesTr"
    for channel in range(3):
        stack, _ = read_stack(raw / f"PETCT_0_s_{channel:04d}.nii.gz")
        assert np.array_equal(found.views[channel], stack)
    assert found.mask.shape == suv.array.shape
    fine = predictor.override(pixel_mm=2.0).predict_study(
        suv, read_ct(folder / "CTres.nii.gz", suv)
    )
    assert fine.views.shape[2:] == view_shape(fine.geometry, 2.0)[1:]
    assert fine.spacing_mm == (1000.0, 2.0, 2.0)
    assert fine.mask.shape == suv.array.shape
