"""`nnUNetv2_mip_info`: what is installed, as text and as JSON."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import assert_refused, run

from nnunetv2_mip import __version__
from nnunetv2_mip.commands import _installation, info
from nnunetv2_mip.nnunet.paths import trainers_folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")
    (folder / "LICENSE").write_text("Title\n\nFor tests\nalone.\n")
    return folder


def found(capsys, *options: object) -> dict:
    assert run(info, "--json", *options) == 0
    return json.loads(capsys.readouterr().out)


def test_json_has_versions_licences_and_sums(capsys, model):
    content = found(capsys, "-m", model)
    assert content["versions"]["nnunetv2-mip"] == __version__
    import numpy

    assert content["versions"]["numpy"] == numpy.__version__
    own = content["models"][-1]
    assert own == {
        "folder": str(model),
        "licence": "LICENSE: For tests alone.",
        "sha256": {"fold_0/checkpoint_final.pth": hashlib.sha256(b"weights").hexdigest()},
    }
    assert "cpu" in content["devices"]["usable"]
    assert set(content["cpu"]["features"]) == set(_installation.CPU_FEATURES)


def test_text_names_what_json_names(capsys, model):
    assert run(info, "-m", model) == 0
    text = capsys.readouterr().out
    for word in (__version__, str(model), hashlib.sha256(b"weights").hexdigest(), "not set"):
        assert word in text


def test_a_missing_extra_is_told_with_its_installation(capsys, monkeypatch):
    plain = _installation._version

    def without_openvino(name: str) -> str | None:
        return None if name == "openvino" else plain(name)

    monkeypatch.setattr(_installation, "_version", without_openvino)
    assert found(capsys)["extras"]["serve"]["missing"] == ["openvino"]
    assert run(info) == 0
    out = capsys.readouterr().out
    assert 'lacks openvino: pip install "nnunetv2-mip[serve]"' in out
    assert not {"test", "dev"} & set(found(capsys)["extras"])


def test_trainers_are_found_where_nnunet_looks(capsys, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert not found(capsys)["trainers"]["found_by_nnunet"]
    monkeypatch.setenv("nnUNet_extTrainer", f"/nowhere{os.pathsep}{trainers_folder()}")
    assert found(capsys)["trainers"]["found_by_nnunet"]
    monkeypatch.setenv("nnUNet_compile", "f")
    assert found(capsys)["environment"]["nnUNet_compile"] == "f"


def test_a_model_folder_that_is_not_there_is_refused(capsys, tmp_path):
    assert_refused(capsys, tmp_path / "none", info, "-m", tmp_path / "none")


def test_neither_torch_nor_nnunet_is_imported():
    code = (
        "import sys\n"
        "from nnunetv2_mip.commands._installation import installation\n"
        "installation()\n"
        "print({'torch', 'nnunetv2', 'numpy', 'openvino'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "none\n"


def test_a_reader_that_leaves_gets_no_traceback():
    code = "import time; time.sleep(1); from nnunetv2_mip.commands.info import main; main([])"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141
    process.stderr.close()
