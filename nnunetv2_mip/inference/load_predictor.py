"""Loading of a predictor with the choices of a user, for the commands and the Python API."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, folds_with_checkpoint

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor


@dataclass(frozen=True)
class ModelChoice:
    """Model folder and the choices of a user for its predictor; checked when it is made.

    Attributes:
        folder: model folder.
        folds: folds to average, None for all that are there.
        checkpoint: file name in the fold folders.
        device: `cuda` (`cpu` where there is none), `cpu` or `mps`.
        settings: changes of the model's `InferenceConfig`.
        second_stage: model folder of a second stage in 3D; None takes the one within `folder`, if
            there is one.
        combine: one of `second_stage.COMBINATIONS`.

    Raises:
        MipError: the folder lacks something, or a setting cannot be.
    """

    folder: Path
    folds: Sequence[int | str] | None = None
    checkpoint: str = CHECKPOINT
    device: str = "cuda"
    settings: dict[str, Any] = field(default_factory=dict)
    second_stage: Path | str | None = None
    combine: str = "none"

    def __post_init__(self):
        folds_with_checkpoint(self.folder, self.folds, self.checkpoint)
        self.config  # noqa: B018  a setting that cannot be is refused before the heavy imports

    @property
    def config(self) -> InferenceConfig:
        """Settings of inference: the model's own with those of the user."""
        return InferenceConfig.load(self.folder).changed(**self.settings)

    def load(self) -> "MIPPredictor":
        """Predictor in memory.

        Raises:
            MipError: the model cannot be loaded, or `combine` without a second stage.
        """
        from nnunetv2_mip.inference.predictor import MIPPredictor

        predictor = MIPPredictor.from_model_folder(
            self.folder,
            self.folds,
            self.checkpoint,
            self.device,
            second_stage=self.second_stage is None,
        )
        predictor = predictor.override(**self.settings)
        if self.second_stage is not None:
            from nnunetv2_mip.inference.second_stage import SecondStagePredictor

            second = SecondStagePredictor.from_model_folder(
                self.second_stage, checkpoint=self.checkpoint, device=self.device
            )
            predictor = predictor.with_second_stage(second)
        if predictor.second_stage is not None:
            # The first stage's own setting says nothing of the second's mirrored copies.
            mirror = self.settings.get("tta", True)
            second = predictor.second_stage.override(self.combine, mirror=mirror)
            return predictor.with_second_stage(second)
        if self.combine != "none":
            raise MipError("--combine needs a second stage: name one with --stage2 FOLDER")
        return predictor
