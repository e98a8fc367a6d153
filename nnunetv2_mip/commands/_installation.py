"""State of an installation: versions, devices, engines, models, extras, environment.

Nothing heavy is imported: versions are those of the installed packages' metadata.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.model_folder import models_folder
from nnunetv2_mip.nnunet.paths import VARIABLES, trainers_folder

PACKAGE = "nnunetv2-mip"
PACKAGES = ("nnunetv2", "torch", "numpy", "scipy", "numba", "llvmlite", "SimpleITK", "openvino")
# Names of LLVM for what decides the speed of projection and of networks.
CPU_FEATURES = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "bfloat16": ("avx512bf16", "amx-bf16", "bf16"),
    "NEON": ("neon",),
}
OWN_TRAINER = "nnUNetTrainerMIP.py"
# Variables of this package, and of others that decide how it runs.
OWN_VARIABLES = (
    "NNUNETV2_MIP_ENGINE",
    "NNUNETV2_MIP_SIMD",
    "NNUNETV2_MIP_VERBOSE",
    "MODEL_NAME",
    "HOST_IP",
    "CONTAINER_PORT",
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMBA_CACHE_DIR",
)
# Extras for work on the code.
DEVELOPMENT = ("test", "dev")
NOTICES = ("NOTICE", "LICENSE", "LICENCE")
# nvidia-smi of a driver that hangs must not hang the command.
GPU_WAIT_S = 5


def installation(model: Path | None = None) -> dict:
    """Versions, devices, engines, models, extras and environment, ready for JSON.

    Args:
        model: model folder to list beside the bundled ones.

    Raises:
        MipError: `model` is no folder.
    """
    folders = [path for path in sorted(models_folder().glob("*")) if path.is_dir()]
    if model is not None:
        if not model.is_dir():
            raise MipError(f"{model}: no such model folder")
        folders.append(model)
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "devices": devices(),
        "cpu": {"cores": os.cpu_count(), "features": cpu_features()},
        "engines": engines(),
        "models": [describe_model(folder) for folder in folders],
        "extras": extras(),
        "environment": environment(os.environ),
        "trainers": trainers(os.environ),
    }


def versions() -> dict[str, str | None]:
    """Version of this package, of Python and of the packages that matter; None: not installed."""
    others = {name: _version(name) for name in PACKAGES}
    return {PACKAGE: __version__, "python": platform.python_version(), **others}


def devices() -> dict[str, list[str] | str | None]:
    """Graphics cards by their driver, and the CUDA version that PyTorch was built for.

    `usable` are the values of -device that should work.
    """
    cards, cuda = _graphics_cards(), _cuda_of_torch()
    usable = ["cpu"]
    if cards and cuda:
        usable.insert(0, "cuda")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        usable.insert(0, "mps")
    return {"usable": usable, "graphics_cards": cards, "torch_cuda": cuda}


def _graphics_cards() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=GPU_WAIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _cuda_of_torch() -> str | None:
    """CUDA version of the installed PyTorch, from its file of versions; None: a CPU build."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("version.py")
    text = path.read_text("utf-8") if path.is_file() else ""
    stated = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.M)
    return stated and stated[1]


def cpu_features() -> dict[str, bool]:
    """Instruction sets of `CPU_FEATURES` that the processor has, as LLVM finds them."""
    from llvmlite import binding

    found = binding.get_host_cpu_features()
    return {name: any(found.get(key) for key in keys) for name, keys in CPU_FEATURES.items()}


def engines() -> dict[str, str | None]:
    """Inference engines with their versions; None: not installed."""
    return {"torch": _version("torch"), "openvino": _version("openvino")}


def describe_model(folder: Path) -> dict:
    """Path, licence and SHA-256 sums of the weights of a model folder."""
    # Those of a stage or of a model for images within it too.
    files = [*sorted(folder.rglob("fold_*/checkpoint_*.pth")), *sorted(folder.rglob("*.npz"))]
    sums = {path.relative_to(folder).as_posix(): _sha256(path) for path in files}
    return {"folder": str(folder), "licence": _licence(folder), "sha256": sums}


def _licence(folder: Path) -> str | None:
    """Licence by the model's notice: its second paragraph, else its first."""
    for name in NOTICES:
        if (folder / name).is_file():
            text = (folder / name).read_text("utf-8")
            paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
            return f"{name}: {paragraphs[min(1, len(paragraphs) - 1)]}" if paragraphs else name
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        found = hashlib.sha256()
        while block := stream.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def extras() -> dict[str, dict]:
    """Optional parts of the package: those of its packages that are missing, how to get them."""
    try:
        described = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        # Run from its files, without installation.
        return {}
    found = {}
    for extra in described.metadata.get_all("Provides-Extra") or []:
        if extra in DEVELOPMENT:
            continue
        names = [
            re.split(r"[\s;<>=!~\[]", line)[0]
            for line in described.requires or []
            if re.search(rf"extra == [\"']{re.escape(extra)}[\"']", line)
        ]
        missing = [name for name in names if _version(name) is None]
        found[extra] = {"missing": missing, "install": f'pip install "{PACKAGE}[{extra}]"'}
    return found


def environment(variables: Mapping[str, str]) -> dict[str, str | None]:
    """nnU-Net's variables and those that decide how this package runs; None: not set."""
    nnunet = sorted(name for name in variables if name.startswith("nnUNet_"))
    names = dict.fromkeys([*VARIABLES, "nnUNet_extTrainer", *nnunet, *OWN_VARIABLES])
    return {name: variables.get(name) or None for name in names}


def trainers(variables: Mapping[str, str]) -> dict[str, str | bool]:
    """Folder of this package's trainers, and whether nnU-Net's commands find trainers there.

    nnU-Net looks in the folders of `nnUNet_extTrainer`.
    """
    named = [part for part in variables.get("nnUNet_extTrainer", "").split(os.pathsep) if part]
    found = any((Path(part) / OWN_TRAINER).is_file() for part in named)
    return {"folder": str(trainers_folder()), "found_by_nnunet": found}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
