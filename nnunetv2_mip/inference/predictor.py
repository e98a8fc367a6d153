"""The predictor: images, stacks and volumes through one trained nnU-Net model, in memory.

Preprocessing and the way back to pixels are nnU-Net's own; windows, mirrored copies and folds are
those of `passes`, with nnU-Net's results. No worker process is started. Everything about the recipe
is read from the model folder's `inference.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunetv2_mip.conventions import LESION, PNG_PIXEL_MM, VIEW_AXIS_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.fusion.backprojection import backproject
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.fusion.fuse import fuse
from nnunetv2_mip.fusion.rules import VOTES
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.deadline import Effort, Watch
from nnunetv2_mip.inference.engine import Network
from nnunetv2_mip.inference.impulse_noise import without_impulses
from nnunetv2_mip.inference.postprocessing import mask_of_view
from nnunetv2_mip.inference.sliding_window import Windows, mirrored_copies, run_passes
from nnunetv2_mip.io.clicks import Clicks
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.nnunet.loading import (
    load_nnunet,
    quiet,
    stride_of,
)
from nnunetv2_mip.nnunet.model_folder import (
    CHECKPOINT,
    VOLUMETRIC_STAGE,
    first_stage_folder,
    folds_with_checkpoint,
)
from nnunetv2_mip.views.channels import StudyViews, make_views
from nnunetv2_mip.views.geometry import ViewGeometry
from nnunetv2_mip.views.resampling import to_detector, view_spacing_mm
from nnunetv2_mip.views.settings import check_channels

if TYPE_CHECKING:
    from nnunetv2_mip.inference.second_stage import Stage2Predictor


@dataclass(frozen=True)
class StudyPrediction:
    """What the predictor says of a volume.

    Attributes:
        mask: (z, y, x) uint8, canonical axes.
        probability: (z, y, x) float32, what the views say of each voxel alone; None unless asked.
        view_probability: (V, H, W) float32.
        views: (C, V, H, W) uint8, what the network saw, channel by channel.
        geometry: of the views.
        spacing_mm: (view axis, row, column) of `views` and `view_probability`.
    """

    mask: np.ndarray
    probability: np.ndarray | None
    view_probability: np.ndarray
    views: np.ndarray
    geometry: ViewGeometry
    spacing_mm: tuple[float, float, float]

    @property
    def levels(self) -> np.ndarray:
        """(V, H, W) uint8, the SUV channel of what the network saw."""
        return self.views[0]


class MIPPredictor:
    """A trained model, loaded once.

    Attributes:
        config: the recipe; `override` gives a predictor with other choices and the same weights.
    """

    def __init__(
        self,
        nnunet_predictor,
        config: InferenceConfig,
        first_stage: "MIPPredictor | None" = None,
        second_stage: "Stage2Predictor | None" = None,
        network: Network | None = None,
    ):
        self._nnunet = nnunet_predictor
        self.config = config
        self._first_stage = first_stage
        self._second_stage = second_stage
        plans = nnunet_predictor.configuration_manager
        self._network = network or Network(
            nnunet_predictor.network,
            nnunet_predictor.list_of_parameters,
            nnunet_predictor.device,
            plans.patch_size,
            stride_of(plans) or (1, 1),
        )

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = CHECKPOINT,
        device: str = "cuda",
        second_stage: bool = True,
    ) -> "MIPPredictor":
        """Load a model folder as nnU-Net's training leaves it.

        Args:
            folder: has dataset.json, plans.json, fold_*/ and (from our trainers) inference.json.
                For the second stage of a cascade the first one is looked for within it
                (`model_folder.FIRST_STAGE_FOLDER`), then beside it, where training leaves it. A
                second stage in 3D within it (`model_folder.VOLUMETRIC_STAGE`) is used.
            folds: folds to average, None for all that are there.
            checkpoint: file name in the fold folders.
            device: `cpu`, `cuda` or `mps`; `cuda` falls back to `cpu` where there is none.
            second_stage: False leaves a second stage in 3D alone.

        Raises:
            MipError: the folder lacks something, or was trained on something else than MIPs.
        """
        folder = Path(folder)
        folds_with_checkpoint(folder, folds, checkpoint)
        config = InferenceConfig.load(folder)
        try:
            check_channels(config.channels)
        except MipError as error:
            raise MipError(f"{folder}: the model wants {error}") from None
        predictor = load_nnunet(folder, folds, checkpoint, device)
        stage = predictor.configuration_manager.previous_stage_name
        first = second = None
        if stage is not None:
            before = first_stage_folder(folder, stage)
            first = cls.from_model_folder(before, folds, checkpoint, device)
        if second_stage and (folder / VOLUMETRIC_STAGE).is_dir():
            from nnunetv2_mip.inference.second_stage import Stage2Predictor

            second = Stage2Predictor.from_model_folder(
                folder / VOLUMETRIC_STAGE, checkpoint=checkpoint, device=device
            )
        return cls(predictor, config, first, second)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._nnunet.device)

    @property
    def parameters(self) -> int:
        """Number of weights of the network, of both where it is a cascade."""
        own = sum(weight.numel() for weight in self._nnunet.network.parameters())
        return own + (self._first_stage.parameters if self._first_stage else 0)

    def override(self, **choices) -> "MIPPredictor":
        """The same weights with other choices (see `InferenceConfig.changed`)."""
        config = self.config.changed(**choices)
        return MIPPredictor(
            self._nnunet, config, self._first_stage, self._second_stage, self._network
        )

    @property
    def second_stage(self) -> "Stage2Predictor | None":
        return self._second_stage

    def with_second_stage(self, second_stage: "Stage2Predictor | None") -> "MIPPredictor":
        """The same, but volumes get the 3D mask of a second stage, which is given the cue.

        None: the fused mask of the views.
        """
        return MIPPredictor(
            self._nnunet, self.config, self._first_stage, second_stage, self._network
        )

    @property
    def wants_ct(self) -> bool:
        """Whether a volume's CT is needed."""
        second = self._second_stage
        return "ct" in self.config.channels or (second is not None and "ct" in second.channels)

    @property
    def networks(self) -> list[Network]:
        """What runs for an answer: the network, after that of a first stage where there is one."""
        return [*(self._first_stage.networks if self._first_stage else ()), self._network]

    @property
    def training_batch(self) -> tuple[int, ...]:
        """(B, C, rows, columns) of a batch in training, by its plans (of the last stage)."""
        plans = self._nnunet.configuration_manager
        channels = len(self.config.channels) + (self._first_stage is not None)
        return plans.batch_size, channels, *plans.patch_size

    @property
    def folds(self) -> int:
        """Number of networks that are averaged."""
        return len(self._network)

    @property
    def engine(self) -> str:
        """What runs the network: `torch` or `openvino`."""
        return self._network.engine

    def view_probabilities(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], watch: Watch | None = None
    ) -> np.ndarray:
        """Lesion probability of every pixel of a stack.

        Args:
            levels: (C, V, H, W) in the order of the model's channels, or (V, H, W) for a model of
                one channel; 0–255, bright is uptake.
            pixel_mm: (row, column) spacing.
            watch: may cut the work short, and is told what was done (see `watch`).

        Returns:
            (V, H, W) float32 in [0, 1].

        Raises:
            MipError: another number of channels than the model has.
            Cancelled: the watch says so.
        """
        watch = watch or Watch()
        levels = self._checked(levels)
        if not self._holds_something(levels, pixel_mm):
            return np.zeros(levels.shape[1:], np.float32)
        data, properties, effort = self._input(levels, pixel_mm, watch)
        with watch.running():
            logits = self._logits(data, watch)
        probabilities = self._probabilities(logits, properties)
        if effort is not None and effort.degraded:
            # Both stages make the answer; the one that was cut short is told.
            watch.effort = effort
        return probabilities

    def network_input(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> torch.Tensor:
        """What the network is shown of a stack, before it is cut or padded.

        Args:
            levels, pixel_mm: as of `view_probabilities`.

        Returns:
            (C, V, h, w) float32, standardised, on the network's pixels, cropped to what is not
            zero, with the channels of a first stage after those of the model.

        Raises:
            MipError: another number of channels than the model has, or nothing in the stack.
        """
        levels = self._checked(levels)
        if not self._holds_something(levels, pixel_mm):
            raise MipError("the image is empty: it shows no uptake at all")
        return self._input(levels, pixel_mm, Watch())[0]

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """(row, column) of the network's own pixels."""
        rows, columns = self._nnunet.configuration_manager.spacing[-2:]
        return float(rows), float(columns)

    @property
    def network(self) -> Network:
        """The networks themselves, fold by fold."""
        return self._network

    @property
    def windows(self) -> Windows | None:
        """How views are cut for the network; None for a configuration that nnU-Net itself runs."""
        plans = self._nnunet.configuration_manager
        if len(plans.patch_size) != 2:
            return None
        stride = stride_of(plans)
        return Windows(
            tuple(plans.patch_size),
            stride or (1, 1),
            self.config.tiling == "whole" and stride is not None,
        )

    def _checked(self, levels: np.ndarray) -> np.ndarray:
        """(C, V, H, W) of a stack that has the model's channels."""
        if levels.ndim == 3:
            levels = levels[None]
        channels = self.config.channels
        if len(levels) != len(channels):
            raise MipError(
                f"the input has {len(levels)} channel{'s' * (len(levels) > 1)}, the model wants "
                f"{len(channels)} ({', '.join(channels)}): give it the SUV volume, with its CT "
                "where that is a channel"
            )
        return levels

    def _input(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], watch: Watch
    ) -> tuple[torch.Tensor, dict, Effort | None]:
        """Filter, first stage and preprocessing; also what the first stage was left of its work."""
        if self.config.prefilter == "impulse":
            # The SUV channel: PNGs have no other, and CT and depth are computed here.
            cleaned = [without_impulses(view) for view in levels[0]]
            levels = np.concatenate([np.stack(cleaned)[None], levels[1:]])
        found, effort = None, None
        if self._first_stage is not None:
            first = self._first_stage.override(tta=self.config.tta, prefilter="none")
            # The first stage's mask in nnU-Net's form: as training was given it.
            found = (first.view_probabilities(levels, pixel_mm, watch) >= 0.5).astype(np.int16)[
                None
            ]
            effort = watch.effort
        return *self._preprocess(levels, pixel_mm, found), effort

    def _holds_something(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> bool:
        """Whether what is not zero (nnU-Net crops to it) is at least a pixel of the network's."""
        target = self._nnunet.configuration_manager.spacing[-2:]
        for axis, spacing, wanted in zip((2, 3), pixel_mm, target):
            others = tuple(k for k in range(4) if k != axis)
            where = np.flatnonzero(levels.any(axis=others))
            # nnU-Net's own rounding (to even), by which half a pixel is none.
            if not len(where) or round((where[-1] - where[0] + 1) * spacing / wanted) < 1:
                return False
        return True

    def _preprocess(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], found: np.ndarray | None = None
    ) -> tuple[torch.Tensor, dict]:
        """nnU-Net's preprocessing: (C, V, H, W) float32 on the plans' pixels, and the way back.

        The labels `found` (1, V, H, W) by a first stage become channels of their own.
        """
        nnunet = self._nnunet
        properties = {"spacing": [VIEW_AXIS_SPACING_MM, *map(float, pixel_mm)]}
        with quiet():
            preprocessor = nnunet.configuration_manager.preprocessor_class(verbose=False)
            data, labels, properties = preprocessor.run_case_npy(
                levels.astype(np.float32),
                found,
                properties,
                nnunet.plans_manager,
                nnunet.configuration_manager,
                nnunet.dataset_json,
            )
            if found is not None:
                from nnunetv2.utilities.label_handling.label_handling import (
                    convert_labelmap_to_one_hot,
                )

                foreground = nnunet.label_manager.foreground_labels
                cue = convert_labelmap_to_one_hot(labels[0], foreground, data.dtype)
                data = np.vstack((data, cue))
        return torch.from_numpy(data), properties

    @property
    def mirrored_axes(self) -> tuple[int, ...] | None:
        """The axes that the network was trained with mirrored, 0 for rows and 1 for columns."""
        return self._nnunet.allowed_mirroring_axes

    def _logits(self, data: torch.Tensor, watch: Watch) -> torch.Tensor:
        nnunet, config = self._nnunet, self.config
        if self.windows is None:
            # A 3D configuration over the view axis goes nnU-Net's own way, all at once: the watch
            # hears neither of windows nor of the effort, and cannot cut it short.
            watch.check()
            nnunet.use_mirroring = config.tta
            with quiet():
                return nnunet.predict_logits_from_preprocessed_data(data).float()
        copies = mirrored_copies(self.mirrored_axes if config.tta else None)
        heads = nnunet.label_manager.num_segmentation_heads
        return run_passes(self._network, data, heads, self.windows, copies, watch)

    def _probabilities(self, logits: torch.Tensor, properties: dict) -> np.ndarray:
        """Lesion probabilities on the input's pixels by nnU-Net's export."""
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape as convert,
        )

        nnunet = self._nnunet
        _, probabilities = convert(
            logits,
            nnunet.plans_manager,
            nnunet.configuration_manager,
            nnunet.label_manager,
            properties,
            return_probabilities=True,
            num_threads_torch=torch.get_num_threads(),
        )
        return np.ascontiguousarray(probabilities[LESION], dtype=np.float32)

    def predict_image(
        self, levels: np.ndarray, watch: Watch | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One MIP-PET image, as `png.decode_png` gives it.

        Args:
            levels: (H, W), 0–255, bright is uptake, pixels of 2 mm.
            watch: as of `view_probabilities`.

        Returns:
            mask (H, W) uint8 of 0 and 1, and probability (H, W) float32.
        """
        pixel = (PNG_PIXEL_MM, PNG_PIXEL_MM)
        probability = self.view_probabilities(levels[None], pixel, watch)[0]
        return mask_of_view(probability, self.config), probability

    def predict_stack(
        self, levels: np.ndarray, pixel_mm: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """A stack of views: masks (V, H, W) uint8 and probabilities (V, H, W) float32."""
        probabilities = self.view_probabilities(levels, pixel_mm)
        masks = np.stack([mask_of_view(view, self.config) for view in probabilities])
        return masks, probabilities

    def study_views(
        self, suv: Volume, ct: Volume | None = None
    ) -> tuple[np.ndarray, tuple[float, float]]:
        """The views of a volume as the network is to see them: (C, V, H, W) uint8, and mm.

        Raises:
            MipError: the model wants the CT and there is none.
        """
        views, geometry = self._views_of(suv, ct)
        return views.levels, view_spacing_mm(geometry, self.config.pixel_mm)[1:]

    def _views_of(self, suv: Volume, ct: Volume | None) -> tuple[StudyViews, ViewGeometry]:
        config = self.config
        geometry = ViewGeometry.for_volume(suv, config.angles, config.pixel_mm)
        geometry = geometry.with_window(config.window_suv)
        views = make_views(
            suv.array,
            None if ct is None else ct.array,
            geometry,
            config.channels,
            config.window_suv,
            config.pixel_mm,
        )
        return views, geometry

    def predict_study(
        self,
        suv: Volume,
        ct: Volume | None = None,
        with_probability: bool = False,
        clicks: Clicks | None = None,
        watch: Watch | None = None,
    ) -> StudyPrediction:
        """A SUV volume: views, their probabilities, and the fused 3D mask on its grid.

        Args:
            suv: from `volumes.read_suv`.
            ct: from `views.read_ct`, on the same grid, for a model with the channel `ct`.
            with_probability: also say how likely every voxel is. Takes longer than the mask. With
                a second stage it is that one's, and comes for nothing.
            clicks: of a reader; the mask has them inside and outside (see `click_fusion`).
            watch: as of `view_probabilities`.

        Raises:
            MipError: the model wants the CT and there is none.
        """
        config, watch = self.config, watch or Watch()
        views, geometry = self._views_of(suv, ct)
        spacing = view_spacing_mm(geometry, config.pixel_mm)
        view_probability = self.view_probabilities(views.levels, spacing[1:], watch)
        asked = to_detector(view_probability, geometry, config.pixel_mm)
        probability = None
        if with_probability or self._second_stage is not None:
            rule = config.fusion.rule if config.fusion.rule in VOTES else "visibility"
            probability = backproject(asked, geometry, rule, suv.array, views.suv)
        if self._second_stage is None:
            mask = fuse(asked, geometry, config.fusion, suv.array, views.suv)
        else:
            mask, probability = self._second_stage.predict(suv, ct, probability, watch)
        if clicks:
            mask = with_clicks(mask, suv.array, clicks, suv.spacing_mm)
        return StudyPrediction(mask, probability, view_probability, views.levels, geometry, spacing)

    @property
    def volume_threshold(self) -> float:
        """The threshold at which `mask_at` gives the mask of `predict_study`."""
        return 0.5 if self._second_stage is not None else self.config.fusion.border

    def mask_at(self, study: StudyPrediction, suv: Volume, threshold: float) -> np.ndarray:
        """The mask of a study at another threshold, by the same method.

        Args:
            study: from `predict_study`, without clicks.
            suv: what it was predicted from.
            threshold: 0 to 1; of a second stage's voxels, else of the views' pixels: what reaches
                it becomes what reaches the fusion's own.

        Returns:
            (z, y, x) uint8 of 0 and 1.
        """
        if threshold == self.volume_threshold:
            return study.mask
        if self._second_stage is not None:
            return (study.probability > threshold).astype(np.uint8)
        views, border = study.view_probability, self.config.fusion.border
        shifted = np.where(
            views < threshold,
            border * views / threshold,
            border + (1 - border) * (views - threshold) / (1 - threshold),
        ).astype(np.float32)
        asked = to_detector(shifted, study.geometry, self.config.pixel_mm)
        return fuse(asked, study.geometry, self.config.fusion, suv.array)
