"""DM-i-AI PNGs to a data set of single-view stacks."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import run as run_command
from PIL import Image

from nnunetv2_mip.commands import convert_dmiai as command
from nnunetv2_mip.dataset_conversion import dmiai
from nnunetv2_mip.io.png import decode_png
from nnunetv2_mip.nnunet.splits import check_splits

NAME = "Dataset502_DMIAI"


def grey(seed: int = 0, height: int = 14, width: int = 10) -> np.ndarray:
    """File values (dark is uptake): white air, a grey body with a black spot."""
    pixels = np.full((height, width), 255, np.uint8)
    body = np.random.default_rng(seed).integers(120, 220, (height - 4, width - 4))
    pixels[2:-2, 2:-2] = body
    pixels[5, 4] = 0
    return pixels


def spot(height: int = 14, width: int = 10) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[5:7, 4:6] = 255
    return mask


def save(pixels: np.ndarray, path: Path, mode: str = "L") -> None:
    """Write grey values as a PNG of another mode without changing what they say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 257)
    elif mode == "RGBA":
        # Transparent everywhere: alpha is never signal.
        image = image.convert("RGB").convert("RGBA")
        image.putalpha(0)
    elif mode != "L":
        image = image.convert(mode)
    image.save(path)


def small_data(data: Path, mode: str = "L") -> Path:
    """Three patients and two controls."""
    for number in range(3):
        save(grey(number), data / "patients" / "imgs" / f"patient_{number:03d}.png", mode)
        save(spot(), data / "patients" / "labels" / f"segmentation_{number:03d}.png", mode)
    for number in range(2):
        save(grey(10 + number), data / "controls" / "imgs" / f"control_{number:03d}.png", mode)
    return data


run = partial(run_command, command)


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_patients_and_controls_become_a_data_set(tmp_path, raw, capsys):
    assert run("-i", small_data(tmp_path / "data"), "-d", 502) == 0
    assert "5 cases of 5 patients, 3 with lesions, 0 left out" in capsys.readouterr().out
    assert [path.name for path in raw.iterdir()] == [NAME]
    folder = raw / NAME
    cases = [f"control_{n:03d}" for n in range(2)] + [f"patient_{n:03d}" for n in range(3)]
    expected = {"conversion.json", "dataset.json", "splits_final.json"}
    for case in cases:
        expected |= {f"imagesTr/{case}_0000.nii.gz", f"imagesTr/{case}_geometry.json"}
        expected |= {f"labelsTr/{case}.nii.gz"}
    assert set(content(folder)) == expected
    dataset = json.loads((folder / "dataset.json").read_text())
    mip = dataset["mip"]
    assert dataset["numTraining"] == 5
    assert (mip["source"], mip["views"], mip["pixel_mm"]) == ("dmiai", 1, 2.0)
    assert mip["has_lesion"] == {case: case.startswith("patient") for case in cases}
    assert mip["patients"] == {case: case for case in cases}
    check_splits(json.loads((folder / "splits_final.json").read_text()), mip["patients"], cases)
    geometry = json.loads((folder / "imagesTr" / "patient_000_geometry.json").read_text())
    assert (geometry["kind"], geometry["source"]) == ("image", "patient_000.png")
    assert (geometry["row_mm"], geometry["bin_mm"]) == (2.0, 2.0)
    check_body(folder, mip)


