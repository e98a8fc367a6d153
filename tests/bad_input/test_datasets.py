"""Data set ids, names and settings that cannot be used, and nnUNet_raw that is no folder."""

import pytest
from bad_input.inputs import PICTURE, seg_array
from helpers import assert_refused, paths_below, run, write_image

from nnunetv2_mip.commands import convert_autopet, convert_dmiai, fuse, predict

CONVERTERS = [(convert_autopet, "tree"), (convert_dmiai, "png")]


@pytest.mark.parametrize(("command", "source"), CONVERTERS)
@pytest.mark.parametrize("value", [None, "", "a file"])
def test_nnunet_raw_that_is_no_folder(value, command, source, inputs, capsys, monkeypatch):
    if value is None:
        monkeypatch.delenv("nnUNet_raw")
    elif value == "":
        monkeypatch.setenv("nnUNet_raw", "")
    else:
        (inputs / "file").write_text("mine")
        monkeypatch.setenv("nnUNet_raw", str(inputs / "file"))
    line = assert_refused(capsys, "nnUNet_raw", command, "-i", inputs / source, "-d", 1)
    if not value:
        assert "nnUNetv2_mip_env" in line
    assert paths_below(inputs / "nnUNet_raw") == set()


def test_unset_variables_of_the_other_commands(inputs, capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    monkeypatch.delenv("nnUNet_raw")
    arguments = ("-i", inputs / PICTURE, "-o", inputs / "out", "-d", 1)
    assert_refused(capsys, "nnUNet_results", predict, *arguments)
    (inputs / "predictions").mkdir()
    write_image(seg_array(), inputs / "predictions" / "a.nii.gz")
    arguments = ("-i", inputs / "predictions", "-o", inputs / "out", "-d", 1)
    assert_refused(capsys, "nnUNet_raw", fuse, *arguments)
    assert not (inputs / "out").exists()


@pytest.mark.parametrize("place", ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"])
@pytest.mark.parametrize(("command", "source"), CONVERTERS)
def test_an_id_that_is_taken(command, source, place, inputs, capsys):
    taken = inputs / place / "Dataset007_Mine"
    taken.mkdir()
    (taken / "dataset.json").write_text("{}")
    before = paths_below(inputs)
    line = assert_refused(capsys, taken, command, "-i", inputs / source, "-d", 7)
    assert "id 7 exists already" in line
    assert paths_below(inputs) == before


def test_a_finished_data_set_is_not_converted_again(inputs, capsys):
    arguments = ("-i", inputs / "png", "-d", 1)
    assert run(convert_dmiai, *arguments) == 0
    folder = inputs / "nnUNet_raw" / "Dataset001_DMIAI"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert_refused(capsys, folder, convert_dmiai, *arguments)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("-d", 0), "-d 0"),
        (("-d", 1000), "-d 1000"),
        (("-d", 1, "-n", "my data"), "--name 'my data'"),
        (("-d", 1, "-n", "a__b"), "--name 'a__b'"),
        (("-d", 1, "-n", "../x"), "--name '../x'"),
    ],
)
@pytest.mark.parametrize(("command", "source"), CONVERTERS)
def test_names_and_ids_that_nnunet_cannot_use(command, source, options, named, inputs, capsys):
    assert_refused(capsys, named, command, "-i", inputs / source, *options)
    assert paths_below(inputs / "nnUNet_raw") == set()


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
def test_view_settings_that_make_no_sense(options, named, inputs, capsys):
    arguments = ("-i", inputs / "tree", "-d", 1, *options)
    assert_refused(capsys, named, convert_autopet, *arguments)
    assert paths_below(inputs / "nnUNet_raw") == set()
