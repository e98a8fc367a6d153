"""Loading of a model folder into nnU-Net's predictor, and the device it runs on."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch

from nnunetv2_mip.errors import MipError
from nnunetv2_mip.nnunet.model_folder import CHECKPOINT, folds_with_checkpoint
from nnunetv2_mip.nnunet.paths import add_own_trainers


def load_nnunet(
    folder: Path,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = CHECKPOINT,
    device: str = "cuda",
):
    """nnU-Net's predictor with the model of a folder; nothing is printed on stdout.

    Args:
        folder: model folder.
        folds: to average, None for all that are there.
        checkpoint: file name in the fold folders.
        device: see `torch_device`.

    Raises:
        MipError: the folder lacks something, or the model cannot be loaded.
    """
    folds = folds_with_checkpoint(folder, folds, checkpoint)
    add_own_trainers()
    with quiet():
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        target = torch_device(device)
        predictor = nnUNetPredictor(
            perform_everything_on_device=target.type == "cuda",
            device=target,
            allow_tqdm=False,
        )
        try:
            predictor.initialize_from_trained_model_folder(str(folder), tuple(folds), checkpoint)
        except (RuntimeError, UnpicklingError, EOFError, OSError) as error:
            # A damaged checkpoint, or a trainer class that nnU-Net cannot find.
            raise MipError(f"{folder}: the model cannot be loaded: {error}") from None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            # Plans or a checkpoint that lack something: the error alone says too little.
            raise MipError(
                f"{folder}: the model cannot be loaded, is it whole? ({type(error).__name__}: "
                f"{error})"
            ) from None
    return predictor


def stride_of(configuration_manager) -> tuple[int, ...] | None:
    """Product of the network's strides along every axis; None where its plans have no strides."""
    strides = configuration_manager.network_arch_init_kwargs.get("strides")
    return None if strides is None else tuple(map(int, np.prod(strides, axis=0)))


def torch_device(name: str) -> torch.device:
    """Device of a name; `cuda` is `cpu` on a machine without a GPU.

    Raises:
        MipError: there is no such device.
    """
    if name == "cuda" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise MipError("-device mps: this machine has none, or its torch cannot use it; use cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise MipError(f"-device {name}: unknown device; use cpu, cuda or mps") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context without nnU-Net's messages on stdout (`NNUNETV2_MIP_VERBOSE=1` shows them)."""
    if os.environ.get("NNUNETV2_MIP_VERBOSE"):
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
