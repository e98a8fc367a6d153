"""The network of a trained model, ready to be run: on PyTorch, or on a CPU by OpenVINO.

OpenVINO (an optional package) runs the same float32 network about twice as fast as PyTorch does on
a CPU, to rounding; `NNUNETV2_MIP_ENGINE=torch` does without it.
"""

import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch

ENGINE_VARIABLE = "NNUNETV2_MIP_ENGINE"


class Network:
    """The folds of a model as functions from (B, C, H, W) float32 to logits (B, K, H, W).

    Args:
        module: nnU-Net's network.
        folds: the weights of every fold, as nnU-Net's predictor lists them.
        device: where to run.
    """

    def __init__(self, module: torch.nn.Module, folds: Sequence[dict], device: torch.device):
        # Where nnU-Net was told to compile it, the network lies inside.
        self.module = getattr(module, "_orig_mod", module)
        self.folds = folds
        self.device = device
        self.engine = _engine(device)
        self._loaded: int | None = None
        self._compiled: dict[int, Callable] = {}

    def __len__(self) -> int:
        return len(self.folds)

    def logits(self, images: torch.Tensor, fold: int) -> torch.Tensor:
        """Logits (B, K, H, W) float32 on `device` of one fold (a position in `folds`)."""
        if self.engine == "openvino":
            if fold not in self._compiled:
                self._compiled[fold] = self._compile(fold)
            # OpenVINO hands out its own memory, which the next call overwrites.
            return torch.from_numpy(self._compiled[fold](images.contiguous().numpy())[0].copy())
        self._load(fold)
        if self.device.type == "cuda":
            with torch.autocast("cuda"):
                return self.module(images).float()
        return self.module(images)

    def _load(self, fold: int) -> None:
        if self._loaded != fold:
            self._loaded = None
            self.module.load_state_dict(self.folds[fold])
            self.module.to(self.device).eval()
            self._loaded = fold

    def _compile(self, fold: int) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        self._load(fold)
        channels = next(self.module.parameters()).shape[1]
        example = torch.zeros(1, channels, 64, 64)
        # The front end itself, because `openvino.convert_model` would send telemetry.
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.freeze(
                torch.jit.trace(self.module, example, check_trace=False).eval()
            )
            decoder = TorchScriptPythonDecoder(traced, example_input=example)
            front_end = FrontEndManager().load_by_framework("pytorch")
            model = front_end.convert(front_end.load(decoder))
        model.reshape([-1, channels, -1, -1])
        return openvino.Core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            },
        )


def _engine(device: torch.device) -> str:
    """`openvino` on a CPU where it is installed, else `torch`."""
    if device.type != "cpu" or os.environ.get(ENGINE_VARIABLE) == "torch":
        return "torch"
    try:
        import openvino.frontend.pytorch  # noqa: F401
    except ImportError:
        return "torch"
    return "openvino"
