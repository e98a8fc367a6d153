"""What an installation holds, and which way imports point."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nnunetv2_mip

ROOT = Path(nnunetv2_mip.__file__).parent.parent
CORE = [
    "classification.classifier",
    "classification.calibration",
    "classification.evaluation",
    "classification.head",
    "classification.inputs",
    "classification.metrics",
    "classification.shortcuts",
    "classification.splits",
    "classification.table",
    "classification.training",
    "challenge_run",
    "click_fusion",
    "clicks",
    "dicom_pet",
    "dicom_seg",
    "dicom_series",
    "dicom_suv",
    "efficiency.plots",
    "efficiency.scores",
    "efficiency.tables",
    "errors",
    "evaluation",
    "files",
    "fusion",
    "fusion_jobs",
    "fusion_rules",
    "geometry",
    "grand_challenge",
    "locked_down",
    "simulated_clicks",
    "time_budget",
    "calibration",
    "inference_config",
    "masks",
    "matching",
    "metrics",
    "nifti",
    "nnunet_paths",
    "pet_input",
    "phantom",
    "pictures",
    "png",
    "prefilter",
    "projection",
    "region_table",
    "report.page",
    "scale",
    "splits",
    "training_splits",
    "sprites",
    "stacks",
    "studies",
    "volumes",
    "watch",
]
COMMANDS = sorted(path.stem for path in (ROOT / "nnunetv2_mip" / "commands").glob("[a-z]*.py"))


def test_the_wheel_holds_the_mapped_folders_and_their_json(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"nnunetv2_mip", f"nnunetv2_mip-{nnunetv2_mip.__version__}.dist-info"}
    for expected in (
        "nnunetv2_mip/trainers/nnUNetTrainerMIP.py",
        "nnunetv2_mip/plans/cpu.json",
        "nnunetv2_mip/plans/default.json",
        "nnunetv2_mip/plans/cpu_3mm.json",
        "nnunetv2_mip/trainers/nnUNetTrainerMIP_recipe.py",
        "nnunetv2_mip/dataset_conversion/autopet.py",
        "nnunetv2_mip/service/app.py",
        "nnunetv2_mip/service/static/index.html",
        "nnunetv2_mip/service/static/page.js",
        "nnunetv2_mip/visualization/static/turntable.js",
        "nnunetv2_mip/report/static/report.css",
        "nnunetv2_mip/report/static/report.js",
        "nnunetv2_mip/report/static/case_report.css",
        "nnunetv2_mip/report/templates/page.html",
        "nnunetv2_mip/report/templates/case_report.html",
    ):
        assert expected in names
    # Whatever models the source has, with their cards and notices.
    models = ROOT / "nnunetv2_mip" / "models"
    shipped = {
        f"nnunetv2_mip/models/{path.relative_to(models).as_posix()}"
        for path in models.rglob("*")
        if path.is_file()
    }
    assert shipped <= set(names)


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


def test_the_core_needs_neither_torch_nor_nnunet():
    modules = ", ".join(f"nnunetv2_mip.{name}" for name in CORE)
    code = (
        f"import sys; import {modules};"
        "print([name for name in ('torch', 'nnunetv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_heavy_imports(command):
    code = (
        "import sys, contextlib, io\n"
        f"from nnunetv2_mip.commands import {command} as command\n"
        "parser = command.build_parser()\n"
        "assert parser.prog == 'nnUNetv2_mip_' + sys.argv[1], parser.prog\n"
        "text = parser.format_help()\n"
        "assert '--debug' in text\n"
        "print([n for n in ('torch', 'nnunetv2', 'numba', 'scipy', 'matplotlib')"
        " if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_command_is_an_entry_point():
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no setup.py to read")
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    listed = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "COMMANDS"
    )
    assert sorted(listed) == COMMANDS


def test_imports_point_one_way():
    """Library modules import no converter, trainer, planner or command."""
    outside = ("dataset_conversion", "trainers", "plans", "commands")
    package = ROOT / "nnunetv2_mip"
    library = [p for part in (".", "service", "report") for p in (package / part).glob("*.py")]
    for path in sorted(library):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                for folder in outside:
                    assert not name.startswith(f"nnunetv2_mip.{folder}"), (path.name, name)
