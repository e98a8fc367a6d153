"""Run of the challenge container: a mask in time in any case, with all settings where time allows.

Whatever happens once the PET has been read, an answer is written: where inference fails, or is not
done when the time is over, a mask of nothing but the reader's clicks, with the reason in the log.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import check_output
from nnunetv2_mip.fusion.click_refinement import with_clicks
from nnunetv2_mip.grand_challenge.layout import (
    ChallengeStudy,
    answer_path,
    read_challenge_ct,
    read_challenge_pet,
    write_answer,
)
from nnunetv2_mip.grand_challenge.time_budget import Setting, fit_to_budget
from nnunetv2_mip.inference.progress import PredictionBar
from nnunetv2_mip.io.clicks import Clicks, read_clicks
from nnunetv2_mip.io.read_study import Study
from nnunetv2_mip.io.volumes import Volume, suv_warning

if TYPE_CHECKING:
    from nnunetv2_mip.inference.predictor import MIPPredictor

# Of the budget this much is left for writing the answer when inference is not done.
WRITING_S = 5.0


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Attributes:
        model: folder of the model.
        device: as `MIPPredictor.from_model_folder` takes it.
        budget_s: seconds from `started` to the answer.
        started: `time.monotonic()` at the start of the run.
        data_centric: what edition III is told.
        strict: a run without the model's mask fails instead, for tests of an image or a model.
    """

    model: Path
    device: str
    budget_s: float
    started: float
    data_centric: bool = False
    strict: bool = False

    @property
    def left_s(self) -> float:
        return self.budget_s - (time.monotonic() - self.started)


def run_study(
    study: ChallengeStudy,
    output: Path,
    options: RunOptions,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> Path:
    """Segment a study and write its mask; returns the path of the mask.

    Where the time is over before the mask is there, the process ends here, with exit code 0 (1 if
    strict).

    Args:
        study: from `grand_challenge.find_study`.
        output: as the platform mounts it.
        options: of the run.
        say, warn: called with each line for the log.

    Raises:
        MipError: the input, the model or the output cannot be used; nothing is written then.
        Exception: strict, and what made the inference fail; nothing is written either.
    """
    check_output(answer_path(study, output))
    pet = read_challenge_pet(study.pet, warn)
    say(f"{study.pet}: {pet.grid.describe()}")
    warning = suv_warning(pet) if pet.array.any() else None
    if warning:
        warn(warning)
    clicks = Clicks()
    if study.clicks is not None:
        clicks = read_clicks(study.clicks, pet.grid, warn)
        say(f"{study.clicks}: clicks: {clicks}")
    answer = _Answer(pet, clicks, study, output, options)
    timer = threading.Timer(
        max(0.0, options.left_s - WRITING_S), answer.write_clicks_and_exit, [warn]
    )
    timer.daemon = True
    timer.start()
    try:
        mask = _mask(study, pet, clicks, options, say, warn)
    except MipError:
        raise
    except Exception as error:
        if options.strict:
            raise
        warn(f"inference failed, the mask holds the clicks alone: {_reason(error)}")
        mask = answer.of_clicks()
    finally:
        timer.cancel()
    return answer.write(mask)


def _mask(study, pet, clicks, options, say, warn) -> np.ndarray:
    """Mask of the model, tried again on the CPU where the GPU fails."""
    if not pet.array.any():
        return with_clicks(np.zeros(pet.array.shape, np.uint8), pet.array, clicks, pet.spacing_mm)
    from nnunetv2_mip.inference.predictor import MIPPredictor

    try:
        predictor = MIPPredictor.from_model_folder(options.model, device=options.device)
        return _predict(predictor, study, pet, clicks, options, say, warn)
    except Exception as error:
        # nnU-Net's loader cannot tell a GPU without memory from a damaged file: the CPU can.
        if options.device == "cpu" or not _has_gpu():
            raise
        warn(f"inference on the GPU failed and is done on the CPU: {_reason(error)}")
    predictor = MIPPredictor.from_model_folder(options.model, device="cpu")
    return _predict(predictor, study, pet, clicks, options, say, warn)


def _predict(
    predictor: "MIPPredictor",
    study: ChallengeStudy,
    pet: Volume,
    clicks: Clicks,
    options: RunOptions,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> np.ndarray:
    ct = read_challenge_ct(study.ct, pet, warn) if predictor.wants_ct else None
    volumes = Study(pet, ct)
    fitted = fit_to_budget(predictor, volumes, options.left_s - WRITING_S)
    config = fitted.config
    if fitted is not predictor:
        asked = Setting(predictor.config.views, predictor.config.tta)
        dropped = fitted.second_stage is None and predictor.second_stage is not None
        warn(
            f"degraded for time ({options.budget_s:g} s): {Setting(config.views, config.tta)} "
            f"instead of {asked}{', without the second stage' if dropped else ''}"
        )
    say(f"{options.model}: {Setting(config.views, config.tta)}, on {fitted.device}")
    with PredictionBar(1) as bar:
        return fitted.predict_study(volumes, clicks=clicks, deadline=bar).mask


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"


class _Answer:
    """Answer of a run, written once: by the run, or by its timer."""

    def __init__(self, pet, clicks, study, output, options):
        self.pet, self.clicks, self.study = pet, clicks, study
        self.output, self.options = output, options
        self.lock, self.written = threading.Lock(), False

    def write(self, mask: np.ndarray) -> Path:
        with self.lock:
            self.written = True
            return write_answer(
                mask, self.pet.grid, self.study, self.output, self.options.data_centric
            )

    def of_clicks(self) -> np.ndarray:
        """Mask (z, y, x) of the clicks alone; at worst their voxels."""
        mask = np.zeros(self.pet.array.shape, np.uint8)
        try:
            return with_clicks(mask, self.pet.array, self.clicks, self.pet.spacing_mm)
        except Exception:
            for click in self.clicks.tumour:
                mask[click] = 1
            return mask

    def write_clicks_and_exit(self, warn: Callable[[str], None]) -> None:
        """Write the mask of the clicks, and end the process: nothing else stops an inference."""
        mask = self.of_clicks()
        with self.lock:
            if self.written:
                return
            warn(f"the time is over ({self.options.budget_s:g} s), the mask holds the clicks alone")
            write_answer(mask, self.pet.grid, self.study, self.output, self.options.data_centric)
            os._exit(1 if self.options.strict else 0)
