"""Networks that plans name: attention U-Nets, networks with a localization cue.

Plans store `nnunetv2_mip.networks.CLASS`, and nnU-Net looks the classes up here. Each is imported
at its first use: importing the package does not import torch.
"""

from importlib import import_module

_MODULES = {
    "AttendingPlainConvUNet": "attention",
    "AttendingResidualEncoderUNet": "attention",
    "LocalizingUNet": "localization",
    "LocalizingResidualEncoderUNet": "localization",
    "CuedUNet": "cue",
    "CuedResidualEncoderUNet": "cue",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


def stored_name(network: type) -> str:
    """Dotted name under which plans store a network; for this package's without the module."""
    package = __name__ if network.__module__.startswith(f"{__name__}.") else network.__module__
    return f"{package}.{network.__qualname__}"
