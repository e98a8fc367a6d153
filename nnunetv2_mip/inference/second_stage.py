"""Second stage in 3D: a nnU-Net of volumes that takes the cue of the views as a channel."""

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnunetv2_mip.conventions import LESION
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.inference.deadline import Cancelled, Deadline
from nnunetv2_mip.inference.l2snet_rules import combine_l2snet
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.nnunet.loading import load_nnunet, quiet
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT
from nnunetv2_mip.nnunet.second_stage_data import STAGE2, stage2_input

COMBINATIONS = ("none", "l2snet")


class SecondStagePredictor:
    """Predictor of a trained second stage, loaded once.

    Attributes:
        channels: what it is given, in order.
        combine: one of `COMBINATIONS`: `none` takes what has a probability above 0.5, `l2snet` the
            rules of `combination`, with the cue of the views.
        mirror: average over mirrored copies, along the axes that training mirrored.
    """

    def __init__(
        self, nnunet_predictor, channels: Sequence[str], combine: str = "none", mirror: bool = True
    ):
        if combine not in COMBINATIONS:
            raise MipError(f"--combine {combine}: choose one of {', '.join(COMBINATIONS)}")
        self._nnunet = nnunet_predictor
        self.channels = tuple(channels)
        self.combine = combine
        self.mirror = mirror

    def override(
        self, combine: str | None = None, mirror: bool | None = None
    ) -> "SecondStagePredictor":
        """The same weights with other choices; None keeps its own."""
        return SecondStagePredictor(
            self._nnunet,
            self.channels,
            self.combine if combine is None else combine,
            self.mirror if mirror is None else mirror,
        )

    @classmethod
    def from_model_folder(
        cls,
        folder: Path | str,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = CHECKPOINT,
        device: str = "cuda",
        combine: str = "none",
        mirror: bool = True,
    ) -> "SecondStagePredictor":
        """Load a model folder that was trained on a data set of `nnUNetv2_mip_convert_stage2`.

        Args:
            folder, folds, checkpoint, device: as of `MIPPredictor.from_model_folder`.
            combine, mirror: see the class.

        Raises:
            MipError: it was trained on something else, or cannot be loaded.
        """
        folder = Path(folder)
        predictor = load_nnunet(folder, folds, checkpoint, device)
        mip = read_json(folder / "dataset.json").get("mip", {})
        if mip.get("source") != STAGE2:
            raise MipError(
                f"{folder}: is not a second stage: train one on a data set of "
                "nnUNetv2_mip_convert_stage2"
            )
        return cls(predictor, mip["channels"], combine, mirror)

    @property
    def module(self) -> torch.nn.Module:
        """The network; nnU-Net loads the weights of one fold after the other into it."""
        network = self._nnunet.network
        return getattr(network, "_orig_mod", network)

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._nnunet.device)

    @property
    def parameters(self) -> int:
        """Number of weights of the network."""
        return sum(weight.numel() for weight in self.module.parameters())

    @property
    def training_batch(self) -> tuple[int, ...]:
        """(B, C, z, y, x) of a batch in training, by its plans."""
        plans = self._nnunet.configuration_manager
        return plans.batch_size, len(self.channels), *plans.patch_size

    def seconds(self, suv: Volume) -> float:
        """Estimated seconds of the network for a study, from one window that is timed."""
        predictor, plan = self._nnunet, self._nnunet.configuration_manager
        patch = torch.zeros(1, len(self.channels), *plan.patch_size, device=predictor.device)
        took = 0.0
        with torch.inference_mode():
            # The first one warms up.
            for _ in range(2):
                begun = time.perf_counter()
                predictor.network.to(predictor.device)(patch).cpu()
                took = time.perf_counter() - begun
        shape = np.round(np.multiply(suv.array.shape, suv.spacing_mm) / plan.spacing)
        return self._windows(shape) * took

    def _windows(self, shape: Sequence[int]) -> int:
        """Number of windows for a study of this shape (z, y, x) on the network's voxels."""
        from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

        predictor, plan = self._nnunet, self._nnunet.configuration_manager
        size = np.maximum(shape, plan.patch_size)
        steps = compute_steps_for_sliding_window(
            tuple(int(n) for n in size), tuple(plan.patch_size), predictor.tile_step_size
        )
        windows = math.prod(len(along) for along in steps) * len(predictor.list_of_parameters)
        if self.mirror and predictor.allowed_mirroring_axes:
            windows *= 2 ** len(predictor.allowed_mirroring_axes)
        return windows

    def predict(
        self, study: Study, cue: np.ndarray, deadline: Deadline | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mask (z, y, x) uint8 and probability (z, y, x) float32 of a study.

        Args:
            study: with its CT for a model with that channel.
            cue: (z, y, x) probability that the views give every voxel.
            deadline: checked before every window; cancels when the network is done.

        Raises:
            MipError: the model wants the CT and there is none.
            Cancelled: raised by the deadline.
        """
        array = stage2_input(
            self.channels,
            study.suv.array,
            None if study.ct is None else study.ct.array,
            cue,
            str(study.source),
        )
        probability = self._probability(array, study.spacing_mm, deadline or Deadline())
        if self.combine == "l2snet":
            return combine_l2snet(probability, cue), probability
        return (probability > 0.5).astype(np.uint8), probability

    def _probability(
        self, array: np.ndarray, spacing_mm: Sequence[float], deadline: Deadline
    ) -> np.ndarray:
        """Probability as of nnU-Net's `predict_single_npy_array`, with checks of the deadline."""
        from nnunetv2.inference.export_prediction import (
            convert_predicted_logits_to_segmentation_with_correct_shape as convert,
        )

        nnunet = self._nnunet
        plans, configuration = nnunet.plans_manager, nnunet.configuration_manager
        properties = {"spacing": [float(step) for step in spacing_mm]}
        with quiet():
            preprocessor = configuration.preprocessor_class(verbose=False)
            data, _, properties = preprocessor.run_case_npy(
                array, None, properties, plans, configuration, nnunet.dataset_json
            )
            with deadline.running():
                deadline.check()
                deadline.windows += self._windows(data.shape[1:])
                nnunet.use_mirroring = self.mirror
                hook = nnunet.network.register_forward_pre_hook(
                    lambda *_: _check_uninterrupted(deadline)
                )
                try:
                    logits = nnunet.predict_logits_from_preprocessed_data(torch.from_numpy(data))
                finally:
                    hook.remove()
                deadline.check()
            _, probabilities = convert(
                logits.cpu(), plans, configuration, nnunet.label_manager, properties, True
            )
        return np.ascontiguousarray(probabilities[LESION], dtype=np.float32)


def _check_uninterrupted(deadline: Deadline) -> None:
    """Check of the deadline, without `Cancelled`: nnU-Net, interrupted, leaves a thread behind."""
    with contextlib.suppress(Cancelled):
        deadline.check()
