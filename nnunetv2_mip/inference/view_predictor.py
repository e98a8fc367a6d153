"""Predictor of images and view stacks: a trained 2D nnU-Net model, in memory.

Preprocessing and the way back to pixels are nnU-Net's own; windows, mirrored copies and folds are
those of `sliding_window`, with nnU-Net's results. No worker process is started. The settings are
read from the model folder's `inference.json`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunetv2_mip.conventions import LESION, PNG_PIXEL_MM, VIEW_AXIS_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.config import InferenceConfig
from nnunetv2_mip.inference.deadline import Deadline, WorkDone
from nnunetv2_mip.inference.engine import Network
from nnunetv2_mip.inference.impulse_noise import without_impulses
from nnunetv2_mip.inference.postprocessing import mask_of_image, mask_of_view
from nnunetv2_mip.inference.sliding_window import Windows, mirrored_copies, run_passes
from nnunetv2_mip.nnunet.loading import load_nnunet, quiet, stride_of
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, first_stage_folder, folds_with_checkpoint
from nnunetv2_mip.views.settings import check_channels
from nnunetv2_mip.wording import counted

if TYPE_CHECKING:
    from typing import Self


class ViewPredictor:
    """Predictor of views with a trained model, loaded once.

    Attributes:
        config: settings; `override` gives a predictor with other choices and the same weights.
    """

    def __init__(
        self,
        nnunet_predictor,
        config: InferenceConfig,
        first_stage: "ViewPredictor | None" = None,
        network: Network | None = None,
    ):
        self._nnunet = nnunet_predictor
        self.config = config
        self._first_stage = first_stage
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
    ) -> "Self":
        """Load a model folder as nnU-Net's training leaves it.

        Args:
            folder: has dataset.json, plans.json, fold_*/ and (from our trainers) inference.json.
                For the second stage of a cascade the first one is looked for within it
                (`model_folder.FIRST_STAGE_FOLDER`), then beside it, where training leaves it.
            folds: folds to average, None for all that are there.
            checkpoint: file name in the fold folders.
            device: `cpu`, `cuda` or `mps`; `cuda` falls back to `cpu` where there is none.

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
        first = None
        if stage is not None:
            before = first_stage_folder(folder, stage)
            first = ViewPredictor.from_model_folder(before, folds, checkpoint, device)
        return cls(predictor, config, first)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._nnunet.device)

    @property
    def parameters(self) -> int:
        """Number of weights of the network, of both where it is a cascade."""
        own = sum(weight.numel() for weight in self._nnunet.network.parameters())
        return own + (self._first_stage.parameters if self._first_stage else 0)

    def override(self, **choices: Any) -> "Self":
        """The same weights with other choices (see `InferenceConfig.changed`)."""
        return self._changed(config=self.config.changed(**choices))

    def _changed(self, **parts: Any) -> "Self":
        """A predictor of the same kind that shares all but these parts."""
        return type(self)(**{**self._parts(), **parts})

    def _parts(self) -> dict[str, Any]:
        return {
            "nnunet_predictor": self._nnunet,
            "config": self.config,
            "first_stage": self._first_stage,
            "network": self._network,
        }

    @property
    def networks(self) -> list[Network]:
        """All networks of a prediction: that of a first stage where there is one, then its own."""
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
        """Engine of the network: `torch` or `openvino`."""
        return self._network.engine

    def view_probabilities(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline | None = None
    ) -> np.ndarray:
        """Lesion probability of every pixel of a stack.

        Args:
            levels: (C, V, H, W) in the order of the model's channels, or (V, H, W) for a model of
                one channel; 0–255, bright is uptake.
            pixel_mm: (row, column) spacing.
            deadline: may cut the work short; its `work_done` is set.

        Returns:
            (V, H, W) float32 in [0, 1].

        Raises:
            MipError: another number of channels than the model has.
            Cancelled: raised by the deadline.
        """
        deadline = deadline or Deadline()
        levels = self._checked(levels)
        if not self._shows_uptake(levels, pixel_mm):
            return np.zeros(levels.shape[1:], np.float32)
        data, properties, work_done = self._input(levels, pixel_mm, deadline)
        with deadline.running():
            logits = self._logits(data, deadline)
        probabilities = self._probabilities(logits, properties)
        if work_done is not None and work_done.degraded:
            # Both stages make the answer; the one that was cut short is told.
            deadline.work_done = work_done
        return probabilities

    def network_input(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> torch.Tensor:
        """Input of the network for a stack, before it is cut or padded.

        Args:
            levels, pixel_mm: as of `view_probabilities`.

        Returns:
            (C, V, h, w) float32, standardised, on the network's pixels, cropped to what is not
            zero, with the channels of a first stage after those of the model.

        Raises:
            MipError: another number of channels than the model has, or nothing in the stack.
        """
        levels = self._checked(levels)
        if not self._shows_uptake(levels, pixel_mm):
            raise MipError("the image is empty: it shows no uptake at all")
        return self._input(levels, pixel_mm, Deadline())[0]

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """(row, column) of the network's own pixels."""
        rows, columns = self._nnunet.configuration_manager.spacing[-2:]
        return float(rows), float(columns)

    @property
    def network(self) -> Network:
        """The networks of the folds."""
        return self._network

    @property
    def windows(self) -> Windows | None:
        """Windows of the network; None for a configuration that nnU-Net itself runs."""
        plans = self._nnunet.configuration_manager
        if len(plans.patch_size) != 2:
            return None
        stride = stride_of(plans)
        rows, columns = plans.patch_size
        return Windows(
            (rows, columns),
            (1, 1) if stride is None else (stride[0], stride[1]),
            self.config.tiling == "whole" and stride is not None,
        )

    @property
    def mirrored_axes(self) -> tuple[int, ...] | None:
        """The axes that the network was trained with mirrored, 0 for rows and 1 for columns."""
        return self._nnunet.allowed_mirroring_axes

    def predict_image(
        self, levels: np.ndarray, deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask and probability of one MIP-PET image, as `png.decode_png` gives it.

        Args:
            levels: (H, W), 0–255, bright is uptake, pixels of 2 mm.
            deadline: as of `view_probabilities`.

        Returns:
            mask (H, W) uint8 of 0 and 1, and probability (H, W) float32.
        """
        pixel = (PNG_PIXEL_MM, PNG_PIXEL_MM)
        probability = self.view_probabilities(levels[None], pixel, deadline)[0]
        return mask_of_image(probability, self.config), probability

    def predict_stack(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Masks (V, H, W) uint8 and probabilities (V, H, W) float32 of a stack of views."""
        probabilities = self.view_probabilities(levels, pixel_mm, deadline)
        masks = np.stack([mask_of_view(view, self.config) for view in probabilities])
        return masks, probabilities

    def _checked(self, levels: np.ndarray) -> np.ndarray:
        """(C, V, H, W) of a stack that has the model's channels."""
        if levels.ndim == 3:
            levels = levels[None]
        channels = self.config.channels
        if len(levels) != len(channels):
            raise MipError(
                f"the input has {counted(len(levels), 'channel')}, the model wants "
                f"{len(channels)} ({', '.join(channels)}): give it the SUV volume, with its CT "
                "where that is a channel"
            )
        return levels

    def _input(
        self, levels: np.ndarray, pixel_mm: tuple[float, float], deadline: Deadline
    ) -> tuple[torch.Tensor, dict, WorkDone | None]:
        """Input of the network after filter and first stage, and the first stage's work."""
        if self.config.prefilter == "impulse":
            # The SUV channel: PNGs have no other, and CT and depth are computed here.
            cleaned = [without_impulses(view) for view in levels[0]]
            levels = np.concatenate([np.stack(cleaned)[None], levels[1:]])
        found, work_done = None, None
        if self._first_stage is not None:
            first = self._first_stage.override(tta=self.config.tta, prefilter="none")
            # The first stage's mask in nnU-Net's form: as training was given it.
            found = (first.view_probabilities(levels, pixel_mm, deadline) >= 0.5).astype(np.int16)[
                None
            ]
            work_done = deadline.work_done
        return *self._preprocess(levels, pixel_mm, found), work_done

    def _shows_uptake(self, levels: np.ndarray, pixel_mm: tuple[float, float]) -> bool:
        """Whether the levels above 0 (nnU-Net crops to their box) fill a pixel of the network."""
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

    def _logits(self, data: torch.Tensor, deadline: Deadline) -> torch.Tensor:
        nnunet, config = self._nnunet, self.config
        if self.windows is None:
            # A 3D configuration over the view axis is run by nnU-Net itself, all at once: the
            # deadline gets no count of windows or of the work done, and cannot stop it.
            deadline.check()
            nnunet.use_mirroring = config.tta
            with quiet():
                return nnunet.predict_logits_from_preprocessed_data(data).float()
        copies = mirrored_copies(self.mirrored_axes if config.tta else None)
        heads = nnunet.label_manager.num_segmentation_heads
        return run_passes(self._network, data, heads, self.windows, copies, deadline)

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
