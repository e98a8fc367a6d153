"""Contents of the wheel, entry points, quick help."""

import ast
import re
import runpy
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from helpers import ROOT, source_files

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


def test_an_installed_wheel_works_without_the_checkout(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from nnunetv2_mip.nnunet.paths import trainers_folder;"
        "from nnunetv2_mip.commands import env;"
        "print(trainers_folder()); env.main([])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[0])
    assert folder == tmp_path / "site" / "nnunetv2_mip" / "trainers"
    assert str(folder) in done.stdout.split("\n", 1)[1]


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
