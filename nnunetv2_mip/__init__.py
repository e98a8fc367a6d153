"""Tumour segmentation in PET on rotating maximum intensity projections, inside nnU-Net v2.

The Python API (docs/reference/api.md) is imported when one of its names is first used, so that the
commands and `import nnunetv2_mip` stay quick.
"""

import os as _os
from importlib import import_module as _import_module

__version__ = "0.3.0"

# In a checkout, `trainers`, `plans` and `dataset_conversion` lie beside this folder (see setup.py).
# In the root of the repository this folder hides an installed package; they are found there too.
_root = _os.path.dirname(__path__[0])  # noqa: PTH120
if _os.path.isfile(_os.path.join(_root, "trainers", "nnUNetTrainerMIP.py")):  # noqa: PTH113, PTH118
    __path__.append(_root)

# Name of the API → its module. `__init__.pyi` tells type checkers the same.
_API = {
    "MipError": "errors",
    "MipWarning": "errors",
    "Study": "io.read_study",
    "DicomOptions": "io.dicom.options",
    "read_study": "api.studies",
    "project": "api.steps",
    "fuse": "api.steps",
    "FusionRule": "fusion.rules",
    "Predictor": "api.predictor",
    "VolumeResult": "inference.results",
    "ImageResult": "inference.results",
    "evaluate": "api.scores",
}
__all__ = ["__version__", *_API]


def __getattr__(name: str) -> object:
    if name not in _API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_import_module(f"{__name__}.{_API[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})
