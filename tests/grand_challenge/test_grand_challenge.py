"""The challenge command with a really trained (tiny) network: editions, odd inputs, failures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import nnunetv2_mip
from nnunetv2_mip.commands import grand_challenge, phantom, predict
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.grand_challenge.time_budget import Setting, choose, settings_below
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.io.read_study import Study

ROOT = Path(nnunetv2_mip.__file__).parent.parent
COMMAND = Path(sys.executable).with_name("nnUNetv2_mip_grand_challenge")
SCRIPTS = ROOT / "container" / "grand_challenge"
SHAPE = (14, 12, 16)
MASKS = {
    1: "images/automated-petct-lesion-segmentation",
    2: "images/automated-petct-lesion-segmentation",
    3: "images/automated-petct-lesion-segmentation",
    4: "images/tumor-lesion-segmentation",
}


def suv() -> np.ndarray:
    array = np.full(SHAPE, 0.2, np.float32)
    array[:, 2:-2, 2:-2] = np.random.default_rng(1).uniform(0.6, 1.6, (SHAPE[0], 8, 12))
    array[4:8, 4:8, 9:13] = 7
    return array


def write(array: np.ndarray, path: Path, code: str = "LPS") -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.1, 4.0, 5.0))
    image.SetOrigin((-31.5, 12.25, 100.125))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(path), useCompression=True)
    return path


def write_clicks(folder: Path, *points: tuple) -> Path:
    found = [{"point": list(place), "name": name} for place, name in points]
    path = folder / "lesion-clicks.json"
    path.write_text(json.dumps({"type": "Multiple points", "points": found}))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """An input folder as the platform mounts it: other names for CT and PET, with spaces."""
    source = tmp_path / "input"
    write(suv(), source / "images/pet/b3 PET größe.mha")
    write(np.full(SHAPE, -900, np.int16), source / "images/ct/a1 CT äö.mha")
    return source


@pytest.fixture(scope="module")
def eager(tiny_trained, tmp_path_factory) -> Path:
    """The tiny model with thresholds so low that it marks much, and little to fuse."""
    folder = tmp_path_factory.mktemp("model") / "eager"
    shutil.copytree(
        tiny_trained.model, folder, ignore=shutil.ignore_patterns("validation", "*.png")
    )
    config = json.loads((folder / "inference.json").read_text())
    config["fusion"] = {"rule": "max", "threshold": 0.3}
    (folder / "inference.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def run(eager, tiny_trained, tmp_path, monkeypatch):
    """Runs the command on an input folder; gives its exit code and the output folder."""
    monkeypatch.setenv("nnUNet_extTrainer", tiny_trained.environment["nnUNet_extTrainer"])

    def call(source: Path, *options: object, output: Path | None = None, model: Path = eager):
        output = output or tmp_path / "output"
        words = ("--input", source, "--output", output, "--model", model, *options)
        with pytest.raises(SystemExit) as ended:
            grand_challenge.main([str(word) for word in words])
        return ended.value.code, output

    return call


def files(output: Path) -> set[str]:
    return {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}


def mask_of(output: Path, case: str = "a1 CT äö", edition: int = 3) -> sitk.Image:
    return sitk.ReadImage(str(output / MASKS[edition] / f"{case}.mha"))


def voxels(image: sitk.Image) -> np.ndarray:
    array = sitk.GetArrayFromImage(image)
    assert image.GetPixelID() == sitk.sitkUInt8 and set(np.unique(array)) <= {0, 1}
    return array


def same_header(one: sitk.Image, path: Path) -> bool:
    two = sitk.ReadImage(str(path))
    asked = ("GetSize", "GetSpacing", "GetOrigin", "GetDirection")
    return all(getattr(one, name)() == getattr(two, name)() for name in asked)


@pytest.mark.parametrize("edition", [1, 2, 3, 4])
def test_every_edition_gets_what_it_asks_for(folder, run, edition, capsys):
    write_clicks(folder)
    code, output = run(folder, "--edition", edition)
    assert code == 0
    expected = {f"{MASKS[edition]}/a1 CT äö.mha"}
    if edition == 3:
        expected.add("data-centric-model.json")
        assert json.loads((output / "data-centric-model.json").read_text()) is False
    assert files(output) == expected
    mask = mask_of(output, edition=edition)
    assert voxels(mask).any() and same_header(mask, next((folder / "images/pet").iterdir()))
    assert "3 views, TTA on, on cpu" in capsys.readouterr().out


@pytest.mark.slow
def test_the_edition_shows_in_the_input(folder, run):
    assert run(folder)[0] == 0
    write_clicks(folder)
    _, output = run(folder, "--data_centric", output=folder.parent / "four")
    assert files(output) == {f"{MASKS[4]}/a1 CT äö.mha"}
    _, output = run(folder, "--data_centric", "--edition", 3, output=folder.parent / "three")
    assert json.loads((output / "data-centric-model.json").read_text()) is True


def test_the_mask_is_that_of_predict_with_and_without_clicks(folder, run, eager, tmp_path):
    pet = next((folder / "images/pet").iterdir())
    clicks = write_clicks(folder, ([1, 1, 1], "tumor"), ([10, 5, 5], "background"))
    for edition, options in ((3, ()), (4, ("--clicks", clicks))):
        _, output = run(folder, "--edition", edition, output=tmp_path / f"out{edition}")
        target = tmp_path / f"{edition}.mha"
        words = ("-i", pet, "-o", target, "-m", eager, *options)
        with pytest.raises(SystemExit) as ended:
            predict.main([str(word) for word in words])
        assert ended.value.code == 0
        ours = voxels(mask_of(output, edition=edition))
        assert np.array_equal(ours, sitk.GetArrayFromImage(sitk.ReadImage(str(target))))
        assert ours.any()
    assert ours[1, 1, 1] == 1 and ours[5, 5, 10] == 0


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR"])
def test_clicks_hold_in_images_of_any_direction(folder, run, code, tmp_path):
    shutil.rmtree(folder / "images/pet")
    pet = write(suv(), folder / "images/pet/p.mha", code)
    write_clicks(folder, ([1, 2, 0], "tumor"), ([5, 6, 7], "background"))
    status, output = run(folder)
    mask = mask_of(output, edition=4)
    assert status == 0 and same_header(mask, pet)
    assert (mask[1, 2, 0], mask[5, 6, 7]) == (1, 0)


def test_contradictory_clicks_are_reported(folder, run, capsys):
    write_clicks(folder, ([3, 3, 3], "tumor"), ([3, 3, 3], "background"))
    code, output = run(folder)
    assert code == 0 and voxels(mask_of(output, edition=4))[3, 3, 3] == 0
    assert "contradicts an earlier one" in capsys.readouterr().err


def test_without_a_ct_the_mask_is_named_like_the_pet(folder, run):
    shutil.rmtree(folder / "images/ct")
    code, output = run(folder)
    assert code == 0
    assert voxels(mask_of(output, "b3 PET größe")).any()


def of_type(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "not a number":
        array[0, 0, :3] = (np.nan, np.inf, -np.inf)
    elif kind == "undershoot":
        array[0, 0, 0] = -0.3
    elif kind == "empty":
        array[:] = 0
    elif kind == "nothing finite":
        array[:] = np.nan
    return array.astype(kind) if kind in ("int16", "float64", "uint8") else array


@pytest.mark.parametrize("kind", ["int16", "uint8", "float64", "not a number", "undershoot"])
def test_odd_values_give_a_mask(folder, run, kind, capsys):
    pet = write(of_type(suv(), kind), next((folder / "images/pet").iterdir()))
    code, output = run(folder)
    assert code == 0
    mask = mask_of(output)
    assert voxels(mask)[4:8, 4:8, 9:13].any() and same_header(mask, pet)
    told = {"not a number": "not finite", "undershoot": "1 voxel is below 0"}.get(kind)
    err = capsys.readouterr().err
    assert told in err if told else "read as 0" not in err


@pytest.mark.parametrize("kind", ["empty", "nothing finite"])
def test_without_uptake_the_mask_is_empty_but_for_clicks(folder, run, kind, capsys):
    write(of_type(suv(), kind), next((folder / "images/pet").iterdir()))
    write_clicks(folder, ([3, 4, 5], "tumor"))
    code, output = run(folder, "--edition", 1)
    assert code == 0 and not voxels(mask_of(output)).any()
    assert "is empty" in capsys.readouterr().err
    code, output = run(folder, output=folder.parent / "four")
    assert code == 0 and voxels(mask_of(output, edition=4))[5, 4, 3] == 1


@pytest.mark.parametrize("size", [(7, 6, 8), SHAPE])
def test_a_ct_of_another_size_does_no_harm(folder, run, size):
    write(np.full(size, 40, np.float64), next((folder / "images/ct").iterdir()), "RAS")
    code, output = run(folder)
    assert code == 0 and voxels(mask_of(output)).any()


def test_a_ct_on_another_grid_is_resampled(folder):
    from nnunetv2_mip.grand_challenge.layout import read_challenge_ct, read_challenge_pet

    told = []
    pet = read_challenge_pet(next((folder / "images/pet").iterdir()), told.append)
    ct = np.zeros((28, 24, 32), np.float32)
    ct[14:] = 1000
    image = sitk.GetImageFromArray(ct)
    image.SetSpacing((2.05, 2.0, 2.5))
    image.SetOrigin((-32.525, 11.25, 98.875))
    path = folder / "ct.mha"
    sitk.WriteImage(image, str(path))
    found = read_challenge_ct(path, pet, told.append)
    assert found.array.shape == SHAPE and len(told) == 1 and "is resampled" in told[0]
    assert (found.array[:6, 1:-1, 1:-1] == 0).all() and (found.array[8:, 1:-1, 1:-1] == 1000).all()


@pytest.mark.parametrize("where", ["on the grid", "elsewhere"])
def test_a_ct_that_is_not_finite_counts_as_air_there(folder, where):
    from nnunetv2_mip.grand_challenge.layout import read_challenge_ct, read_challenge_pet

    told = []
    pet = read_challenge_pet(next((folder / "images/pet").iterdir()), told.append)
    ct = np.full(SHAPE if where == "on the grid" else (28, *SHAPE[1:]), 40, np.float32)
    ct[2, 3, 4:7] = (np.nan, np.inf, -np.inf)
    found = read_challenge_ct(write(ct, folder / "ct.mha"), pet, told.append)
    assert found.array.shape == SHAPE and (found.array[2, 3, 4:7] == -1000).all()
    assert np.count_nonzero(found.array != 40) == 3
    assert "3 of" in told[0] and "read as air" in told[0]


def test_a_ct_that_is_missing_counts_as_air(folder):
    from nnunetv2_mip.grand_challenge.layout import read_challenge_ct, read_challenge_pet

    told = []
    pet = read_challenge_pet(next((folder / "images/pet").iterdir()), told.append)
    assert (read_challenge_ct(None, pet, told.append).array == np.full(SHAPE, -1000)).all()
    assert len(told) == 1 and "counts as air" in told[0]


def nothing(folder: Path) -> None:
    shutil.rmtree(folder / "images/pet")


def two_pets(folder: Path) -> None:
    write(suv(), folder / "images/pet/second.mha")


def two_cts(folder: Path) -> None:
    write(suv(), folder / "images/ct/second.mha")


def other_type(folder: Path) -> None:
    next((folder / "images/pet").iterdir()).rename(folder / "images/pet/pet.nii.gz")


def cut(folder: Path) -> None:
    path = next((folder / "images/pet").iterdir())
    path.write_bytes(path.read_bytes()[:300])


def ct_for_pet(folder: Path) -> None:
    write(np.full(SHAPE, -900, np.int16), next((folder / "images/pet").iterdir()))


def plane(folder: Path) -> None:
    image = sitk.GetImageFromArray(suv()[0])
    sitk.WriteImage(image, str(next((folder / "images/pet").iterdir())))


def bad_clicks(folder: Path) -> None:
    (folder / "lesion-clicks.json").write_text("[1, 2")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nothing, "holds no PET"),
        (two_pets, "holds 2 images"),
        (two_cts, "holds 2 images"),
        (other_type, "holds no PET"),
        (cut, "cannot be read"),
        (ct_for_pet, "is not SUV"),
        (plane, "has 2 dimensions"),
        (bad_clicks, "cannot be read as JSON"),
    ],
)
def test_input_that_cannot_be_served_gets_one_line(folder, run, spoil, reason, capsys):
    spoil(folder)
    capsys.readouterr()
    code, output = run(folder)
    told = capsys.readouterr().err
    assert code == 2 and not output.exists()
    lines = [line for line in told.splitlines() if "error" in line]
    assert len(lines) == 1 and reason in lines[0] and "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--edition", "4"), "lesion-clicks.json: no such file"),
        (("--budget", "0"), "--budget"),
        (("--model", "nowhere"), "nowhere"),
        (("--input", "nowhere"), "nowhere"),
    ],
)
def test_options_that_cannot_be_served_get_one_line(folder, run, options, reason, capsys):
    code, output = run(folder, *options)
    told = capsys.readouterr().err
    assert code == 2 and not output.exists()
    assert reason in told and "Traceback" not in told


def test_a_folder_that_is_no_second_stage_is_refused(folder, run, eager, tmp_path, capsys):
    model = tmp_path / "two_stages"
    shutil.copytree(eager, model)
    (model / "stage2").mkdir()
    code, output = run(folder, model=model)
    assert code == 2 and not output.exists()
    assert "stage2: lacks dataset.json" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failing_inference_leaves_the_clicks_and_the_reason(folder, run, eager, tmp_path, capsys):
    model = tmp_path / "broken"
    shutil.copytree(eager, model)
    plans = json.loads((model / "plans.json").read_text())
    # nnU-Net looks this up when it predicts.
    plans["configurations"]["2d"]["resampling_fn_data"] = "no_such_function"
    (model / "plans.json").write_text(json.dumps(plans))
    write_clicks(folder, ([10, 5, 5], "tumor"))
    code, output = run(folder, model=model)
    told = capsys.readouterr().err
    assert code == 0 and "inference failed, the mask holds the clicks alone" in told
    assert "Traceback" not in told
    mask = voxels(mask_of(output, edition=4))
    assert mask[5, 5, 10] == 1 and mask.sum() <= 4 * 4 * 4
    code, output = run(folder, "--edition", 2, model=model, output=tmp_path / "two")
    assert code == 0 and not voxels(mask_of(output)).any()
    # Who tests an image or a model wants to hear of it.
    with pytest.raises(RuntimeError, match="no_such_function"):
        run(folder, "--strict", model=model, output=tmp_path / "strict")
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize("strict", [False, True])
def test_when_the_time_is_over_there_is_an_answer(folder, eager, tiny_trained, tmp_path, strict):
    write_clicks(folder, ([10, 5, 5], "tumor"))
    words = ["--input", folder, "--output", tmp_path / "out", "--model", eager, "--budget", 0.5]
    words += ["--strict"] * strict
    done = subprocess.run(
        [COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **tiny_trained.environment},
        timeout=300,
    )
    assert done.returncode == strict, done.stderr
    assert "the time is over (0.5 s), the mask holds the clicks alone" in done.stderr
    assert voxels(mask_of(tmp_path / "out", edition=4))[5, 5, 10] == 1


@pytest.mark.slow
def test_short_of_time_there_are_fewer_views(folder, run, eager, monkeypatch, capsys):
    from nnunetv2_mip.grand_challenge import time_budget
    from nnunetv2_mip.grand_challenge.layout import read_challenge_pet
    from nnunetv2_mip.grand_challenge.time_budget import fit_to_budget
    from nnunetv2_mip.inference.predictor import MIPPredictor

    predictor = MIPPredictor.from_model_folder(eager, device="cpu").override(views=12)
    pet = read_challenge_pet(next((folder / "images/pet").iterdir()), print)
    assert fit_to_budget(predictor, Study(pet), 1000.0) is predictor
    hurried = fit_to_budget(predictor, Study(pet), 0.0).config
    assert (hurried.views, hurried.tta) == (4, False)
    # And the command says so, here of a run that may use none of its time.
    monkeypatch.setattr(time_budget, "KEPT_S", 1e9)
    code, _ = run(folder)
    told = capsys.readouterr()
    assert code == 0
    assert "degraded for time (240 s): 3 views, TTA off instead of 3 views, TTA on" in told.err
    assert "3 views, TTA off, on cpu" in told.out


def test_settings_are_given_up_from_the_dearest():
    options = settings_below(16, True)
    assert options[0] == Setting(16, True) and options[-1] == Setting(4, False)
    cost = {True: 4.0, False: 1.0}
    asked = [option.views * cost[option.tta] for option in options]
    assert asked == sorted(asked, reverse=True)
    assert choose(options, cost, 1000) == Setting(16, True)
    assert choose(options, cost, 64) == Setting(12, True)
    assert choose(options, cost, 22) == Setting(16, False)
    assert choose(options, cost, 0.1) == Setting(4, False)
    assert settings_below(3, False) == [Setting(3, False)]


def test_the_bundled_model_names_views_that_fit_a_run():
    from nnunetv2_mip.nnunet.model_folder import models_folder

    if not (models_folder() / "mip_pet").is_dir():
        pytest.skip("no bundled model")
    config = InferenceConfig.load(models_folder() / "mip_pet")
    assert 12 <= config.views <= 16 and config.tta


def test_a_mounted_model_comes_before_the_bundled_one(tmp_path):
    from nnunetv2_mip.nnunet.model_folder import models_folder

    mounted = tmp_path / "mounted"
    if (models_folder() / "mip_pet").is_dir():
        assert grand_challenge.model_folder(None, str(mounted)) == models_folder() / "mip_pet"
    mounted.mkdir()
    (mounted / "plans.json").write_text("{}")
    assert grand_challenge.model_folder(None, str(mounted)) == mounted
    assert grand_challenge.model_folder("named", str(mounted)) == Path("named")


@pytest.mark.slow
def test_phantoms_in_the_layout_of_the_challenge_can_be_run(run, tmp_path):
    words = ("-n", 1, "--spacing", 12, "--layout", "grand-challenge", "--clicks", 2)
    with pytest.raises(SystemExit) as ended:
        phantom.main(["-o", str(tmp_path / "cohort"), *map(str, words)])
    assert ended.value.code == 0
    (source,) = (tmp_path / "cohort").glob("*/input")
    (ct,) = (source / "images/ct").iterdir()
    (pet,) = (source / "images/pet").iterdir()
    assert ct.name != pet.name
    points = json.loads((source / "lesion-clicks.json").read_text())["points"]
    assert [point["name"] for point in points] == ["tumor"] * 2 + ["background"] * 2
    truth = sitk.ReadImage(str(source.parent / "SEG.mha"))
    assert [truth[point["point"]] for point in points] == [1, 1, 0, 0]
    code, output = run(source)
    mask = mask_of(output, ct.stem, edition=4)
    assert code == 0 and [mask[point["point"]] for point in points] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "options", [("--clicks", "2"), ("--clicks", "-1", "--layout", "grand-challenge")]
)
def test_clicks_need_their_layout(tmp_path, options, capsys):
    with pytest.raises(SystemExit) as ended:
        phantom.main(["-o", str(tmp_path / "cohort"), "-n", "1", *options])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())
    assert "clicks: 0 or more" in capsys.readouterr().err


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="not a checkout: no container folder")
def test_the_container_scripts_are_sound():
    for name in ("build.sh", "test.sh", "export.sh"):
        path = SCRIPTS / name
        assert os.access(path, os.X_OK)
        subprocess.run(["bash", "-n", str(path)], check=True)
    text = (SCRIPTS / "Dockerfile").read_text()
    allowed = (SCRIPTS / "Dockerfile.dockerignore").read_text()
    for line in text.splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists() and f"!{source}\n" in allowed
    # What shows that an image works must fail where it does not.
    assert "--strict" in text and "--strict" in (SCRIPTS / "test.sh").read_text()
    assert "\nUSER user\n" in text and 'ENTRYPOINT ["nnUNetv2_mip_grand_challenge"]' in text


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_on_a_read_only_package_the_compiled_kernels_are_brought_along(tmp_path, monkeypatch):
    from nnunetv2_mip.grand_challenge import sandbox as locked_down

    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__pycache__" / "projection.kernel.nbi").write_bytes(b"index")
    # Root may write anywhere: the answer of an unprivileged user.
    monkeypatch.setattr(locked_down, "_may_write", lambda folder: False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    import numba

    monkeypatch.setattr(numba.config, "CACHE_DIR", numba.config.CACHE_DIR)
    locked_down._copy_compiled_kernels(package)
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    (brought,) = folder.rglob("*.nbi")
    assert brought.read_bytes() == b"index" and brought.parent.name.startswith("package_")
    shutil.rmtree(folder)


def test_find_study_says_which_edition_is_unknown(folder):
    from nnunetv2_mip.grand_challenge.layout import find_study

    with pytest.raises(MipError, match="edition"):
        find_study(folder, "5")
