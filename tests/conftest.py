"""What several test modules share: a tiny MIP data set and a model trained on it.

The data set and the model are made once a run, by the plugin's own command and nnU-Net's own entry
points. `tiny` gives the folders, with nnU-Net's variables set for the test; `tiny_model` the
folder of the trained model.
"""

import base64
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

# nnU-Net reads these when it is imported: one export process, augmentation in the main process.
os.environ["nnUNet_def_n_proc"] = "1"
os.environ["nnUNet_n_proc_DA"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import hypothesis
import numpy as np
import pytest
import SimpleITK as sitk

import nnunetv2_mip

# A machine with other work needs longer for an example than the deadline of 0.2 s.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
pytest.register_assert_rewrite("helpers")

# Words in the reasons of skipped tests that would have tried an attack or a sandbox.
SECURITY_WORDS = ("bubblewrap", "Chromium", "playwright")
# Fixtures that take longer than about a second and a half: a wheel, a trained classifier. The tiny
# model is not among them: most tests need it.
SLOW_FIXTURES = {"sdist", "wheel", "trained"}
CHROMIUM_FLAGS = ("--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage")
TINY_PRESET = {
    "finest_spacing_mm": [4, 4],
    "max_patch_px": [32, 32],
    "max_batch_size": 2,
    "features_per_stage": [4, 8, 8],
    "convs_per_stage": 1,
    "vram_gb": 8,
}
TINY_TRAINER = """
from nnunetv2_mip.trainers.nnUNetTrainerMIP import nnUNetTrainerMIP


class nnUNetTrainerMIP_tiny(nnUNetTrainerMIP):
    epochs = 2
    iterations_per_epoch = 4
    val_iterations_per_epoch = 1
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Markers by fixtures: `browser` for that of this name, `slow` for those of SLOW_FIXTURES."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if "browser" in used:
            item.add_marker("browser")
        if used & SLOW_FIXTURES:
            item.add_marker("slow")


def pytest_terminal_summary(terminalreporter) -> None:
    """The security tests that were skipped, so that a green run does not hide it."""
    skipped = terminalreporter.stats.get("skipped", [])
    missed = [r.nodeid for r in skipped if any(w in str(r.longrepr) for w in SECURITY_WORDS)]
    if missed:
        terminalreporter.section("security tests that did not run", yellow=True)
        for name in missed:
            terminalreporter.write_line(name)


@dataclass(frozen=True)
class Tiny:
    """The tiny data set: two folds, three patients, one healthy, one with two studies."""

    base: Path
    number: int = 901
    name: str = "Dataset901_Tiny"
    plans: str = "nnUNetMIPPlans_tiny"
    trainer: str = "nnUNetTrainerMIP_tiny"

    @property
    def raw(self) -> Path:
        return self.base / "nnUNet_raw" / self.name

    @property
    def preprocessed(self) -> Path:
        return self.base / "nnUNet_preprocessed" / self.name

    @property
    def results(self) -> Path:
        return self.base / "nnUNet_results" / self.name

    @property
    def model(self) -> Path:
        return self.results / f"{self.trainer}__{self.plans}__2d"

    @property
    def preset(self) -> Path:
        return self.base / "tiny.json"

    @property
    def environment(self) -> dict[str, str]:
        folders = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {
            **{folder: str(self.base / folder) for folder in folders},
            "nnUNet_extTrainer": str(self.base / "trainers"),
        }


def write_tiny_dataset(raw: Path) -> None:
    """A raw data set as the converters write it: four stacks of three views, 4 mm pixels."""
    rng = np.random.default_rng(0)
    patients = {"ann_1": "ann", "ann_2": "ann", "bob_1": "bob", "eve_1": "eve"}
    has_lesion = {case: patient != "eve" for case, patient in patients.items()}
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for case, lesion in has_lesion.items():
        levels = rng.integers(20, 60, (3, 44, 36)).astype(np.uint8)
        label = np.zeros_like(levels)
        if lesion:
            label[:, 12:20, 10:16] = 1
            levels[label == 1] = 220
        for path, array in (
            (raw / "imagesTr" / f"{case}_0000.nii.gz", levels),
            (raw / "labelsTr" / f"{case}.nii.gz", label),
        ):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((4.0, 5.0, 1000.0))
            sitk.WriteImage(image, str(path))
    splits = [
        {"train": ["bob_1", "eve_1"], "val": ["ann_1", "ann_2"]},
        {"train": ["ann_1", "ann_2"], "val": ["bob_1", "eve_1"]},
    ]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    content = {
        "channel_names": {"0": "suv"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(patients),
        "file_ending": ".nii.gz",
        "name": "Tiny",
        "mip": {
            "format_version": 1,
            "source": "autopet",
            "channels": ["suv"],
            "window_suv": 8.0,
            "pixel_mm": None,
            "views": 3,
            "arc_deg": 180.0,
            "start_deg": 0.0,
            "labels": "projected",
            "patients": patients,
            "has_lesion": has_lesion,
            "intensity": {"suv": {"mean": 42.0, "std": 50.0, "low": 0.0, "high": 255.0}},
        },
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def make_tiny(base: Path) -> Tiny:
    """Write the data set, its preset and its trainer below `base`."""
    tiny = Tiny(base)
    write_tiny_dataset(tiny.raw)
    tiny.preset.write_text(json.dumps(TINY_PRESET))
    (base / "trainers").mkdir()
    (base / "trainers" / f"{tiny.trainer}.py").write_text(TINY_TRAINER)
    return tiny


@pytest.fixture(scope="session")
def tiny_trained(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Converted, planned, preprocessed and trained (fold 0). Read it, do not change it.

    Workers of pytest-xdist share the one that the first of them makes.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return make_tiny_trained(tmp_path_factory.mktemp("tiny"))
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp().parent / "tiny"
    with FileLock(base.with_suffix(".lock")):
        finished = base / "finished"
        if not finished.exists():
            # What a worker left that failed.
            shutil.rmtree(base, ignore_errors=True)
            base.mkdir()
            make_tiny_trained(base)
            finished.touch()
    return Tiny(base)


def make_tiny_trained(base: Path) -> Tiny:
    """Plan, preprocess and train the tiny data set below `base`, which exists."""
    from nnunetv2_mip.commands import plan_and_preprocess

    tiny = make_tiny(base)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny.environment.items():
            patch.setenv(name, value)
        arguments = ["-d", str(tiny.number), "--preset", str(tiny.preset), "-np", "1"]
        with pytest.raises(SystemExit) as planned:
            plan_and_preprocess.main(arguments)
        assert planned.value.code == 0
        train(tiny, fold=0)
    return tiny


def train(tiny: Tiny, fold: int | str, trainer: str | None = None) -> None:
    """What `nnUNetv2_train … -device cpu` does, the same way each time."""
    import torch
    from nnunetv2.run.run_training import run_training

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

    run_training(
        str(tiny.number),
        "2d",
        fold,
        trainer or tiny.trainer,
        tiny.plans,
        device=torch.device("cpu"),
    )


@pytest.fixture
def tiny(tiny_trained: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """The trained data set with nnU-Net's variables set. Read it, do not change it."""
    for name, value in tiny_trained.environment.items():
        monkeypatch.setenv(name, value)
    yield tiny_trained


@pytest.fixture
def tiny_model(tiny: Tiny) -> Path:
    """Model folder of the trained network (fold 0), with nnU-Net's variables set."""
    return tiny.model


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """A fresh raw data set of the test's own, with nnU-Net's variables set."""
    tiny = make_tiny(tmp_path / "nnunet")
    for name, value in tiny.environment.items():
        monkeypatch.setenv(name, value)
    return tiny


@pytest.fixture
def with_trainer(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Tiny]:
    """Makes a copy of the preprocessed tiny data with a trainer of the test's own."""

    def make(name: str, source: str) -> Tiny:
        for folder in ("nnUNet_preprocessed", "nnUNet_raw"):
            shutil.copytree(tiny.base / folder, tmp_path / folder)
        (tmp_path / "trainers").mkdir()
        own = replace(tiny, base=tmp_path, trainer=name)
        (tmp_path / "trainers" / f"{name}.py").write_text(source)
        for variable, value in own.environment.items():
            monkeypatch.setenv(variable, value)
        return own

    return make


@pytest.fixture
def run_nnunet_training() -> Callable[..., None]:
    return train


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty nnUNet_raw."""
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return tmp_path / "raw"


@dataclass(frozen=True)
class Service:
    """A running service: the tiny network behind real sockets, in this process."""

    url: str
    app: object

    @property
    def queue(self):
        return self.app.state.queue

    def post(self, body: bytes, path: str = "/predict", **headers):
        import httpx

        headers = {"Content-Type": "application/json", **headers}
        return httpx.post(self.url + path, content=body, headers=headers, timeout=60)

    def predict(self, image: bytes, path: str = "/predict"):
        text = base64.b64encode(image).decode()
        return self.post(json.dumps({"img": text}).encode(), path)


@contextmanager
def running_service(predictor, settings) -> Iterator[Service]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    import uvicorn

    from nnunetv2_mip.service.app import create_app

    app = create_app(predictor, settings, "tiny")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, log_config=None, access_log=False, http="h11", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            for _ in range(200):
                if server.started:
                    break
                time.sleep(0.05)
            yield Service(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        finally:
            server.should_exit = True
            thread.join(timeout=30)


@pytest.fixture(scope="session")
def tiny_predictor(tiny_trained: Tiny):
    """The tiny network, each image in one piece, four copies."""
    from nnunetv2_mip.inference.predictor import MIPPredictor

    with pytest.MonkeyPatch.context() as patch:
        for name, value in tiny_trained.environment.items():
            patch.setenv(name, value)
        predictor = MIPPredictor.from_model_folder(tiny_trained.model, device="cpu")
    return predictor.override(tiling="whole", views=6, pixel_mm=4.0)


@pytest.fixture(scope="session")
def service(tiny_predictor) -> Iterator[Service]:
    """One service for all tests that only call it."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    from nnunetv2_mip.service.settings import Settings

    with running_service(tiny_predictor, Settings()) as running:
        yield running


@pytest.fixture
def run_service() -> Callable[..., object]:
    """`with run_service(predictor, settings) as service:` for services of a test's own."""
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    return running_service


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, driven by Playwright."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution built from the checkout's files."""
    from helpers import source_files

    root = Path(nnunetv2_mip.__file__).parent.parent
    if not (root / "setup.py").is_file():
        pytest.skip("not an editable installation: there is no source tree to build from")
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    # A copy: a build leaves folders behind, and the checkout must stay as it is.
    source = folder / "source"
    for name in source_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((root / name).read_bytes())
    code = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    built = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        cwd=source,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def wheel(sdist: Path) -> Path:
    """The wheel built from the source distribution."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    built = subprocess.run(
        [*command, "-w", str(sdist.parent), str(sdist)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return next(sdist.parent.glob("*.whl"))
