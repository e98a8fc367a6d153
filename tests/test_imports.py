"""Import contracts of pyproject.toml, checked on the package as it is installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_mip

ROOT = Path(nnunetv2_mip.__file__).parent.parent
MAPPED = ("dataset_conversion", "trainers", "plans")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the sources in the folders of an installation, with pyproject.toml beside it."""
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no source tree")
    only_python = shutil.ignore_patterns("__pycache__", "models", "static", "*.json")
    package = tmp_path / "nnunetv2_mip"
    shutil.copytree(ROOT / "nnunetv2_mip", package, ignore=only_python)
    for name in MAPPED:
        shutil.copytree(ROOT / name, package / name, ignore=only_python)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return package


def lint(package: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=package.parent,
        check=False,
    )


def test_the_import_contracts_hold(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imported", "message"),
    [
        (
            "io/png.py",
            "nnunetv2_mip.fusion.rules",
            "nnunetv2_mip.io.png -> nnunetv2_mip.fusion.rules",
        ),
        ("fusion/rules.py", "torch", "fusion.rules -> torch"),
        ("report/page.py", "nnunetv2", "report.page -> nnunetv2"),
        (
            "trainers/nnUNetTrainerMIP.py",
            "nnunetv2_mip.dataset_conversion.autopet",
            "nnunetv2_mip.trainers is not allowed to import nnunetv2_mip.dataset_conversion",
        ),
        ("views/geometry.py", "nnunetv2_mip.views.labels", ".geometry -> .labels"),
        ("telemetry.py", "json", "not listed as layers: - nnunetv2_mip.telemetry"),
    ],
)
def test_a_wrong_import_breaks_a_contract(copy, module, imported, message):
    path = copy / module
    text = path.read_text("utf-8") if path.is_file() else ""
    path.write_text(f"{text}\n\ndef late():\n    import {imported}\n", "utf-8")
    done = lint(copy)
    assert done.returncode == 1
    assert message in " ".join(done.stdout.split())


@pytest.mark.slow
def test_packages_without_torch_load_none_through_third_parties(copy):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or later")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    packages = next(c["source_modules"] for c in contracts if "without torch" in c["name"])
    files = [path for name in packages for path in _files_of(copy.parent / name.replace(".", "/"))]
    assert len(files) > len(packages)
    modules = [".".join(path.relative_to(copy.parent).with_suffix("").parts) for path in files]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'nnunetv2') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def _files_of(package: Path) -> list[Path]:
    if not package.is_dir():
        return [package.with_suffix(".py")]
    return [path for path in package.rglob("*.py") if path.name != "__init__.py"]
