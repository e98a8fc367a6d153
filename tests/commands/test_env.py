import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_mip.commands import env
from nnunetv2_mip.nnunet.paths import trainers_folder

NAMES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer")
OURS = str(trainers_folder().resolve())
AWKWARD = """/data/it's "two" $HOME `x` \\ folders; 50%"""


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        env.main(list(arguments))
    assert left.value.code == 0
    return capsys.readouterr().out


def test_defaults_lie_below_the_base(capsys, tmp_path):
    lines = printed(capsys, "--base", str(tmp_path), "--shell", "bash").splitlines()
    assert lines == [
        f"export nnUNet_raw={tmp_path}/nnUNet_raw",
        f"export nnUNet_preprocessed={tmp_path}/nnUNet_preprocessed",
        f"export nnUNet_results={tmp_path}/nnUNet_results",
        f"export nnUNet_extTrainer={OURS}",
    ]


def test_relative_bases_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    values = env.variables(Path("data"), {})
    assert values["nnUNet_raw"] == str(tmp_path / "data" / "nnUNet_raw")


def test_what_is_set_stays(tmp_path):
    values = env.variables(tmp_path, {"nnUNet_raw": "/mine", "nnUNet_results": ""})
    assert values["nnUNet_raw"] == "/mine"
    assert values["nnUNet_results"] == str(tmp_path / "nnUNet_results")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", [OURS]),
        ("/other", [OURS, "/other"]),
        (OURS, [OURS]),
        (os.pathsep.join(["/other", OURS]), [OURS, "/other"]),
    ],
)
def test_our_trainers_come_first_and_once(before, after, tmp_path):
    values = env.variables(tmp_path, {"nnUNet_extTrainer": before})
    assert values["nnUNet_extTrainer"].split(os.pathsep) == after


def test_trainers_of_another_installation_are_dropped(tmp_path):
    """nnU-Net would take its classes, which have the same names."""
    (tmp_path / "nnUNetTrainerMIP.py").touch()
    before = os.pathsep.join([str(tmp_path), "/other"])
    values = env.variables(tmp_path, {"nnUNet_extTrainer": before})
    assert values["nnUNet_extTrainer"].split(os.pathsep) == [OURS, "/other"]


def test_the_trainers_folder_is_the_installed_one():
    assert (Path(OURS) / "nnUNetTrainerMIP.py").is_file()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_reads_awkward_folders_back(capsys, monkeypatch, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    monkeypatch.setenv("nnUNet_raw", AWKWARD)
    script = printed(capsys, "--shell", shell)
    clean = {"PATH": os.environ["PATH"], "HOME": "/nowhere"}
    show = f"'{sys.executable}' -c 'import os; print(os.environ[\"nnUNet_raw\"])'"
    answer = subprocess.run(
        [shell, "-c", f"{script}\n{show}"], env=clean, capture_output=True, text=True, check=True
    )
    assert answer.stdout == AWKWARD + "\n"


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("fish", "set -gx nnUNet_raw '/it\\'s \\\\ 50% ’'"),
        ("powershell", "$env:nnUNet_raw = '/it''s \\ 50% ’’'"),
        ("cmd", 'set "nnUNet_raw=/it\'s \\ 50%% ’"'),
    ],
)
def test_quoting(capsys, monkeypatch, shell, line):
    monkeypatch.setenv("nnUNet_raw", "/it's \\ 50% ’")
    assert printed(capsys, "--shell", shell).splitlines()[0] == line


def test_a_folder_that_no_shell_can_read(capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "/two\nlines")
    with pytest.raises(SystemExit) as left:
        env.main([])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nnUNet_raw" in captured.err


def test_it_answers_without_importing_nnunet():
    script = (
        "import sys; from nnunetv2_mip.commands import env\n"
        "try: env.main([])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'nnunetv2', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL).returncode == 0
