"""Presets: limits of network, patch and batch size; JSON files of this folder or of a user.

Within the limits the planner chooses spacing, patch, number of stages and batch for a data set.
"""

import re
from dataclasses import asdict, dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json

DEFAULT_PRESET = "default"
PLANS_NAME = "nnUNetMIPPlans"
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    """Limits of a plan.

    Attributes:
        name: names the plans: nnUNetMIPPlans for "default", else nnUNetMIPPlans_<name>.
        features_per_stage: channels of the encoder's stages; its length is the most stages.
        description: one line for people.
        finest_spacing_mm: (row, column) mm, (z, y, x) for volumes; finer images are resampled to
            it, coarser ones keep their own pixels. None keeps all.
        max_patch_px: (rows, columns), for volumes (z, y, x), rounded up to what the network can
            halve; None: no limit.
        max_batch_size: images a step, fewer where the memory target asks for it, at least 2.
        convs_per_stage: convolutions of a stage, in encoder and decoder.
        vram_gb: memory that training may take, by nnU-Net's estimate.
        residual_blocks: blocks of the encoder's stages for nnU-Net's residual encoder U-Net (one
            convolution a stage in the decoder); None: the plain U-Net.
        localization: limits of a first, coarser stage that looks for lesions; the network of this
            preset then gets its answer as further input (nnU-Net's cascade). None: one stage.
        decoder_attention: "gates" (attention gates on the skips) or "scse" (squeeze and excitation
            of channels and places after the decoder's stages), see `nnunetv2_mip.networks`; None:
            neither.
    """

    name: str
    features_per_stage: tuple[int, ...]
    description: str = ""
    finest_spacing_mm: tuple[float, ...] | None = None
    max_patch_px: tuple[int, ...] | None = None
    max_batch_size: int = 12
    convs_per_stage: int = 2
    vram_gb: float = 8.0
    residual_blocks: tuple[int, ...] | None = None
    localization: "Preset | None" = None
    decoder_attention: str | None = None

    def __post_init__(self):
        # Names of plans end up in nnU-Net's folder names, which are split at "__".
        if not re.fullmatch(r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", self.name):
            raise MipError(f"name {self.name!r}: use letters, digits and single - or _")
        stages = self.features_per_stage
        if not _numbers(stages, int, least=2):
            raise MipError("features_per_stage: two or more whole numbers above 0 are needed")
        blocks = self.residual_blocks
        if blocks is not None and not (_numbers(blocks, int) and len(blocks) == len(stages)):
            raise MipError(
                "residual_blocks: null or a whole number above 0 for each stage is needed"
            )
        if self.decoder_attention is not None:
            # Needs torch, which the list of presets does not.
            from nnunetv2_mip.networks.attention import DECODER_ATTENTION

            if self.decoder_attention not in DECODER_ATTENTION:
                known = ", ".join(f'"{name}"' for name in DECODER_ATTENTION)
                raise MipError(f"decoder_attention: null or one of {known} is needed")
        for key, kind in (("finest_spacing_mm", Real), ("max_patch_px", int)):
            pair = getattr(self, key)
            if pair is not None and not (_numbers(pair, kind) and len(pair) in (2, 3)):
                raise MipError(
                    f"{key}: null or two numbers above 0 (row, column) are needed, three for "
                    "volumes"
                )
        both = [pair for pair in (self.finest_spacing_mm, self.max_patch_px) if pair is not None]
        if len({len(pair) for pair in both}) > 1:
            raise MipError("finest_spacing_mm, max_patch_px: two numbers each, or three")
        for key in ("max_batch_size", "convs_per_stage"):
            if not _numbers((getattr(self, key),), int):
                raise MipError(f"{key}: a whole number above 0 is needed")
        if self.max_batch_size < 2:
            raise MipError("max_batch_size: at least 2 is needed")
        if not _numbers((self.vram_gb,), Real):
            raise MipError("vram_gb: a number above 0 is needed")

    @property
    def plans_name(self) -> str:
        return PLANS_NAME if self.name == DEFAULT_PRESET else f"{PLANS_NAME}_{self.name}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def preset_names() -> list[str]:
    """Names of the presets of this package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_preset(name_or_path: str | Path) -> Preset:
    """Preset of a name, or from a JSON file (whose stem becomes the name).

    Raises:
        MipError: no such preset or file, unknown keys, or values that make no sense.
    """
    text = str(name_or_path)
    if text.endswith(".json"):
        path = Path(text)
    elif text in preset_names():
        path = FOLDER / f"{text}.json"
    else:
        raise MipError(
            f"--preset {text}: no such preset: choose {', '.join(preset_names())}, or a .json file"
        )
    content = read_json(path)
    try:
        return _preset_of(path.stem, content)
    except MipError as error:
        raise MipError(f"{path}: {error}") from None


def _preset_of(name: str, content: Any) -> Preset:
    if not isinstance(content, dict):
        raise MipError("not a JSON object")
    known = {item.name for item in fields(Preset)} - {"name"}
    unknown = sorted(set(content) - known)
    if unknown:
        raise MipError(f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    if "features_per_stage" not in content:
        raise MipError("features_per_stage is missing")
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }
    if settings.get("localization") is not None:
        try:
            settings["localization"] = _preset_of("localization", settings["localization"])
        except MipError as error:
            raise MipError(f"localization: {error}") from None
        if settings["localization"].localization is not None:
            raise MipError("localization: a cascade has two stages, not three")
    return Preset(name=name, **settings)


def _numbers(values: Any, kind: type, least: int = 1) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) >= least
        and all(_is_number(value, kind) and value > 0 for value in values)
    )


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
