"""Settings of inference, `inference.json`: read by predictor, service and container.

The file lies in the model folder, beside nnU-Net's plans.json. It says how an input becomes views
and how probabilities become a mask.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

from nnunetv2_mip.conventions import DEFAULT_ARC_DEG, DEFAULT_VIEWS, DEFAULT_WINDOW_SUV
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.fusion.region_classifier import RegionClassifier
from nnunetv2_mip.fusion.rules import PREDICTED_VIEWS, FusionRule
from nnunetv2_mip.lesions.healthy_images import HealthyRule
from nnunetv2_mip.views.geometry import view_angles
from nnunetv2_mip.views.settings import ViewSettings

FORMAT_VERSION = 1
INFERENCE_FILE = "inference.json"
# "impulse" removes salt-and-pepper noise where there is some (see `impulse_noise`).
PREFILTERS = ("none", "impulse")
TILINGS = ("patch", "whole")
# Settings that are objects of their own.
_PARTS = {
    "fusion": FusionRule,
    "healthy_image": HealthyRule,
    "regions": RegionClassifier,
}
# Settings that follow from how the training data were made; the others are free choices.
DATA_KEYS = (
    "window_suv",
    "pixel_mm",
    "channels",
    "views",
    "arc_deg",
    "start_deg",
    "angles_deg",
)


@dataclass(frozen=True)
class InferenceConfig:
    """Settings of inference with a trained model.

    Attributes:
        window_suv: SUV that maps to level 255.
        pixel_mm: pixel size of the views, mm; None keeps the study's own.
        channels: what the input channels hold, in nnU-Net's order.
        views: views projected from a volume, evenly spaced over the arc.
        arc_deg: the arc, degrees.
        start_deg: angle of the first view, degrees (0 is coronal).
        angles_deg: the angles themselves where they were listed; arc and start then do not count.
        tta: average over mirrored copies.
        tiling: what the network sees at once: "patch", overlapping patches as nnU-Net shows them,
            or "whole", each view in one piece (faster; instance norms then see all of it).
        threshold: probability from which a pixel of a view (or of a PNG) is lesion.
        min_component_px: 2D components with fewer pixels are dropped; 0 keeps all.
        prefilter: what is done to levels before the network: "none", or "impulse", which takes out
            salt-and-pepper noise and leaves views without it as they are.
        healthy_image: evidence below which a PNG is called healthy and its mask is empty; None
            asks for none.
        fusion: how view probabilities become a 3D mask.
        regions: classifier that removes regions of a fused mask which are probably no lesion; None
            keeps all.
        never_empty: mark the most likely region where nothing reaches the threshold.
    """

    window_suv: float = DEFAULT_WINDOW_SUV
    pixel_mm: float | None = None
    channels: tuple[str, ...] = ("suv",)
    views: int = DEFAULT_VIEWS
    arc_deg: float = DEFAULT_ARC_DEG
    start_deg: float = 0.0
    angles_deg: tuple[float, ...] | None = None
    tta: bool = True
    tiling: str = "patch"
    threshold: float = 0.5
    min_component_px: int = 0
    prefilter: str = "none"
    healthy_image: HealthyRule | None = None
    fusion: FusionRule = PREDICTED_VIEWS
    regions: RegionClassifier | None = None
    never_empty: bool = False

    def __post_init__(self):
        for name in ("window_suv", "arc_deg"):
            _require(_is_number(getattr(self, name)) and getattr(self, name) > 0, name, self)
        pixel = self.pixel_mm
        _require(pixel is None or (_is_number(pixel) and pixel > 0), "pixel_mm", self)
        _require(_is_number(self.start_deg), "start_deg", self)
        _require(_is_number(self.threshold) and 0 < self.threshold < 1, "threshold", self)
        _require(_is_count(self.views) and self.views >= 1, "views", self)
        _require(_is_count(self.min_component_px), "min_component_px", self)
        _require(self.prefilter in PREFILTERS, "prefilter", self)
        _require(self.tiling in TILINGS, "tiling", self)
        for name in ("tta", "never_empty"):
            _require(isinstance(getattr(self, name), bool), name, self)
        names = self.channels
        _require(
            isinstance(names, tuple) and names and all(isinstance(n, str) for n in names),
            "channels",
            self,
        )
        angles = self.angles_deg
        _require(
            angles is None
            or (
                isinstance(angles, tuple)
                and len(angles) == self.views
                and all(map(_is_number, angles))
            ),
            "angles_deg",
            self,
        )
        fusion = self.fusion
        _require(isinstance(fusion, FusionRule), "fusion", self)
        _require(_is_number(fusion.threshold) and 0 < fusion.threshold <= 1, "fusion", self)

    def changed(self, **choices: Any) -> "InferenceConfig":
        """The same settings with other choices; another number of views replaces a list of angles.

        Raises:
            MipError: a value that cannot be.
        """
        if choices.get("views", self.views) != self.views:
            choices.setdefault("angles_deg", None)
        return replace(self, **choices)

    @classmethod
    def from_dict(cls, content: Any, source: str = INFERENCE_FILE) -> "InferenceConfig":
        """Settings from the content of `inference.json`.

        Args:
            content: decoded JSON.
            source: file name for messages.

        Raises:
            MipError: unknown keys, a newer format, or a value that makes no sense.
        """
        if not isinstance(content, Mapping):
            raise MipError(f"{source}: not a JSON object")
        content = dict(content)
        version = content.pop("format_version", None)
        if not _is_count(version) or version < 1:
            raise MipError(f"{source}: format_version is missing or not a number")
        if version > FORMAT_VERSION:
            raise MipError(
                f"{source}: format_version {version} is newer than {FORMAT_VERSION}: "
                "upgrade nnunetv2-mip"
            )
        _refuse_unknown(content, cls, source)
        try:
            for key in ("channels", "angles_deg"):
                if content.get(key) is not None:
                    content[key] = tuple(content[key])
            if content.get("angles_deg") and "views" not in content:
                content["views"] = len(content["angles_deg"])
            for key, kind in _PARTS.items():
                if content.get(key) is not None:
                    _refuse_unknown(content[key], kind, f"{source}: {key}")
                    content[key] = kind(**content[key])
            return cls(**content)
        except MipError as error:
            raise MipError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from None
        except TypeError as error:
            raise MipError(f"{source}: {error}") from None

    @classmethod
    def from_dataset_json(
        cls, dataset_json: dict, source: str = "dataset.json"
    ) -> "InferenceConfig":
        """Settings that follow from how a data set was made, and defaults for the rest.

        A data set of single images (one view a case) does not say how many views a volume needs:
        then it is the default number.

        Args:
            dataset_json: content of a dataset.json written by this package's converters.
            source: file name for messages.

        Raises:
            MipError: no "mip" part, or a value that makes no sense.
        """
        mip = dataset_json.get("mip")
        if not isinstance(mip, Mapping):
            raise MipError(
                f'{source}: no "mip" part: not a data set of nnUNetv2_mip_convert_autopet or '
                "nnUNetv2_mip_convert_dmiai"
            )
        settings = {key: mip[key] for key in DATA_KEYS if mip.get(key) is not None}
        if settings.get("views") == 1 and "angles_deg" not in settings:
            del settings["views"]
        return cls.from_dict({"format_version": FORMAT_VERSION, **settings}, source)

    @classmethod
    def load(cls, model_folder: Path | str) -> "InferenceConfig":
        """Settings of a model folder.

        A folder without `inference.json` (trained with nnU-Net's own trainer) is served by the
        defaults for its dataset.json.

        Raises:
            MipError: neither file is there, or what is there cannot be used.
        """
        path = Path(model_folder) / INFERENCE_FILE
        if path.exists():
            return cls.from_dict(read_json(path), str(path))
        dataset_file = Path(model_folder) / "dataset.json"
        return cls.from_dataset_json(read_json(dataset_file), str(dataset_file))

    def save(self, folder: Path | str) -> Path:
        """Write `inference.json` into `folder`, whole or not at all; returns its path."""
        path = Path(folder) / INFERENCE_FILE
        write_json(path, self.to_dict())
        return path

    def to_dict(self) -> dict[str, Any]:
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        content["channels"] = list(self.channels)
        if self.angles_deg is not None:
            content["angles_deg"] = list(self.angles_deg)
        return content

    @property
    def angles(self) -> tuple[float, ...]:
        """The projection angles in degrees."""
        return self.angles_deg or view_angles(self.views, self.arc_deg, self.start_deg)

    @property
    def view_settings(self) -> ViewSettings:
        """Settings of the projection of a study for the network.

        Raises:
            MipError: a value that no views can have.
        """
        settings = {key: getattr(self, key) for key in DATA_KEYS}
        if self.angles_deg is not None:
            # Listed angles: arc and start do not count.
            del settings["arc_deg"], settings["start_deg"]
        return ViewSettings(**settings)

    def with_data_of(self, other: "InferenceConfig") -> "InferenceConfig":
        """These choices with the data settings of `other` (see `DATA_KEYS`)."""
        return replace(self, **{key: getattr(other, key) for key in DATA_KEYS})


def _refuse_unknown(content: Any, cls: type, source: str) -> None:
    if not isinstance(content, Mapping):
        raise MipError(f"{source}: not a JSON object")
    unknown = sorted(set(content) - {item.name for item in fields(cls)})
    if unknown:
        raise MipError(f"{source}: unknown key {', '.join(unknown)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require(condition: Any, name: str, config: InferenceConfig) -> None:
    if not condition:
        raise MipError(f"{name}: {getattr(config, name)!r} cannot be used")