def check_body(folder: Path, mip: dict) -> None:
    """The intensity constants are those of the body over all images."""
    levels = np.concatenate([read(p).ravel() for p in (folder / "imagesTr").glob("*_0000.nii.gz")])
    body = levels[levels > 2].astype(float)
    assert mip["intensity"]["suv"]["mean"] == pytest.approx(body.mean(), abs=1e-3)
    assert mip["intensity"]["suv"]["std"] == pytest.approx(body.std(), abs=1e-3)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_every_png_mode_gives_the_same_stacks(mode, tmp_path, raw):
    assert run("-i", small_data(tmp_path / "data", mode), "-d", 502) == 0
    folder = raw / NAME
    image = sitk.ReadImage(str(folder / "imagesTr" / "patient_000_0000.nii.gz"))
    assert image.GetSpacing() == (2.0, 2.0, 1000.0)
    stack, label = sitk.GetArrayFromImage(image), read(folder / "labelsTr" / "patient_000.nii.gz")
    assert stack.dtype == label.dtype == np.uint8
    # Bright is uptake, row 0 stays the first row of the picture.
    assert np.array_equal(stack, 255 - grey(0)[None])
    assert np.array_equal(label, spot()[None] // 255)
    assert not read(folder / "labelsTr" / "control_000.nii.gz").any()


@pytest.mark.parametrize(("controls", "count"), [("0", 0), ("1", 1), ("all", 2)])
def test_as_many_controls_as_asked(controls, count, tmp_path, raw):
    assert run("-i", small_data(tmp_path / "data"), "-d", 502, "--controls", controls) == 0
    patients = json.loads((raw / NAME / "dataset.json").read_text())["mip"]["patients"]
    assert [case for case in patients if case.startswith("control")] == [
        f"control_{number:03d}" for number in range(count)
    ]


def test_data_without_a_controls_folder(tmp_path, raw):
    data = small_data(tmp_path / "data")
    shutil.rmtree(data / "controls")
    assert run("-i", data, "-d", 502) == 0
    assert json.loads((raw / NAME / "dataset.json").read_text())["numTraining"] == 3


def test_masks_may_have_the_name_of_their_image(tmp_path, raw):
    save(grey(), tmp_path / "data/patients/imgs/x 1.png")
    save(spot(), tmp_path / "data/patients/labels/x 1.png")
    assert run("-i", tmp_path / "data", "-d", 502) == 0
    assert read(raw / NAME / "labelsTr" / "x_1.nii.gz").sum() == 4


def one_patient(tmp_path: Path, image: Image.Image, mask: Image.Image) -> Path:
    """Data of one patient more than `small_data`, whose files are given."""
    data = small_data(tmp_path / "data")
    image.save(data / "patients/imgs/patient_009.png")
    mask.save(data / "patients/labels/segmentation_009.png")
    return data


def large() -> Image.Image:
    return Image.fromarray(grey(9, 60, 50))


def large_spot() -> np.ndarray:
    return spot(60, 50)


ODD_PICTURES = {
    "its border is dark": (Image.fromarray(255 - grey(9, 60, 50)), large_spot()),
    "holds black and white alone": (Image.fromarray(large_spot()), large_spot()),
    "is the mask inverted": (large(), 255 - large_spot()),
    # Two colours, neither of them black.
    "(255, 255, 0)": (
        large(),
        np.where(large_spot()[..., None] > 0, (255, 255, 0), (0, 0, 90)).astype(np.uint8),
    ),
}


@pytest.mark.parametrize("reason", ODD_PICTURES)
def test_what_would_be_read_wrongly_is_refused_or_left_out(reason, tmp_path, raw, capsys):
    image, mask = ODD_PICTURES[reason]
    data = one_patient(tmp_path, image, Image.fromarray(mask))
    assert run("-i", data, "-d", 502) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert reason in line and "009.png" in line and "--skip_broken" in line
    assert run("-i", data, "-d", 502, "--skip_broken") == 0
    assert json.loads((raw / NAME / "dataset.json").read_text())["numTraining"] == 5


def test_coloured_masks_and_fewer_bits_are_converted(tmp_path, raw, capsys):
    wide = Image.fromarray(grey(9, 60, 50).astype(np.uint16) * 16)
    red = np.dstack([large_spot(), large_spot() * 0, large_spot() * 0])
    data = one_patient(tmp_path, wide, Image.fromarray(red))
    assert run("-i", data, "-d", 502) == 0
    assert "holds 12 bits in 16" in capsys.readouterr().err
    assert np.array_equal(
        read(raw / NAME / "imagesTr/patient_009_0000.nii.gz"), 255 - grey(9, 60, 50)[None]
    )
    assert read(raw / NAME / "labelsTr/patient_009.nii.gz").sum() == 4


def test_files_of_macos_are_no_images(tmp_path, raw):
    data = small_data(tmp_path / "data")
    for path in list(data.rglob("*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    assert run("-i", data, "-d", 502) == 0
    assert json.loads((raw / NAME / "dataset.json").read_text())["numTraining"] == 5


@pytest.mark.slow
def test_two_processes_give_the_same_bytes_as_one(tmp_path, raw, monkeypatch):
    data = small_data(tmp_path / "data")
    assert run("-i", data, "-d", 502, "-np", 1) == 0
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "other"))
    assert run("-i", data, "-d", 502, "-np", 2) == 0
    assert content(raw / NAME) == content(tmp_path / "other" / NAME)


def test_an_interrupted_conversion_is_finished_with_the_same_bytes(
    tmp_path, raw, monkeypatch, capsys
):
    data = small_data(tmp_path / "data")
    convert_image = dmiai.convert_image

    def interrupted(payload, paths):
        if paths.case == "patient_002":
            raise KeyboardInterrupt
        return convert_image(payload, paths)

    with monkeypatch.context() as patch:
        patch.setattr(dmiai, "convert_image", interrupted)
        assert run("-i", data, "-d", 502) == 130
    assert [path.name for path in raw.iterdir()] == [f".{NAME}.partial"]
    capsys.readouterr()
    assert run("-i", data, "-d", 502, "--controls", 1) == 2
    assert "other settings" in capsys.readouterr().err
    assert run("-i", data, "-d", 502) == 0
    assert [path.name for path in raw.iterdir()] == [NAME]
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "undisturbed"))
    assert run("-i", data, "-d", 502) == 0
    assert content(raw / NAME) == content(tmp_path / "undisturbed" / NAME)


