"""File format of a classifier, `classifier.npz`: metadata as JSON text, and arrays.

The metadata (array `about`) names the segmentation model that the classifier belongs to, and holds
a fingerprint of its weights.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.classification.calibration import Platt
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import atomic_path

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


FILE_NAME = "classifier.npz"
FORMAT_VERSION = 2
KIND_FROZEN, KIND_NETWORK, KIND_BOTH = "frozen", "network", "both"
# Keys of the metadata that each kind of classifier needs.
REQUIRED_OF_ALL = ("fingerprint", "network", "networks", "how", "platt", "threshold")
REQUIRED_OF_NETWORKS = (*REQUIRED_OF_ALL, "shown_mm", "window")
REQUIRED = {
    KIND_FROZEN: REQUIRED_OF_ALL,
    KIND_NETWORK: REQUIRED_OF_NETWORKS,
    KIND_BOTH: (*REQUIRED_OF_NETWORKS, "parts"),
}
# Prefixes of the names of arrays in a file of KIND_BOTH.
HEAD_PREFIX, NETWORK_PREFIX = "head:", "network:"


def classifier_metadata(
    kind: str, predictor: "MIPPredictor", network: str, platt: Platt, networks: int = 1, **more
) -> dict:
    """Metadata of a classifier.

    Args:
        kind: `KIND_FROZEN`, `KIND_NETWORK` or `KIND_BOTH`.
        predictor: the segmentation model.
        network: its folder.
        platt: the calibration.
        networks: number of the predictor's networks (folds) that compute features.
        more: further entries.
    """
    from nnunetv2_mip.classification.features import network_fingerprint

    return {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "network": network,
        "networks": networks,
        "fingerprint": network_fingerprint(predictor, networks),
        "platt": [platt.slope, platt.offset],
        **more,
    }


def write_classifier(path: Path, about: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write a classifier's file atomically; equal content gives equal bytes.

    Args:
        path: of the file.
        about: the metadata.
        arrays: name → array.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with (
        atomic_path(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, array in {"about": text, **arrays}.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=False)
            # A fixed date: `np.savez` would write the current time.
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, buffer.getvalue(), zipfile.ZIP_DEFLATED)


def read_classifier(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """Metadata and arrays of a classifier's file.

    Raises:
        MipError: missing, damaged, not a classifier, or of another format version.
    """
    if not path.is_file():
        raise MipError(f"{path}: no such classifier; train one with nnUNetv2_mip_classify train")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("about").tobytes().decode())
        version, kind = about["format_version"], about["kind"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        raise MipError(
            f"{path}: is no classifier, or is damaged; train one with nnUNetv2_mip_classify train"
        ) from None
    if version != FORMAT_VERSION or kind not in REQUIRED:
        raise MipError(
            f"{path}: is of another version of this program (format {version}, {kind}); train it "
            "again"
        )
    missing = [key for key in REQUIRED[kind] if key not in about]
    if missing:
        raise MipError(f"{path}: is not a classifier (without {', '.join(missing)})")
    try:
        numbers = np.array([*about["platt"], about["threshold"], *np.ravel(about.get("parts", []))])
        whole = np.isfinite(numbers.astype(float)).all()
    except (TypeError, ValueError):
        whole = False
    floats = [array for array in arrays.values() if array.dtype.kind == "f"]
    if not whole or not all(np.isfinite(array).all() for array in floats):
        raise MipError(f"{path}: is damaged: it holds what is no number; train it again")
    return about, arrays


def find_classifier(model: Path | str | None) -> Path:
    """Path of a classifier's file: named, within a named folder, or the bundled one (None).

    Raises:
        MipError: there is none.
    """
    if model is None:
        from nnunetv2_mip.nnunet.model_folder import bundled_model, image_model_folder

        path = image_model_folder(bundled_model()) / FILE_NAME
        if not path.is_file():
            raise MipError(
                f"{path}: no classifier comes along: train one with nnUNetv2_mip_classify train, "
                "and name it with -m"
            )
        return path
    model = Path(model)
    path = model / FILE_NAME if model.is_dir() else model
    if not path.is_file():
        raise MipError(f"{path}: no such classifier; check -m, or train one first")
    return path


def arrays_of_part(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays of one part of a file of KIND_BOTH, named without their prefix."""
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}


def segmentation_model_folder(path: Path, about: dict, network: Path | str | None) -> Path:
    """Folder of the segmentation model that a classifier belongs to.

    Args:
        path: the classifier's file.
        about: its metadata.
        network: the folder where it is named; None for the folder of `path` where that is a
            segmentation model, else the one that the metadata names.

    Raises:
        MipError: the folder that the metadata names has no model.
    """
    if network is not None:
        return Path(network)
    if (path.parent / "plans.json").is_file():
        return path.parent
    folder = Path(about["network"])
    if not (folder / "plans.json").is_file():
        raise MipError(
            f"{path}: its segmentation network is not where it was ({folder}): name it with "
            "--network FOLDER"
        )
    return folder
