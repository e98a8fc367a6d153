"""The predict command with a really trained (tiny) network: every kind of input and answer."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import run as run_command
from PIL import Image

from nnunetv2_mip.commands import fuse, predict, project
from nnunetv2_mip.fusion.rules import FusionRule
from nnunetv2_mip.inference.find_inputs import find_jobs
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.nnunet.model_folder import models_folder
from nnunetv2_mip.views.geometry import ViewGeometry

SHAPE = (14, 12, 16)
SUV_LOW = 0.2


def run(*argv: object, command=predict) -> int:
    return run_command(command, *argv)


@pytest.fixture
def model(tiny_model, monkeypatch) -> tuple:
    """Arguments that name the tiny model; nothing but -m is needed to use it."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable)
    return "-m", tiny_model, "-device", "cpu", "--disable_tta"


@pytest.fixture(scope="module")
def usual(tiny_trained) -> dict[str, float]:
    """Probabilities the tiny network gives to half of what it sees, in 2D and in 3D."""
    from nnunetv2_mip.inference.predictor import MIPPredictor

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_extTrainer", tiny_trained.environment["nnUNet_extTrainer"])
        predictor = MIPPredictor.from_model_folder(tiny_trained.model, device="cpu")
    predictor = predictor.override(tta=False, fusion=FusionRule("max"))
    grid = SourceGrid((16, 12, 14), (4.1, 4.0, 5.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    study = predictor.predict_study(
        Study(Volume(volume(), grid, Path("usual"))), with_probability=True
    )
    _, image = predictor.predict_image(255 - picture())
    return {
        "2d": float(min(np.median(image), np.median(study.view_probability))),
        "3d": float(np.median(study.probability)),
    }


@pytest.fixture
def eager(model, tiny_model, usual, tmp_path) -> tuple:
    """The tiny model with thresholds so low that it marks much in every input."""
    folder = tmp_path / "eager"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("validation", "*.png"))
    config = json.loads((folder / "inference.json").read_text())
    config["threshold"] = usual["2d"]
    config["fusion"] = {"rule": "max", "threshold": usual["3d"]}
    (folder / "inference.json").write_text(json.dumps(config))
    return "-m", folder, *model[2:]


def picture(height: int = 41, width: int = 33) -> np.ndarray:
    """File values (dark is uptake) with white air round a grey body and a black spot."""
    pixels = np.full((height, width), 255, np.uint8)
    body = np.random.default_rng(0).integers(195, 235, (height - 8, width - 8))
    pixels[4:-4, 4:-4] = body
    pixels[12:20, 10:16] = 35
    return pixels


def in_mode(pixels: np.ndarray, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16) * 257)
    if mode == "RGBA":
        image = Image.fromarray(pixels).convert("RGB").convert("RGBA")
        image.putalpha(7)
        return image
    return Image.fromarray(pixels) if mode == "L" else Image.fromarray(pixels).convert(mode)


def volume() -> np.ndarray:
    suv = np.full(SHAPE, SUV_LOW, np.float32)
    suv[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (SHAPE[0], 8, 12))
    suv[4:8, 4:8, 9:13] = 7
    return suv


def write(array: np.ndarray, path: Path, code: str = "LPS", spacing=(4.1, 4.0, 5.0)) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-31.5, 12.25, 100.125))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(path))
    return path


def write_stack(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.0, 5.0, 1000.0))
    sitk.WriteImage(image, str(path))
    return path


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def assert_same_header(one: Path, two: Path) -> None:
    one, two = sitk.ReadImage(str(one)), sitk.ReadImage(str(two))
    assert one.GetSize() == two.GetSize()
    assert one.GetSpacing() == two.GetSpacing()
    assert one.GetOrigin() == two.GetOrigin()
    assert one.GetDirection() == two.GetDirection()


def names(folder: Path) -> set[str]:
    """Files below a folder, without the lesion tables and pictures beside masks."""
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith(("_lesions.csv", "_mip.gif"))}


@pytest.mark.slow
def test_a_png_that_is_no_mip_pet_gets_a_warning_with_its_name(eager, tmp_path, capsys):
    in_mode(picture(), "L").point(lambda grey: 255 - grey).save(tmp_path / "inverted.png")
    assert run("-i", tmp_path / "inverted.png", "-o", tmp_path / "mask.png", *eager) == 0
    assert f"warning: {tmp_path / 'inverted.png'}: its border is dark" in capsys.readouterr().err


