"""Predictor of studies and images: views, their probabilities, and the fused 3D mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.fusion.fuse import fuse, moved_threshold
from nnunetv2_mip.fusion.region_features import RegionContext
from nnunetv2_mip.fusion.rules import VOTES
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.deadline import Deadline
from nnunetv2_mip.inference.engine import Network
from nnunetv2_mip.inference.view_predictor import ViewPredictor
from nnunetv2_mip.io.clicks import Clicks
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.nnunet.model_folder import (
    CHECKPOINT,
    VOLUMETRIC_STAGE,
    image_model_folder,
)
from nnunetv2_mip.views.channels import StudyViews, view_study
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.resampling import to_detector

if TYPE_CHECKING:
    from typing import Self

    from nnunetv2_mip.inference.second_stage import SecondStagePredictor


@dataclass(frozen=True)
class StudyPrediction:
    """The prediction of a study.

    Attributes:
        mask: (z, y, x) uint8, canonical axes.
        probability: (z, y, x) float32, of each voxel by itself, from all views; None unless asked.
        view_probability: (V, H, W) float32, on the pixels of `views.levels`.
        views: what the network saw, and the rays.
    """

    mask: np.ndarray
    probability: np.ndarray | None
    view_probability: np.ndarray
    views: StudyViews

    @property
    def levels(self) -> np.ndarray:
        """SUV channel of the network's input, (V, H, W) uint8."""
        return self.views.levels[0]

    @property
    def geometry(self) -> ViewGeometry:
        """Angles and detector of the views."""
        return self.views.geometry

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(view axis, row, column) spacing of `levels` and `view_probability`, mm."""
        return self.views.spacing_mm


class MIPPredictor(ViewPredictor):
    """Predictor of studies: a trained model of views, and what else its folder has.

    That is a second stage in 3D, or a model of its own for single images.
    """

    def __init__(
        self,
        nnunet_predictor,
        config: InferenceConfig,
        first_stage: ViewPredictor | None = None,
        network: Network | None = None,
        second_stage: "SecondStagePredictor | None" = None,
        image_predictor: ViewPredictor | None = None,
    ):
        super().__init__(nnunet_predictor, config, first_stage, network)
        self._second_stage = second_stage
        self._image_predictor = image_predictor

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = CHECKPOINT,
        device: str = "cuda",
        second_stage: bool = True,
    ) -> "Self":
        """Load a model folder (see `ViewPredictor.from_model_folder`).

        Args:
            folder, folds, checkpoint, device: as there. A second stage in 3D within the folder
                (`model_folder.VOLUMETRIC_STAGE`) is loaded too, and a model for single images
                (`model_folder.IMAGE_MODEL`) with all its folds.
            second_stage: False leaves it out.

        Raises:
            MipError: the folder lacks something, or was trained on something else than MIPs.
        """
        predictor = super().from_model_folder(folder, folds, checkpoint, device)
        images = image_model_folder(Path(folder))
        if images != Path(folder):
            found = ViewPredictor.from_model_folder(images, device=device)
            predictor = predictor._changed(image_predictor=found)
        volumetric = Path(folder) / VOLUMETRIC_STAGE
        if not second_stage or not volumetric.is_dir():
            return predictor
        from nnunetv2_mip.inference.second_stage import SecondStagePredictor

        return predictor.with_second_stage(
            SecondStagePredictor.from_model_folder(volumetric, checkpoint=checkpoint, device=device)
        )

    def _parts(self) -> dict[str, Any]:
        return {
            **super()._parts(),
            "second_stage": self._second_stage,
            "image_predictor": self._image_predictor,
        }

    def override(self, **choices: Any) -> "Self":
        """The same weights with other choices (see `InferenceConfig.changed`), for images too."""
        changed = super().override(**choices)
        if self._image_predictor is None:
            return changed
        return changed._changed(image_predictor=self._image_predictor.override(**choices))

    @property
    def for_images(self) -> ViewPredictor:
        """The predictor of single images, with settings of its own: this one where none is."""
        return self._image_predictor or self

    def predict_image(
        self, levels: np.ndarray, deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask and probability of one MIP-PET image (see `ViewPredictor.predict_image`)."""
        if self._image_predictor is None:
            return super().predict_image(levels, deadline)
        return self._image_predictor.predict_image(levels, deadline)

    @property
    def second_stage(self) -> "SecondStagePredictor | None":
        """The second stage in 3D, which is given the cue of the views."""
        return self._second_stage

    def with_second_stage(self, second_stage: "SecondStagePredictor | None") -> "Self":
        """The same views with another second stage; None: the mask is fused from the views."""
        return self._changed(second_stage=second_stage)

    @property
    def wants_ct(self) -> bool:
        """Whether a study's CT is needed."""
        second = self._second_stage
        return "ct" in self.config.channels or (second is not None and "ct" in second.channels)

    def view_study(self, study: Study) -> StudyViews:
        """Views of a study as the network sees them.

        Raises:
            MipError: the model wants the CT and there is none.
        """
        return view_study(study, self.config.view_settings)

    def predict_study(
        self,
        study: Study,
        with_probability: bool = False,
        clicks: Clicks | None = None,
        deadline: Deadline | None = None,
    ) -> StudyPrediction:
        """Predict a study: views, their probabilities, and the fused 3D mask on its grid.

        Args:
            study: with its CT for a model that wants it (`wants_ct`).
            with_probability: also give the probability of every voxel. Takes longer than the mask.
                With a second stage it is that one's, and costs nothing.
            clicks: of a reader; the mask has them inside and outside (see `click_refinement`).
            deadline: as of `view_probabilities`.

        Raises:
            MipError: the model wants the CT and there is none.
        """
        deadline = deadline or Deadline()
        views, suv = self.view_study(study), study.suv.array
        view_probability = self.view_probabilities(views.levels, views.spacing_mm[1:], deadline)
        detected = to_detector(view_probability, views.geometry, views.pixel_mm)
        probability = None
        if self._second_stage is not None:
            cue = self._voxel_probability(detected, views, suv)
            mask, probability = self._second_stage.predict(study, cue, deadline)
        else:
            if with_probability:
                probability = self._voxel_probability(detected, views, suv)
            mask = self._fused(RegionContext(suv, detected, views.suv, views.geometry))
        if clicks:
            mask = with_clicks(mask, suv, clicks, study.spacing_mm)
        return StudyPrediction(mask, probability, view_probability, views)

    def region_context(self, study: Study) -> RegionContext:
        """Study with the probabilities of its views, for the features of regions.

        Raises:
            MipError: the model wants the CT and there is none.
        """
        views = self.view_study(study)
        probability = self.view_probabilities(views.levels, views.spacing_mm[1:])
        detected = to_detector(probability, views.geometry, views.pixel_mm)
        return RegionContext(study.suv.array, detected, views.suv, views.geometry)

    def _fused(self, context: RegionContext, leniency: float = 1.0) -> np.ndarray:
        """Mask (z, y, x) of the views' probabilities, without what the region classifier drops."""
        mask = fuse(
            context.views, context.geometry, self.config.fusion, context.suv, context.suv_views
        )
        if self.config.regions is None:
            return mask
        return self.config.regions.keep_lesions(mask, context, leniency)

    def _voxel_probability(
        self, detected: np.ndarray, views: StudyViews, suv: np.ndarray
    ) -> np.ndarray:
        """Probability (z, y, x) of each voxel by itself, from the probabilities of all views."""
        rule = self.config.fusion.rule
        return backproject(
            detected, views.geometry, rule if rule in VOTES else "visibility", suv, views.suv
        )

    @property
    def volume_threshold(self) -> float:
        """Threshold at which `mask_at` gives the mask of `predict_study`."""
        return 0.5 if self._second_stage is not None else self.config.fusion.border

    def mask_at(self, found: StudyPrediction, study: Study, threshold: float) -> np.ndarray:
        """Mask of a study at another threshold, by the same method.

        Args:
            found: from `predict_study`, without clicks.
            study: that it was predicted from.
            threshold: 0 to 1; of a second stage's voxels, else of the views' pixels: what reaches
                it becomes what reaches the fusion's own.

        Returns:
            (z, y, x) uint8 of 0 and 1.
        """
        if threshold == self.volume_threshold:
            return found.mask
        if self._second_stage is not None:
            if found.probability is None:
                raise ValueError("the prediction has no probabilities of a second stage")
            return (found.probability > threshold).astype(np.uint8)
        border = self.config.fusion.border
        shifted = moved_threshold(found.view_probability, threshold, border)
        detected = to_detector(shifted, found.geometry, found.views.pixel_mm)
        # Asked for more than the model marks: regions that it doubts come back one by one.
        leniency = min(threshold / self.volume_threshold, 1.0)
        context = RegionContext(study.suv.array, detected, found.views.suv, found.geometry)
        return self._fused(context, leniency)
