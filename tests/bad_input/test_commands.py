"""Outputs that cannot be written, options that make no sense, `--debug`."""

import errno
import importlib
from pathlib import Path

import numpy as np
import pytest
from bad_input.inputs import STUDY
from helpers import assert_refused, paths_below

from nnunetv2_mip.commands import convert_autopet, env, project


def test_project_does_not_replace_its_inputs(inputs, capsys):
    study = inputs / STUDY
    (study / "SUV.nii.gz").rename(study / "suv.nii.gz")
    before = (study / "suv.nii.gz").read_bytes()
    source = study / "suv.nii.gz"
    line = assert_refused(capsys, study, project, "-i", source, "-o", study)
    assert "is not empty" in line
    assert source.read_bytes() == before
    assert paths_below(study) == {"suv.nii.gz", "SEG.nii.gz"}
    line = assert_refused(capsys, source, project, "-i", source, "-o", source)
    assert "is a file" in line
    assert source.read_bytes() == before


def test_debug_shows_the_traceback(inputs):
    from nnunetv2_mip.errors import MipError

    with pytest.raises(MipError, match="nowhere"):
        project.main(["--debug", "-i", str(inputs / "nowhere.nii.gz"), "-o", str(inputs / "v")])


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
    with pytest.raises(SystemExit) as ended:
        convert_autopet.main(["-i", ".", "-d", "5", "-np", count])
    assert ended.value.code == 2
    assert "-np" in capsys.readouterr().err


def test_a_stack_of_views_is_no_volume_to_project(tmp_path, capsys):
    from nnunetv2_mip.views.stack_files import write_stack

    write_stack(np.ones((3, 4, 5), np.float32), (1000.0, 2.0, 2.0), tmp_path / "suv.nii.gz")
    with pytest.raises(SystemExit) as ended:
        project.main(["-i", str(tmp_path / "suv.nii.gz"), "-o", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "is a stack of views already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