def test_jpegs_beside_pngs_are_told(eager, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    in_mode(picture(), "L").save(source / "a.png")
    in_mode(picture(), "L").save(source / "b.jpg")
    assert run("-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "1 image left out (first: b.jpg); only PNGs are read" in capsys.readouterr().err


def test_pngs_of_any_mode_give_the_same_mask_of_their_size(eager, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    modes = ["L", "RGB", "RGBA", "LA", "P", "I;16"]
    for mode in modes:
        in_mode(picture(), mode).save(source / f"{mode.replace(';', '')}.png")
    assert run("-i", source, "-o", tmp_path / "out", *eager) == 0
    assert "6 masks written" in capsys.readouterr().out
    assert names(tmp_path / "out") == names(source)
    masks = []
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (33, 41))
            masks.append(np.asarray(image))
    assert 255 in masks[0]
    assert set(np.unique(masks[0])) <= {0, 255}
    assert all(np.array_equal(mask, masks[0]) for mask in masks)


def test_one_png_to_a_file_with_probabilities(eager, usual, tmp_path):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    out = tmp_path / "deep" / "mask.png"
    assert run("-i", tmp_path / "a.png", "-o", out, *eager, "--save_probabilities") == 0
    assert names(out.parent) == {"mask.png", "a_probabilities.npz"}
    with np.load(out.parent / "a_probabilities.npz") as content:
        probability = content["probabilities"]
    assert probability.shape == (41, 33)
    assert np.array_equal(np.asarray(Image.open(out)) == 255, probability >= usual["2d"])


def test_a_blank_png_gives_an_empty_mask(eager, tmp_path):
    Image.new("L", (20, 30), 255).save(tmp_path / "white.png")
    assert run("-i", tmp_path / "white.png", "-o", tmp_path / "out", *eager) == 0
    mask = np.asarray(Image.open(tmp_path / "out" / "white.png"))
    assert mask.shape == (30, 20)
    assert not mask.any()


@pytest.mark.slow
def test_never_empty_marks_one_region_where_nothing_reaches_the_threshold(model, tiny, tmp_path):
    folder = tmp_path / "shy"
    shutil.copytree(tiny.model, folder, ignore=shutil.ignore_patterns("validation", "*.png"))
    config = json.loads((folder / "inference.json").read_text())
    config["threshold"] = 0.999999
    (folder / "inference.json").write_text(json.dumps(config))
    # However far the training got: no probability near 1.
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if "seg_layers" in name:
            weight *= 0.1
    torch.save(checkpoint, path)
    in_mode(picture(), "L").save(tmp_path / "a.png")
    shy = ("-m", folder, *model[2:])
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "no.png", *shy) == 0
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "yes.png", *shy, "--never_empty") == 0
    assert not np.asarray(Image.open(tmp_path / "no.png")).any()
    assert np.asarray(Image.open(tmp_path / "yes.png")).any()


@pytest.mark.parametrize(
    ("code", "ending"),
    [("LPS", ".nii.gz"), ("RAS", ".nii.gz"), ("LAI", ".nii"), ("PIR", ".nii.gz"), ("RAS", ".mha")],
)
def test_a_volume_gives_a_mask_with_its_header(code, ending, eager, tmp_path):
    source = write(volume(), tmp_path / f"pet{ending}", code)
    target = tmp_path / "out" / f"mask{ending}"
    assert run("-i", source, "-o", target, *eager, "--views", 3) == 0
    assert names(target.parent) == {target.name}
    table = (target.parent / "mask_lesions.csv").read_text().splitlines()
    assert table[0].startswith("lesion,volume_ml,suv_max") and len(table) > 1
    assert_same_header(target, source)
    found = read(target)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1}


@pytest.mark.slow
def test_the_orientation_of_the_file_does_not_change_the_answer(eager, tmp_path):
    answers = []
    for code in ("LPS", "RAS", "PIR"):
        source = write(volume(), tmp_path / code / "pet.nii.gz", code)
        out = tmp_path / "out" / code
        assert run("-i", source, "-o", out, *eager, "--views", 3, "--save_probabilities") == 0
        image = sitk.ReadImage(str(out / "pet_probabilities.nii.gz"))
        answers.append(sitk.GetArrayFromImage(sitk.DICOMOrient(image, "LPS")))
    assert answers[0].max() > 0
    for answer in answers[1:]:
        assert np.allclose(answer, answers[0], atol=1e-5)


