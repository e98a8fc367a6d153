"""Bad input of every kind: exit code 2, one line on stderr that names the file, nothing left."""

import errno
import gzip
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetv2_mip.commands import convert_autopet, convert_dmiai, fuse, project

SHAPE = (8, 10, 10)
STUDY = Path("tree/PETCT_a/first study")
RELEASE = "fdg_a_2001-01-01"


def suv_array() -> np.ndarray:
    suv = np.full(SHAPE, 0.8, np.float32)
    suv[2:4, 3:5, 3:5] = 6
    return suv


def seg_array() -> np.ndarray:
    return (suv_array() > 5).astype(np.uint8)


def write(array: np.ndarray, path: Path, origin=(0.0, 0.0, 0.0), spacing=(4.0, 4.0, 5.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    if image.GetDimension() == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A good input of every kind, and an empty nnUNet_raw."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    write(suv_array(), tmp_path / STUDY / "SUV.nii.gz")
    write(seg_array(), tmp_path / STUDY / "SEG.nii.gz")
    release = tmp_path / "release"
    write(np.full(SHAPE, -900, np.int16), release / "imagesTr" / f"{RELEASE}_0000.nii.gz")
    write(suv_array(), release / "imagesTr" / f"{RELEASE}_0001.nii.gz")
    write(seg_array(), release / "labelsTr" / f"{RELEASE}.nii.gz")
    picture = np.full((12, 9), 255, np.uint8)
    picture[3:6, 3:6] = 20
    mask = np.where(picture < 30, 255, 0).astype(np.uint8)
    save(picture, tmp_path / "png/patients/imgs/patient_001.png")
    save(mask, tmp_path / "png/patients/labels/segmentation_001.png")
    save(picture, tmp_path / "png/controls/imgs/control_001.png")
    return tmp_path


def run(command, *argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        command.main([str(part) for part in argv])
    return ended.value.code


def assert_refused(capsys, named: Path | str, command, *argv: object) -> str:
    capsys.readouterr()
    assert run(command, *argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith(f"{command.build_parser().prog}: error: ")
    assert "Traceback" not in err
    assert str(named) in err
    return err


def everything(folder: Path) -> set[str]:
    """All files and folders below, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_good_input_is_good(workers, home):
    np_ = ("-np", workers)
    assert run(convert_autopet, "-i", home / "tree", "-d", 1, "--views", 2, *np_) == 0
    assert run(convert_autopet, "-i", home / "release", "-d", 2, "--views", 2, *np_) == 0
    assert run(convert_dmiai, "-i", home / "png", "-d", 3, *np_) == 0
    assert run(project, "-i", home / STUDY / "SUV.nii.gz", "-o", home / "v", "--views", 2) == 0
    assert len(list((home / "nnUNet_raw").iterdir())) == 3


def set_voxel(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        array = suv_array()
        array[1, 2, 3] = value
        write(array, path)

    return spoil


def add_garbage(path: Path) -> None:
    path.write_bytes(b"this is no image at all")


def flip_a_bit(path: Path) -> None:
    noise = np.random.default_rng(0).random((12, 12, 12)).astype(np.float32)
    write(noise, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def cut_inside_gzip(path: Path) -> None:
    """A gzip stream that ends well, with too few voxels in it."""
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: len(content) // 2]))


def oblique(path: Path) -> None:
    image = sitk.GetImageFromArray(suv_array())
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))


BAD_SUV = {
    "nan": (set_voxel(np.nan), "NaN"),
    "infinite": (set_voxel(np.inf), "infinite"),
    "negative": (set_voxel(-3), "negative"),
    "four dimensions": (lambda p: write(np.ones((2, *SHAPE), np.float32), p), "dimensions|several"),
    "two dimensions": (lambda p: write(np.ones((9, 9), np.float32), p), "dimensions|several"),
    "all zero": (lambda p: write(np.zeros(SHAPE, np.float32), p), "empty"),
    "one voxel": (lambda p: write(np.ones((1, 1, 1), np.float32), p), "empty"),
    "truncated": (cut, "truncated"),
    "almost whole": (lambda p: cut(p, 0.97), "truncated"),
    "no byte": (lambda p: p.write_bytes(b""), "truncated|damaged"),
    "truncated inside": (cut_inside_gzip, "truncated"),
    "flipped bit": (flip_a_bit, "damaged"),
    "no image": (add_garbage, "truncated|damaged"),
    "oblique": (oblique, "oblique"),
}
BAD_SEG = {
    "smaller grid": (lambda p: write(seg_array()[1:], p), "another grid"),
    "moved": (lambda p: write(seg_array(), p, origin=(0, 2, 0)), "another grid"),
    "other spacing": (lambda p: write(seg_array(), p, spacing=(4, 4, 4)), "another grid"),
    "three values": (lambda p: write(seg_array() + np.eye(10, dtype=np.uint8), p), "binary"),
    "truncated": (cut, "truncated"),
    "four dimensions": (lambda p: write(np.ones((2, *SHAPE), np.uint8), p), "dimensions|several"),
}


def says(pattern: str, line: str) -> bool:
    return any(word in line for word in pattern.split("|"))


@pytest.mark.parametrize("layout", ["tree", "release"])
@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_converted(fault, layout, home, capsys):
    release = home / "release" / "imagesTr" / f"{RELEASE}_0001.nii.gz"
    path = home / STUDY / "SUV.nii.gz" if layout == "tree" else release
    spoil, reason = BAD_SUV[fault]
    spoil(path)
    line = assert_refused(capsys, path, convert_autopet, "-i", home / layout, "-d", 1)
    assert says(reason, line)
    assert everything(home / "nnUNet_raw") == set()


@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_projected(fault, home, capsys):
    path = home / STUDY / "SUV.nii.gz"
    BAD_SUV[fault][0](path)
    line = assert_refused(capsys, path, project, "-i", path, "-o", home / "v")
    assert says(BAD_SUV[fault][1], line)
    assert not (home / "v").exists()


@pytest.mark.parametrize("fault", BAD_SUV)
def test_a_bad_suv_is_not_predicted(fault, home, capsys, tiny_model):
    from nnunetv2_mip.commands import predict

    path = home / STUDY / "SUV.nii.gz"
    BAD_SUV[fault][0](path)
    model = ("-m", tiny_model, "-device", "cpu")
    line = assert_refused(capsys, path, predict, "-i", path, "-o", home / "out", *model)
    assert says(BAD_SUV[fault][1], line)
    assert not (home / "out").exists()


@pytest.mark.parametrize("fault", BAD_SEG)
def test_a_bad_mask_is_not_used(fault, home, capsys):
    suv, seg = home / STUDY / "SUV.nii.gz", home / STUDY / "SEG.nii.gz"
    spoil, reason = BAD_SEG[fault]
    spoil(seg)
    line = assert_refused(capsys, seg, convert_autopet, "-i", home / "tree", "-d", 1)
    assert says(reason, line)
    if reason == "another grid":
        assert str(suv) in line
    assert everything(home / "nnUNet_raw") == set()
    line = assert_refused(capsys, seg, project, "-i", suv, "--seg", seg, "-o", home / "v")
    assert says(reason, line)
    assert not (home / "v").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_study_beside_a_good_one_leaves_only_whole_work(workers, home, capsys):
    """The good study waits, whole, for the second run; there is no data set yet."""
    bad = home / "tree" / "PETCT_b" / "s" / "SUV.nii.gz"
    set_voxel(np.nan)(bad)
    write(seg_array(), bad.with_name("SEG.nii.gz"))
    arguments = ("-i", home / "tree", "-d", 1, "--views", 2, "-np", workers)
    line = assert_refused(capsys, bad, convert_autopet, *arguments)
    assert "1 of 2 cases cannot be converted" in line
    partial = ".Dataset001_AutoPETMIP.partial"
    case = "PETCT_a_first_study"
    assert everything(home / "nnUNet_raw") == {
        partial,
        f"{partial}/imagesTr",
        f"{partial}/imagesTr/{case}_0000.nii.gz",
        f"{partial}/imagesTr/{case}_geometry.json",
        f"{partial}/imagesTr/{case}_lesions.json",
        f"{partial}/labelsTr",
        f"{partial}/labelsTr/{case}.nii.gz",
        f"{partial}/manifest.json",
        f"{partial}/records",
        f"{partial}/records/{case}.json",
    }


def remove(name: str) -> Callable[[Path], str]:
    def spoil(home: Path) -> str:
        (home / name).unlink()
        return name

    return spoil


def rename(old: str, new: str, named: str) -> Callable[[Path], str]:
    def spoil(home: Path) -> str:
        (home / old).rename(home / new)
        return named

    return spoil


IMAGES, LABELS = "release/imagesTr", "release/labelsTr"
MISSING = {
    "no SUV": ("tree", remove(f"{STUDY}/SUV.nii.gz")),
    "no SEG": ("tree", rename(f"{STUDY}/SEG.nii.gz", "x", f"{STUDY}/SUV.nii.gz")),
    "small letters": (
        "tree",
        rename(f"{STUDY}/SUV.nii.gz", f"{STUDY}/suv.nii.gz", f"{STUDY}/SUV.nii.gz"),
    ),
    "misnamed mask": (
        "tree",
        rename(f"{STUDY}/SEG.nii.gz", f"{STUDY}/mask.nii.gz", f"{STUDY}/SUV.nii.gz"),
    ),
    "release without SUV": ("release", remove(f"{IMAGES}/{RELEASE}_0001.nii.gz")),
    "release without label": (
        "release",
        rename(f"{LABELS}/{RELEASE}.nii.gz", "x", f"{IMAGES}/{RELEASE}_0001.nii.gz"),
    ),
    "release without channel number": (
        "release",
        rename(
            f"{IMAGES}/{RELEASE}_0001.nii.gz",
            f"{IMAGES}/{RELEASE}.nii.gz",
            f"{IMAGES}/{RELEASE}_0001.nii.gz",
        ),
    ),
    "no folder": ("nowhere", lambda home: "nowhere"),
    "a file": (f"{STUDY}/SUV.nii.gz", lambda home: f"{STUDY}/SUV.nii.gz"),
    "a folder without studies": ("png", lambda home: "png"),
}


@pytest.mark.parametrize("fault", MISSING)
def test_missing_and_misnamed_files_of_studies(fault, home, capsys):
    source, spoil = MISSING[fault]
    named = spoil(home)
    assert_refused(capsys, home / named, convert_autopet, "-i", home / source, "-d", 1)
    assert everything(home / "nnUNet_raw") == set()


@pytest.mark.parametrize("fault", ["no SUV", "small letters", "no folder"])
def test_missing_files_of_studies_when_predicting(fault, home, capsys):
    from nnunetv2_mip.commands import predict

    source, spoil = MISSING[fault]
    named = spoil(home)
    arguments = ("-i", home / source, "-o", home / "out", "-m", home)
    assert_refused(capsys, home / named, predict, *arguments)
    assert not (home / "out").exists()


PATIENTS = Path("png/patients")
MASK = PATIENTS / "labels" / "segmentation_001.png"
PICTURE = PATIENTS / "imgs" / "patient_001.png"


def values(*numbers: int) -> np.ndarray:
    array = np.zeros((12, 9), np.uint8)
    array[0, : len(numbers)] = numbers
    return array


BAD_PNG = {
    "mask of another size": (lambda h: save(values()[:, 1:], h / MASK), MASK, "8x12 pixels"),
    "transposed mask": (lambda h: save(values().T, h / MASK), MASK, "12x9 pixels"),
    "mask of 0 and 1": (lambda h: save(values(1), h / MASK), MASK, "only 0 and 255"),
    "soft mask": (lambda h: save(values(255, 128, 7), h / MASK), MASK, "only 0 and 255"),
    "truncated mask": (lambda h: cut(h / MASK), MASK, "truncated"),
    "truncated picture": (lambda h: cut(h / PICTURE), PICTURE, "truncated"),
    "no picture": (lambda h: add_garbage(h / PICTURE), PICTURE, "no PNG"),
    "empty file": (lambda h: (h / PICTURE).write_bytes(b""), PICTURE, "no PNG"),
    "no mask": (lambda h: (h / MASK).unlink(), PATIENTS / "labels" / PICTURE.name, "no such file"),
    "misnamed mask": (
        lambda h: (h / MASK).rename(h / PATIENTS / "labels" / "segmentation_1.png"),
        PATIENTS / "labels" / PICTURE.name,
        "no such file",
    ),
    "mask without picture": (
        lambda h: save(values(), h / PATIENTS / "labels" / "segmentation_002.png"),
        PATIENTS / "labels" / "segmentation_002.png",
        "mask of no image",
    ),
    "no pictures": (lambda h: (h / PICTURE).unlink(), PATIENTS / "imgs", "no PNG"),
    "no labels folder": (
        lambda h: shutil.rmtree(h / PATIENTS / "labels"),
        PATIENTS / "labels",
        "no such folder",
    ),
    "no patients folder": (
        lambda h: shutil.rmtree(h / PATIENTS),
        PATIENTS / "imgs",
        "no such folder",
    ),
    "one name twice": (
        lambda h: save(values(), h / "png/controls/imgs/patient_001.png"),
        "png",
        "same case name patient_001",
    ),
}


@pytest.mark.parametrize("fault", BAD_PNG)
def test_bad_pngs_are_not_converted(fault, home, capsys):
    spoil, named, reason = BAD_PNG[fault]
    spoil(home)
    data = ("-i", home / "png", "-d", 1, "--controls")
    # Without the controls nothing good is left to wait for a second run.
    count = "all" if fault == "one name twice" else 0
    line = assert_refused(capsys, home / named, convert_dmiai, *data, count)
    assert reason in line
    if fault != "mask without picture":
        assert everything(home / "nnUNet_raw") == set()
    else:
        assert not (home / "nnUNet_raw" / "Dataset001_DMIAI").exists()


def test_more_controls_than_there_are(home, capsys):
    arguments = ("-i", home / "png", "-d", 1, "--controls", 5)
    line = assert_refused(capsys, home / "png/controls/imgs", convert_dmiai, *arguments)
    assert "holds 1 PNGs" in line
    assert everything(home / "nnUNet_raw") == set()


CONVERTERS = [(convert_autopet, "tree"), (convert_dmiai, "png")]


@pytest.mark.parametrize(("command", "source"), CONVERTERS)
@pytest.mark.parametrize("value", [None, "", "a file"])
def test_nnunet_raw_that_is_no_folder(value, command, source, home, capsys, monkeypatch):
    if value is None:
        monkeypatch.delenv("nnUNet_raw")
    elif value == "":
        monkeypatch.setenv("nnUNet_raw", "")
    else:
        (home / "file").write_text("mine")
        monkeypatch.setenv("nnUNet_raw", str(home / "file"))
    line = assert_refused(capsys, "nnUNet_raw", command, "-i", home / source, "-d", 1)
    if not value:
        assert "nnUNetv2_mip_env" in line
    assert everything(home / "nnUNet_raw") == set()


def test_unset_variables_of_the_other_commands(home, capsys, monkeypatch):
    from nnunetv2_mip.commands import predict

    monkeypatch.delenv("nnUNet_results")
    monkeypatch.delenv("nnUNet_raw")
    arguments = ("-i", home / PICTURE, "-o", home / "out", "-d", 1)
    assert_refused(capsys, "nnUNet_results", predict, *arguments)
    (home / "predictions").mkdir()
    write(seg_array(), home / "predictions" / "a.nii.gz")
    arguments = ("-i", home / "predictions", "-o", home / "out", "-d", 1)
    assert_refused(capsys, "nnUNet_raw", fuse, *arguments)
    assert not (home / "out").exists()


@pytest.mark.parametrize("place", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
@pytest.mark.parametrize(("command", "source"), CONVERTERS)
def test_an_id_that_is_taken(command, source, place, home, capsys):
    taken = home / place / "Dataset007_Mine"
    taken.mkdir()
    (taken / "dataset.json").write_text("{}")
    before = everything(home)
    line = assert_refused(capsys, taken, command, "-i", home / source, "-d", 7)
    assert "id 7 exists already" in line
    assert everything(home) == before


def test_a_finished_data_set_is_not_converted_again(home, capsys):
    arguments = ("-i", home / "png", "-d", 1)
    assert run(convert_dmiai, *arguments) == 0
    folder = home / "nnUNet_raw" / "Dataset001_DMIAI"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert_refused(capsys, folder, convert_dmiai, *arguments)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-d", 0), "-d 0"),
        (("-d", 1000), "-d 1000"),
        (("-d", 1, "-n", "my data"), "-n 'my data'"),
        (("-d", 1, "-n", "a__b"), "-n 'a__b'"),
        (("-d", 1, "-n", "../x"), "-n '../x'"),
    ],
)
@pytest.mark.parametrize(("command", "source"), CONVERTERS)
def test_names_and_ids_that_nnunet_cannot_use(command, source, options, named, home, capsys):
    assert_refused(capsys, named, command, "-i", home / source, *options)
    assert everything(home / "nnUNet_raw") == set()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--views", 0), "--views 0"),
        (("--views", -3), "--views -3"),
        (("--window", 0), "--window 0"),
        (("--window", "nan"), "--window nan"),
        (("--window", "inf"), "--window inf"),
    ],
)
def test_view_settings_that_make_no_sense(options, named, home, capsys):
    arguments = ("-i", home / "tree", "-d", 1, *options)
    assert_refused(capsys, named, convert_autopet, *arguments)
    assert everything(home / "nnUNet_raw") == set()


def test_project_does_not_replace_its_inputs(home, capsys):
    study = home / STUDY
    (study / "SUV.nii.gz").rename(study / "suv.nii.gz")
    before = (study / "suv.nii.gz").read_bytes()
    source = study / "suv.nii.gz"
    line = assert_refused(capsys, study, project, "-i", source, "-o", study)
    assert "is not empty" in line
    assert source.read_bytes() == before
    assert everything(study) == {"suv.nii.gz", "SEG.nii.gz"}
    line = assert_refused(capsys, source, project, "-i", source, "-o", source)
    assert "is a file" in line
    assert source.read_bytes() == before


@pytest.fixture
def views(home) -> Path:
    """What `project` wrote."""
    study = home / STUDY
    arguments = ("--seg", study / "SEG.nii.gz", "--views", 4)
    assert run(project, "-i", study / "SUV.nii.gz", "-o", home / "views", *arguments) == 0
    return home / "views"


def other_geometry(folder: Path, **entries: object) -> None:
    path = folder / "geometry.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def drop_angles(folder: Path) -> None:
    path = folder / "geometry.json"
    content = json.loads(path.read_text())
    del content["angles_deg"]
    path.write_text(json.dumps(content))


def write_stack(array: np.ndarray, path: Path) -> None:
    write(array, path, spacing=(4.0, 5.0, 1000.0))


def soft(value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "seg.nii.gz"
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.float32)
        array[0, 0, 0] = value
        write_stack(array, path)

    return spoil


BAD_VIEWS = {
    "no geometry": (lambda f: (f / "geometry.json").unlink(), "seg.nii.gz", "no geometry file"),
    "broken geometry": (lambda f: cut(f / "geometry.json"), "geometry.json", "JSON"),
    "newer geometry": (
        lambda f: other_geometry(f, format_version=99),
        "geometry.json",
        "newer than this program",
    ),
    "geometry of an image": (
        lambda f: other_geometry(f, kind="image"),
        "geometry.json",
        "single image",
    ),
    "geometry without angles": (drop_angles, "geometry.json", "angles_deg"),
    "geometry is a list": (
        lambda f: (f / "geometry.json").write_text("[]"),
        "geometry.json",
        "not a view geometry",
    ),
    "other number of views": (
        lambda f: other_geometry(f, angles_deg=[0.0]),
        "seg.nii.gz",
        "its geometry says",
    ),
    "no views": (lambda f: (f / "seg.nii.gz").unlink(), "seg.nii.gz", "no such file"),
    "truncated views": (lambda f: cut(f / "seg.nii.gz", 0.9), "seg.nii.gz", "truncated"),
    "a volume's dimensions": (
        lambda f: write(np.ones((2, *SHAPE), np.uint8), f / "seg.nii.gz"),
        "seg.nii.gz",
        "not a stack",
    ),
    "above 1": (soft(3), "seg.nii.gz", "between 0 and 1"),
    "below 0": (soft(-0.1), "seg.nii.gz", "between 0 and 1"),
    "not a number": (soft(np.nan), "seg.nii.gz", "between 0 and 1"),
}


@pytest.mark.parametrize("fault", BAD_VIEWS)
def test_bad_views_are_not_fused(fault, views, home, capsys):
    spoil, named, reason = BAD_VIEWS[fault]
    spoil(views)
    arguments = ("-i", views, "-o", home / "out" / "mask.nii.gz")
    line = assert_refused(capsys, views / named, fuse, *arguments)
    assert reason in line
    assert not (home / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--views-file", "suv.nii.gz"), "suv.nii.gz"),
        (("--rule", "visibility"), "--rule visibility"),
        (("--threshold", 0), "--threshold 0"),
        (("--threshold", 1.5), "--threshold 1.5"),
        (("--threshold", "nan"), "--threshold nan"),
        (("--suv", "nowhere.nii.gz"), "nowhere.nii.gz"),
    ],
)
def test_fuse_options_that_cannot_be_served(options, named, views, home, capsys):
    arguments = ("-i", views, "-o", home / "out" / "mask.nii.gz", *options)
    assert_refused(capsys, named, fuse, *arguments)
    assert not (home / "out").exists()


def test_fuse_refuses_the_suv_of_another_study(views, home, capsys):
    other = home / "other.nii.gz"
    write(suv_array()[1:], other)
    arguments = ("-i", views, "-o", home / "out" / "mask.nii.gz", "--suv", other)
    assert "another grid" in assert_refused(capsys, other, fuse, *arguments)
    assert not (home / "out").exists()


def test_fuse_does_not_replace_the_views(views, home, capsys):
    stack = views / "seg.nii.gz"
    before = stack.read_bytes()
    assert_refused(capsys, stack, fuse, "-i", views, "-o", stack)
    assert stack.read_bytes() == before


@pytest.mark.parametrize("output", ["mask.png", "mask", "."])
def test_fuse_refuses_an_output_it_cannot_write(output, views, capsys):
    before = everything(views)
    assert_refused(capsys, views, fuse, "-i", views, "-o", views / output)
    assert everything(views) == before


@pytest.fixture
def predictions(views, home) -> Path:
    """A folder as nnUNetv2_predict writes it for the data set 5, whose raw data are there."""
    images = home / "nnUNet_raw" / "Dataset005_X" / "imagesTr"
    images.mkdir(parents=True)
    shutil.copy(views / "geometry.json", images / "a_geometry.json")
    (home / "predictions").mkdir()
    shutil.copy(views / "seg.nii.gz", home / "predictions" / "a.nii.gz")
    return home / "predictions"


def save_npz(path: Path, **arrays: np.ndarray) -> None:
    np.savez_compressed(path, **arrays)


def cut_npz(path: Path) -> None:
    save_npz(path, probabilities=np.random.default_rng(0).random((2, 4, 8, 12)))
    cut(path, 0.7)


BAD_PREDICTIONS = {
    "no geometry": (
        lambda p: shutil.copy(p / "a.nii.gz", p / "b.nii.gz"),
        "b_geometry.json",
        "no such file",
    ),
    "truncated": (lambda p: cut(p / "a.nii.gz"), "a.nii.gz", "truncated"),
    "truncated npz": (lambda p: cut_npz(p / "a.npz"), "a.npz", "probability file"),
    "no npz": (lambda p: add_garbage(p / "a.npz"), "a.npz", "probability file"),
    "npz of other things": (
        lambda p: save_npz(p / "a.npz", data=np.zeros(3)),
        "a.npz",
        "probability file",
    ),
    "npz of one class": (
        lambda p: save_npz(p / "a.npz", probabilities=np.zeros((1, 4, 8, 12))),
        "a.npz",
        "probability file",
    ),
    "no case": (lambda p: (p / "a.nii.gz").unlink(), "predictions", "no predictions"),
    "no folder": (shutil.rmtree, "predictions", "no such folder"),
}


@pytest.mark.parametrize("fault", BAD_PREDICTIONS)
def test_bad_predictions_are_not_fused(fault, predictions, home, capsys):
    spoil, named, reason = BAD_PREDICTIONS[fault]
    spoil(predictions)
    arguments = ("-i", predictions, "-d", 5, "-o", home / "out")
    assert reason in assert_refused(capsys, named, fuse, *arguments)
    assert not (home / "out").exists()


def test_predictions_of_a_data_set_that_is_not_there(predictions, home, capsys):
    line = assert_refused(capsys, "id 6", fuse, "-i", predictions, "-d", 6, "-o", home / "out")
    assert str(home / "nnUNet_raw") in line


def test_predictions_are_not_replaced_by_their_fusion(predictions, capsys):
    before = (predictions / "a.nii.gz").read_bytes()
    assert_refused(capsys, predictions, fuse, "-i", predictions, "-d", 5, "-o", predictions)
    assert (predictions / "a.nii.gz").read_bytes() == before


def test_debug_shows_the_traceback(home):
    from nnunetv2_mip.errors import MipError

    with pytest.raises(MipError, match="nowhere"):
        project.main(["--debug", "-i", str(home / "nowhere.nii.gz"), "-o", str(home / "v")])


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("predict", ["-i", "a.png", "-m", "model", "-o"]),
        ("project", ["-i", "suv.nii.gz", "-o"]),
        ("fuse", ["-i", "views", "-o"]),
        ("fuse", ["-i", "output", "-d", "7", "-o"]),
        ("evaluate", ["-p", "a", "-g", "b", "-o"]),
        ("phantom", ["-n", "1", "-o"]),
        ("export_model", ["-m", "model", "-f", "0", "-o"]),
    ],
)
def test_an_output_below_a_file_is_refused_before_the_work(
    command, arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    module = importlib.import_module(f"nnunetv2_mip.commands.{command}")
    with pytest.raises(SystemExit) as ended:
        module.main([*arguments, "file/out.json"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert Path("file").read_text() == "mine"


def test_env_below_a_file_is_refused(tmp_path, capsys):
    from nnunetv2_mip.commands import env

    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        env.main(["--base", str(tmp_path / "file")])
    assert ended.value.code == 2
    assert "is a file" in capsys.readouterr().err


def test_a_disk_that_says_no_is_one_line(capsys):
    from nnunetv2_mip.commands._cli import new_parser, run_command

    def full(args):
        raise OSError(errno.ENOSPC, "No space left on device", "masks/a.nii.gz")

    with pytest.raises(SystemExit) as ended:
        run_command(new_parser("tool", "does"), full, [])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tool: error: masks/a.nii.gz: ")
    assert "No space left on device" in line


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_a_number_of_workers_that_is_none(count, capsys):
    from nnunetv2_mip.commands import convert_autopet

    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", ".", "-d", "5", "-np", count])
    assert ended.value.code == 2
    assert "-np" in capsys.readouterr().err


def test_a_stack_of_views_is_no_volume_to_project(tmp_path, capsys):
    from nnunetv2_mip.commands import project
    from nnunetv2_mip.views.stack_files import write_stack

    write_stack(np.ones((3, 4, 5), np.float32), (1000.0, 2.0, 2.0), tmp_path / "suv.nii.gz")
    with pytest.raises(SystemExit) as ended:
        project.main(["-i", str(tmp_path / "suv.nii.gz"), "-o", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "is a stack of views already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ignored_pixels_cannot_be_fused(tmp_path, capsys):
    from nnunetv2_mip.commands import fuse, project
    from nnunetv2_mip.io.volumes import write_volume
    from nnunetv2_mip.phantom.subject import simulate_subject
    from nnunetv2_mip.views.stack_files import read_stack, write_stack

    study = simulate_subject(0, 38, 12.0)
    write_volume(study.suv, study.grid, tmp_path / "suv.nii.gz")
    write_volume(study.seg, study.grid, tmp_path / "seg.nii.gz")
    views = tmp_path / "views"
    options = ["--views", "2", "--labels", "ignore", "--seg", str(tmp_path / "seg.nii.gz")]
    with pytest.raises(SystemExit) as ended:
        project.main(["-i", str(tmp_path / "suv.nii.gz"), "-o", str(views), *options])
    assert ended.value.code == 0
    stack, spacing = read_stack(views / "seg.nii.gz")
    stack = stack.copy()
    stack[0, 3, 3] = 2
    write_stack(stack, spacing, views / "seg.nii.gz")
    with pytest.raises(SystemExit) as ended:
        fuse.main(["-i", str(views), "-o", str(tmp_path / "mask.nii.gz")])
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert "ignore label 2" in line
    assert "labelsTr_projected" in line


def test_links_to_folders_are_followed_once(tmp_path):
    from nnunetv2_mip.files import files_below

    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "far" / "inner" / "b").touch()
    (tmp_path / "far" / "inner" / "round").symlink_to(tmp_path / "far")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").touch()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "far")
    found = [path.relative_to(tmp_path / "tree") for path in files_below(tmp_path / "tree")]
    assert found == [Path("a"), Path("link/inner/b")]