def test_broken_images_are_left_out_on_request_and_told(tmp_path, raw, capsys):
    data = small_data(tmp_path / "data")
    labels = data / "patients" / "labels"
    (labels / "segmentation_000.png").unlink()
    save(spot(13, 10), labels / "segmentation_001.png")
    save(spot(), labels / "segmentation_777.png")
    assert run("-i", data, "-d", 502, "--skip_broken") == 0
    out, err = capsys.readouterr()
    assert "3 cases of 3 patients, 1 with lesions, 3 left out" in out
    assert err.count("left out: ") == 3
    skipped = json.loads((raw / NAME / "conversion.json").read_text())["skipped"]
    told = "\n".join(f"{entry['case']}: {entry['reason']}" for entry in skipped)
    assert "patient_000.png: no such file" in told
    assert "is 10x13 pixels, its image patient_001.png 10x14" in told
    assert "segmentation_777.png: is the mask of no image" in told


def test_real_images(tmp_path, raw):
    source = os.environ.get("NNUNETV2_MIP_TEST_DATA")
    if not source:
        pytest.skip("NNUNETV2_MIP_TEST_DATA is not set")
    data = tmp_path / "data"
    for folder, count in (("patients/imgs", 3), ("controls/imgs", 2)):
        (data / folder).mkdir(parents=True)
        for path in sorted((Path(source) / "dmiai" / folder).glob("*.png"))[:count]:
            shutil.copy(path, data / folder)
    (data / "patients/labels").mkdir()
    images = sorted((data / "patients/imgs").iterdir())
    for image in images:
        name = image.name.replace("patient", "segmentation")
        shutil.copy(Path(source) / "dmiai/patients/labels" / name, data / "patients/labels")
    assert run("-i", data, "-d", 502) == 0
    mip = json.loads((raw / NAME / "dataset.json").read_text())["mip"]
    assert len(mip["patients"]) == 5
    for image in images:
        stack = read(raw / NAME / "imagesTr" / f"{image.stem}_0000.nii.gz")
        assert np.array_equal(stack[0], decode_png(image))
        # White air fills the picture's corners; after the inversion it is dark.
        assert np.median(stack[0][:5, :5]) < 5
        label = read(raw / NAME / "labelsTr" / f"{image.stem}.nii.gz")
        assert label.shape == stack.shape
        assert mip["has_lesion"][image.stem] == label.any()
        if label.any():
            # Lesions are hotter than the body around them.
            assert stack[label == 1].mean() > stack[(label == 0) & (stack > 2)].mean()


def test_names_of_any_script_are_distinct_and_patients_stay_together(tmp_path, raw):
    names = ("患者一", "患者二", "P1_baseline", "P1_followup", "a b", "a.b")
    for number, name in enumerate(names):
        save(grey(number), tmp_path / "patients" / "imgs" / f"{name}.png")
        save(spot(), tmp_path / "patients" / "labels" / f"{name}.png")
        (tmp_path / "patients" / "labels" / f"._{name}.png").write_bytes(b"\0")
    assert run("-i", tmp_path, "-d", 502) == 0
    mip = json.loads((raw / NAME / "dataset.json").read_text("utf-8"))["mip"]
    assert len(mip["patients"]) == len(names)
    assert mip["patients"]["P1_baseline"] == mip["patients"]["P1_followup"] == "P1"
    summary = json.loads((raw / NAME / "conversion.json").read_text("utf-8"))
    originals = {record["original"] for record in summary["cases"].values() if "original" in record}
    assert originals == {"患者一", "患者二", "a b", "a.b"}
    assert "P1: P1_baseline, P1_followup" in summary["grouping"]


def test_an_image_that_changed_is_converted_again(tmp_path, raw, capsys):
    data = small_data(tmp_path / "data")
    label = data / "patients" / "labels" / "segmentation_001.png"
    good = label.read_bytes()
    label.write_bytes(good[:20])
    assert run("-i", data, "-d", 502) == 2
    label.write_bytes(good)
    changed = np.roll(spot(), 3, axis=1)
    save(changed, data / "patients" / "labels" / "segmentation_000.png")
    capsys.readouterr()
    assert run("-i", data, "-d", 502) == 0
    assert "segmentation_000.png changed since" in capsys.readouterr().err
    label = read(raw / NAME / "labelsTr" / "patient_000.nii.gz")
    np.testing.assert_array_equal(np.squeeze(label), changed > 0)