def test_views_and_probabilities_are_kept_on_request(eager, usual, tmp_path):
    source = write(volume(), tmp_path / "pet.nii.gz")
    out = tmp_path / "out"
    extras = ("--save_views", "--save_probabilities")
    assert run("-i", source, "-o", out, *eager, *extras) == 0
    assert names(out) == {
        "pet.nii.gz",
        "pet_probabilities.nii.gz",
        "pet_views/geometry.json",
        "pet_views/levels.nii.gz",
        "pet_views/probabilities.nii.gz",
    }
    geometry = ViewGeometry.load(out / "pet_views" / "geometry.json")
    # The number of views and the window are the model's.
    assert (geometry.views, geometry.window_suv) == (3, 8.0)
    levels = read(out / "pet_views" / "levels.nii.gz")
    assert (levels.dtype, levels.shape) == (np.uint8, geometry.stack_shape)
    assert levels.max() == round(7 * 255 / 8)
    probability = read(out / "pet_probabilities.nii.gz")
    assert_same_header(out / "pet_probabilities.nii.gz", source)
    assert np.array_equal(read(out / "pet.nii.gz") == 1, probability >= usual["3d"])
    # The kept views lead to the same mask through the fuse command.
    choice = ("--rule", "max", "--threshold", usual["3d"])
    views = ("-i", out / "pet_views", "--views_file", "probabilities.nii.gz")
    assert run(*views, "-o", tmp_path / "again.nii.gz", *choice, command=fuse) == 0
    assert np.array_equal(read(tmp_path / "again.nii.gz"), read(out / "pet.nii.gz"))


@pytest.mark.slow
def test_mirroring_changes_the_answer_a_little(eager, tmp_path):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    found = []
    for name, options in (("one", eager), ("many", eager[:-1])):
        out = tmp_path / name
        assert run("-i", tmp_path / "a.png", "-o", out, *options, "--save_probabilities") == 0
        with np.load(out / "a_probabilities.npz") as content:
            found.append(content["probabilities"])
    assert not np.array_equal(*found)


def test_stacks_of_a_data_set_give_mask_stacks(tiny, eager, tmp_path):
    assert run("-i", tiny.raw / "imagesTr", "-o", tmp_path / "out", *eager) == 0
    cases = {"ann_1", "ann_2", "bob_1", "eve_1"}
    assert names(tmp_path / "out") == {f"{case}.nii.gz" for case in cases}
    for case in cases:
        source = tiny.raw / "imagesTr" / f"{case}_0000.nii.gz"
        found = tmp_path / "out" / f"{case}.nii.gz"
        assert_same_header(found, source)
        assert set(np.unique(read(found))) <= {0, 1}


