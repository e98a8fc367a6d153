"""Contents of the wheel, entry points, quick help."""

import ast
import json
import os
import re
import runpy
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from helpers import ROOT, save_png, source_files

import nnunetv2_mip

SOURCES = ("nnunetv2_mip/", "dataset_conversion/", "trainers/", "plans/")
COMMANDS = sorted(path.stem for path in (ROOT / "nnunetv2_mip" / "commands").glob("[a-z]*.py"))


def test_the_wheel_holds_every_file_of_the_sources(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"nnunetv2_mip", f"nnunetv2_mip-{nnunetv2_mip.__version__}.dist-info"}
    tracked = {
        path if path.startswith("nnunetv2_mip/") else f"nnunetv2_mip/{path}"
        for path in source_files()
        if path.startswith(SOURCES)
    }
    installed = {name for name in names if name.startswith("nnunetv2_mip/")}
    assert tracked == installed
    assert {Path(name).suffix for name in tracked} >= {".py", ".json", ".js", ".css", ".html"}
    assert "nnunetv2_mip/plans/default.json" in installed
    assert "nnunetv2_mip/models/mip_pet/NOTICE" in installed


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Folder with the commands of the installed wheel, in an environment of its own.

    The environment has the libraries of this one, but not the checkout: nothing is downloaded.
    """
    base = tmp_path_factory.mktemp("installed")
    venv.create(base / "venv", with_pip=False)
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own,) = (base / "venv").rglob("site-packages")
    (own / "libraries.pth").write_text("\n".join(libraries))
    commands = base / "venv" / ("Scripts" if os.name == "nt" else "bin")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(commands / "python"), "install"]
        + ["-q", "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (own / "nnunetv2_mip" / "trainers" / "nnUNetTrainerMIP.py").is_file()
    return commands


def run_installed(commands: Path, words: list[str], folder: Path, **variables) -> str:
    """What a command of the installed wheel prints, called in `folder`."""
    hidden = ("PYTHONPATH", "nnUNet_extTrainer", "COVERAGE_PROCESS_START")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(commands / words[0]), *words[1:]],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**environment, **variables},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Stock nnU-Net's search for trainers imports libraries that warn.
    assert done.stderr == "" or words[0] == "python"
    return done.stdout


def test_the_installed_wheel_tells_its_version_and_model(installed, tmp_path):
    state = json.loads(run_installed(installed, ["nnUNetv2_mip_info", "--json"], tmp_path))
    assert state["versions"]["nnunetv2-mip"] == nnunetv2_mip.__version__
    folders = [Path(model["folder"]) for model in state["models"]]
    assert folders and all(folder.is_relative_to(installed.parent) for folder in folders)


def test_the_installed_wheel_segments_a_png(installed, tmp_path):
    levels = np.full((96, 64), 255, np.uint8)
    levels[8:-8, 16:-16] = 200
    levels[40:50, 28:36] = 0
    save_png(levels, tmp_path / "image.png")
    words = ["nnUNetv2_mip_predict", "-i", "image.png", "-o", "mask.png", "-device", "cpu"]
    assert "mask.png: 1 mask written" in run_installed(installed, words, tmp_path)
    mask = imageio.imread(tmp_path / "mask.png")
    assert mask.shape == levels.shape and set(np.unique(mask)) <= {0, 255}


def test_nnunet_finds_the_trainers_of_the_installed_wheel(installed, tmp_path):
    exports = run_installed(installed, ["nnUNetv2_mip_env", "--base", "nnunet"], tmp_path)
    folder = re.search(r"nnUNet_extTrainer=['\"]?([^'\"\n;]+)", exports)[1]
    assert Path(folder) == next(installed.parent.rglob("nnunetv2_mip")) / "trainers"
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print([find(name).__name__ for name in ('nnUNetTrainerMIP', 'nnUNetTrainerMIP_recipe')])"
    )
    names = run_installed(installed, ["python", "-c", code], tmp_path, nnUNet_extTrainer=folder)
    assert names.splitlines()[-1] == "['nnUNetTrainerMIP', 'nnUNetTrainerMIP_recipe']"


def test_the_root_of_the_repository_does_not_hide_packages_of_an_installation():
    """There, Python takes the folder `nnunetv2_mip` before an installation that is not editable."""
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no source tree")
    code = (
        "import sys; sys.path[0] = '.'\n"
        "import nnunetv2_mip.trainers, nnunetv2_mip.plans, nnunetv2_mip.dataset_conversion\n"
        "print(nnunetv2_mip.trainers.__file__)"
    )
    # -S: without site-packages there is no finder of an editable installation.
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).resolve() == ROOT / "trainers" / "__init__.py"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(command):
    heavy = ["torch", "nnunetv2", "numba", "scipy", "matplotlib"]
    if command not in ("convert_autopet", "project"):
        # These two take the defaults of their options from the settings of the views.
        heavy.append("SimpleITK")
    code = (
        "import sys, contextlib, io\n"
        f"from nnunetv2_mip.commands import {command} as command\n"
        "parser = command.build_parser()\n"
        "assert parser.prog == 'nnUNetv2_mip_' + sys.argv[1], parser.prog\n"
        "text = parser.format_help()\n"
        "assert '--debug' in text\n"
        "print([n for n in sys.argv[2:] if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, *heavy], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def declared(monkeypatch) -> dict:
    """Keywords of the call of `setup` in setup.py."""
    setuptools = pytest.importorskip("setuptools")
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no setup.py to read")
    keywords = {}
    monkeypatch.setattr(setuptools, "setup", keywords.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return keywords


def distribution(requirement: str) -> str:
    name = re.match(r"[\w.-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def third_party_imports() -> set[str]:
    """Top-level names that the package imports, at the top of a file or within a function."""
    names = set()
    for path in source_files():
        if not path.startswith(SOURCES) or not path.endswith(".py"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"nnunetv2_mip"}


def test_what_is_imported_is_declared_and_nothing_else(monkeypatch):
    keywords = declared(monkeypatch)
    base = {distribution(line) for line in keywords["install_requires"]}
    optional = {
        distribution(line)
        for extra in ("dicom", "dask", "serve", "study")
        for line in keywords["extras_require"][extra]
    }
    installed = packages_distributions()
    imported = {
        name: {distribution(found) for found in installed.get(name, [name])}
        for name in third_party_imports()
    }
    undeclared = sorted(n for n, found in imported.items() if not found & (base | optional))
    assert not undeclared
    unused = (base | optional) - set().union(*imported.values())
    assert not unused
    assert not base & optional


def test_every_command_is_an_entry_point(monkeypatch):
    scripts = declared(monkeypatch)["entry_points"]["console_scripts"]
    assert sorted(scripts) == [
        f"nnUNetv2_mip_{name} = nnunetv2_mip.commands.{name}:main" for name in COMMANDS
    ]