@pytest.mark.slow
def test_the_answer_to_a_stack_is_that_of_stock_nnunet(tiny, model, tmp_path):
    """One predictor: our in-memory path against nnU-Net's own, from file to file."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    source = tiny.raw / "imagesTr" / "bob_1_0000.nii.gz"
    assert run("-i", source, "-o", tmp_path / "own", *model, "--save_probabilities") == 0
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(tiny.model), (0,))
    stock = tmp_path / "bob_1"
    predictor.predict_from_files_sequential([[str(source)]], [str(stock)], save_probabilities=True)
    with np.load(f"{stock}.npz") as content:
        probability = content["probabilities"][1]
    ours = read(tmp_path / "own" / "bob_1_probabilities.nii.gz")
    # nnU-Net adds windows up in half precision, ours are in single: at the corners of windows,
    # where weights are small, up to a hundredth of a logit is lost there.
    assert np.allclose(ours, probability, atol=1e-2)
    assert np.abs(ours - probability).mean() < 1e-3
    clear = abs(ours - 0.5) > 1e-2
    assert clear.any()
    own, theirs = read(tmp_path / "own" / "bob_1.nii.gz"), read(f"{stock}.nii.gz")
    assert np.array_equal(own[clear], theirs[clear])


def test_a_stack_takes_its_geometry_along_and_can_be_fused(eager, tmp_path):
    pet = write(volume(), tmp_path / "study" / "pet.nii.gz", "RAS")
    assert run("-i", pet, "-o", tmp_path / "v", "--views", 3, command=project) == 0
    out = tmp_path / "out"
    assert run("-i", tmp_path / "v" / "suv.nii.gz", "-o", out / "mask.nii.gz", *eager) == 0
    assert names(out) == {"mask.nii.gz", "mask_geometry.json"}
    assert read(out / "mask.nii.gz").shape == read(tmp_path / "v" / "suv.nii.gz").shape
    fused = tmp_path / "fused.nii.gz"
    views = ("-i", out, "--views_file", "mask.nii.gz", "--rule", "max")
    assert run(*views, "-o", fused, command=fuse) == 0
    assert_same_header(fused, pet)
    assert read(fused).any()


@pytest.mark.slow
def test_a_stack_of_raw_suv_is_put_on_the_scale_of_the_network(eager, tmp_path):
    """What `project` writes is SUV; the network saw levels."""
    pet = write(volume(), tmp_path / "pet.nii.gz")
    assert run("-i", pet, "-o", tmp_path / "v", "--views", 3, command=project) == 0
    extras = (*eager, "--save_probabilities", "--save_views")
    assert run("-i", tmp_path / "v" / "suv.nii.gz", "-o", tmp_path / "stack", *extras) == 0
    assert run("-i", pet, "-o", tmp_path / "volume", *extras, "--views", 3) == 0
    from_stack = read(tmp_path / "stack" / "suv_probabilities.nii.gz")
    from_volume = read(tmp_path / "volume" / "pet_views" / "probabilities.nii.gz")
    assert np.allclose(from_stack, from_volume, atol=1e-6)


@pytest.mark.parametrize("ending", [".nii", ".mha"])
def test_a_stack_is_known_by_its_spacing_in_any_format(ending, eager, tmp_path):
    levels = np.random.default_rng(0).integers(0, 200, (2, 20, 18)).astype(np.uint8)
    source = write_stack(levels, tmp_path / f"views_0000{ending}")
    assert run("-i", source, "-o", tmp_path / "out", *eager) == 0
    assert names(tmp_path / "out") == {f"views{ending}"}
    assert read(tmp_path / "out" / f"views{ending}").shape == levels.shape


def test_a_tree_of_studies_gives_one_mask_a_study(eager, tmp_path, capsys):
    tree = tmp_path / "tree"
    first = write(volume(), tree / "PETCT_a" / "first study" / "SUV.nii.gz")
    write(volume() * 3000, tree / "PETCT_b" / "first study" / "SUV.nii.gz", "RAS")
    assert run("-i", tree, "-o", tmp_path / "out", *eager, "--views", 2) == 0
    out, err = capsys.readouterr()
    assert "2 masks written" in out
    assert err.count("\n") == 1
    assert "PETCT_b" in err
    assert "Bq/ml" in err
    assert names(tmp_path / "out") == {
        "PETCT_a_first_study.nii.gz",
        "PETCT_b_first_study.nii.gz",
    }
    assert_same_header(tmp_path / "out" / "PETCT_a_first_study.nii.gz", first)


@pytest.mark.slow
@pytest.mark.skipif(not (models_folder() / "mip_pet").is_dir(), reason="no bundled model")
def test_the_bundled_model_warns_of_volumes_and_says_how_many_views(tmp_path, capsys):
    source = write(volume(), tmp_path / "suv.nii.gz")
    options = ("--views", 1, "--disable_tta", "-device", "cpu")
    assert run("-i", source, "-o", tmp_path / "mask.nii.gz", *options) == 0
    out, err = capsys.readouterr()
    assert "views of each volume: 1\n" in out
    assert "from simulated patients" in err


def test_an_empty_folder_is_told_what_is_expected(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(b"")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "in") in err and "PNGs (no JPEGs)" in err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_volumes(eager, tmp_path):
    write(volume(), tmp_path / "in" / "one.nii.gz")
    write(volume(), tmp_path / "in" / "two.mha", "RAS")
    assert run("-i", tmp_path / "in", "-o", tmp_path / "out", *eager, "--views", 2) == 0
    assert names(tmp_path / "out") == {"one.nii.gz", "two.mha"}


@pytest.mark.slow
def test_a_model_named_by_data_set_trainer_and_plans(tiny, tmp_path):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    named = ("-d", tiny.number, "-tr", tiny.trainer, "-p", tiny.plans, "-f", 0, "-device", "cpu")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "named.png", *named) == 0
    whole = ("-m", tiny.model, "-device", "cpu")
    assert run("-i", tmp_path / "a.png", "-o", tmp_path / "whole.png", *whole) == 0
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def refused(capsys, *argv: object) -> str:
    """The one line of a command that refuses its input."""
    assert run(*argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("dataset.json", "lacks dataset.json"),
        ("plans.json", "lacks plans.json"),
        ("fold_0/checkpoint_final.pth", "has no fold with checkpoint_final.pth"),
        (".", "no such model folder"),
    ],
)
def test_a_model_folder_that_lacks_something(missing, named, eager, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    folder = eager[1]
    if missing == ".":
        shutil.rmtree(folder)
    else:
        (folder / missing).unlink()
    line = refused(capsys, "-i", tmp_path / "a.png", "-o", tmp_path / "out", *eager)
    assert str(folder) in line
    assert named in line
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_loaded(eager, tmp_path, capsys, monkeypatch):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    arguments = ("-i", tmp_path / "a.png", "-o", tmp_path / "out", *eager)
    with monkeypatch.context() as patch:
        patch.delenv("nnUNet_extTrainer")
        line = refused(capsys, *arguments)
    assert str(eager[1]) in line
    assert "nnUNetTrainerMIP_tiny" in line
    checkpoint = eager[1] / "fold_0" / "checkpoint_final.pth"
    content = checkpoint.read_bytes()
    for kept in (len(content) // 2, 0):
        checkpoint.write_bytes(content[:kept])
        assert str(eager[1]) in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_gets_one_line(eager, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    arguments = ("-i", tmp_path / "a.png", "-o", tmp_path / "out", *eager)
    plans, checkpoint = eager[1] / "plans.json", eager[1] / "fold_0" / "checkpoint_final.pth"
    whole, content = plans.read_text(), torch.load(checkpoint, weights_only=False)
    less = json.loads(whole)
    del less["configurations"]["2d"]["architecture"]
    for text in (whole[:100], "[]", json.dumps(less)):
        plans.write_text(text)
        assert str(eager[1]) in refused(capsys, *arguments)
    plans.write_text(whole)
    for key in ("trainer_name", "init_args", "network_weights"):
        torch.save({k: v for k, v in content.items() if k != key}, checkpoint)
        line = refused(capsys, *arguments)
        assert str(eager[1]) in line and "is it whole?" in line and key in line
    torch.save([], checkpoint)
    assert str(eager[1]) in refused(capsys, *arguments)
    assert not (tmp_path / "out").exists()


def test_a_model_without_recipe_uses_that_of_its_data_set(eager, tmp_path):
    (eager[1] / "inference.json").unlink()
    out = tmp_path / "out"
    pet = write(volume(), tmp_path / "pet.nii.gz")
    assert run("-i", pet, "-o", out, *eager, "--save_views") == 0
    geometry = ViewGeometry.load(out / "pet_views" / "geometry.json")
    assert (geometry.views, geometry.window_suv) == (3, 8.0)


def test_a_model_that_was_not_trained_on_mips(eager, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    (eager[1] / "inference.json").unlink()
    dataset = json.loads((eager[1] / "dataset.json").read_text())
    del dataset["mip"]
    (eager[1] / "dataset.json").write_text(json.dumps(dataset))
    line = refused(capsys, "-i", tmp_path / "a.png", "-o", tmp_path / "out", *eager)
    assert str(eager[1] / "dataset.json") in line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-f", "7"), "fold_7"),
        (("-f", "0", "all"), "fold_all"),
        (("-f", "first"), "check -f"),
        (("-chk", "checkpoint_best_of_all.pth"), "checkpoint_best_of_all.pth"),
        (("-device", "abacus"), "argument -device: abacus: unknown device"),
        (("--views", "0"), "views"),
        (("-d", "901"), "either -m FOLDER, or -d ID"),
    ],
)
def test_options_that_cannot_be_served(options, named, model, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    line = refused(capsys, "-i", tmp_path / "a.png", "-o", tmp_path / "out", *model, *options)
    assert named in line
    assert not (tmp_path / "out").exists()


def test_a_wrong_name_of_a_model_lists_what_there_is(tiny, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    inputs = ("-i", tmp_path / "a.png", "-o", tmp_path / "out")
    assert "999" in refused(capsys, *inputs, "-d", 999)
    line = refused(capsys, *inputs, "-d", tiny.number)
    assert f"{tiny.trainer}__{tiny.plans}__2d" in line


def test_a_folder_of_pngs_and_volumes_is_refused(tmp_path, capsys):
    source = tmp_path / "in"
    write(volume(), source / "pet.nii.gz")
    in_mode(picture(), "L").save(source / "a.png")
    line = refused(capsys, "-i", source, "-o", tmp_path / "out", "-m", tmp_path)
    assert str(source) in line
    assert "folders of their own" in line


def test_a_bad_png_among_good_ones_leaves_whole_answers_only(eager, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        in_mode(picture(), "L").save(source / name)
    content = (source / "b.png").read_bytes()
    (source / "b.png").write_bytes(content[: len(content) // 2])
    line = refused(capsys, "-i", source, "-o", tmp_path / "out", *eager)
    assert str(source / "b.png") in line
    assert names(tmp_path / "out") == {"a.png"}


@pytest.mark.parametrize("output", [".", "pet.nii.gz"])
def test_an_input_is_never_replaced_by_its_answer(output, tmp_path, monkeypatch, capsys):
    pet = write(volume(), tmp_path / "pet.nii.gz")
    before = pet.read_bytes()
    monkeypatch.chdir(tmp_path)
    line = refused(capsys, "-i", pet, "-o", output, "-m", tmp_path)
    assert "would be replaced" in line
    assert refused(capsys, "-i", tmp_path, "-o", tmp_path, "-m", tmp_path)
    assert pet.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a.png", "mask.nii.gz"),
        ("pet.nii.gz", "mask.png"),
        # Of two files, whose header would name the other by a name that it does not keep.
        ("pet.nii.gz", "mask.mhd"),
        (".", "mask.png"),
        (".", "m.nii.gz"),
    ],
)
def test_an_output_of_another_kind_is_refused(source, output, tmp_path, capsys):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    write(volume(), tmp_path / "pet.nii.gz")
    line = refused(capsys, "-i", tmp_path / source, "-o", tmp_path / "x" / output, "-m", tmp_path)
    assert output in line
    assert not (tmp_path / "x").exists()


def test_two_inputs_with_one_answer_are_refused(tmp_path, capsys):
    levels = np.ones((2, 9, 9), np.uint8)
    write_stack(levels, tmp_path / "in" / "a.nii.gz")
    write_stack(levels, tmp_path / "in" / "a_0000.nii.gz")
    line = refused(capsys, "-i", tmp_path / "in", "-o", tmp_path / "out", "-m", tmp_path)
    assert "same mask file" in line


@pytest.mark.parametrize("value", [300.0, -1.0, np.nan])
def test_a_stack_that_holds_no_levels_is_refused(value, eager, tmp_path, capsys):
    levels = np.full((2, 20, 18), 100, np.float32)
    levels[1, 3, 3] = value
    source = write_stack(levels, tmp_path / "views.nii.gz")
    line = refused(capsys, "-i", source, "-o", tmp_path / "out", *eager)
    assert str(source) in line
    assert not (tmp_path / "out").exists()


def test_jobs_of_a_file_and_of_a_folder(tmp_path):
    in_mode(picture(), "L").save(tmp_path / "a.png")
    (job,) = find_jobs(tmp_path / "a.png", tmp_path / "out")
    assert (job.kind, job.case, job.target) == ("png", "a", tmp_path / "out" / "a.png")
    (job,) = find_jobs(tmp_path, tmp_path / "out")
    assert job.target == tmp_path / "out" / "a.png"
    (job,) = find_jobs(tmp_path / "a.png", tmp_path / "b.png")
    assert job.target == tmp_path / "b.png"
    pet = write(volume(), tmp_path / "pets" / "b.mhd")
    (job,) = find_jobs(pet, tmp_path / "out")
    assert (job.case, job.target) == ("b", tmp_path / "out" / "b.mha")


def test_only_another_number_of_views_replaces_listed_angles(tiny_predictor):
    listed = tiny_predictor.override(views=3, angles_deg=(0.0, 10.0, 90.0))
    assert listed.override(views=3, tta=False).config.angles == (0.0, 10.0, 90.0)
    assert listed.override(views=2).config.angles == (0.0, 90.0)


def test_real_images(eager, tmp_path):
    data = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not data:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    for path in sorted((Path(data) / "dmiai/patients/imgs").glob("*.png"))[:2]:
        target = tmp_path / "out" / path.name
        assert run("-i", path, "-o", target, *eager) == 0
        with Image.open(target) as mask, Image.open(path) as image:
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 255}
