"""Engine of a trained network: PyTorch, or OpenVINO on a CPU.

OpenVINO (an optional package) runs the same float32 network about twice as fast as PyTorch does on
a CPU, to rounding; `NNUNETV2_MIP_ENGINE=torch` does without it.
"""

import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

ENGINE_VARIABLE = "NNUNETV2_MIP_ENGINE"


class Network:
    """Networks of the folds of a model: (B, C, H, W) float32 to logits (B, K, H, W).

    Args:
        module: nnU-Net's network.
        folds: the weights of every fold, as nnU-Net's predictor lists them.
        device: where to run.
        patch: (rows, columns) the network was trained on.
        multiple: (rows, columns) that its strides divide.

    Attributes:
        asked: how often images of each shape (B, C, H, W) were given to `logits`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        folds: Sequence[dict],
        device: torch.device,
        patch: Sequence[int] = (64, 64),
        multiple: Sequence[int] = (32, 32),
    ):
        # Where nnU-Net was told to compile it, the network lies inside.
        self.module = getattr(module, "_orig_mod", module)
        self.folds = folds
        self.device = device
        self.patch, self.multiple = tuple(patch), tuple(multiple)
        self.engine = _engine(device)
        self.asked: Counter[tuple[int, ...]] = Counter()
        self._loaded: int | None = None
        # By fold, and number of the encoder's stages that are given beside the logits.
        self._compiled: dict[tuple[int, int], Callable] = {}
        self._stages_by_torch = False

    def __len__(self) -> int:
        return len(self.folds)

    def logits(self, images: torch.Tensor, fold: int) -> torch.Tensor:
        """Logits (B, K, H, W) float32 on `device`, of one fold (a position in `folds`)."""
        self.asked[tuple(images.shape)] += 1
        if self.engine == "openvino" and (fold, 0) not in self._compiled:
            self._compile_or_use_torch(fold)
        if self.engine == "openvino":
            # OpenVINO hands out its own memory, which the next call overwrites.
            return torch.from_numpy(self._compiled[fold, 0](images.contiguous().numpy())[0].copy())
        self._load(fold)
        if self.device.type == "cuda":
            with torch.autocast("cuda"):
                return self.module(images).float()
        return self.module(images)

    @torch.inference_mode()
    def stages_and_logits(self, images: torch.Tensor, fold: int, stages: int) -> list[torch.Tensor]:
        """Outputs (B, C, h, w) of the encoder's last stages, then the logits, float32 on the CPU.

        Args:
            images: (B, C, H, W).
            fold: position in `folds`.
            stages: number of stages.
        """
        if self.engine == "openvino" and not self._stages_by_torch:
            if (fold, stages) not in self._compiled:
                self._compile_or_use_torch(fold, stages)
            if not self._stages_by_torch:
                found = self._compiled[fold, stages](images.contiguous().numpy())
                return [torch.from_numpy(found[k].copy()) for k in range(stages + 1)]
        self._load(fold)
        parts = _StagesAndLogits(self.module, stages)(images.to(self.device))
        return [part.float().cpu() for part in parts]

    def torch_module(self, fold: int) -> torch.nn.Module:
        """PyTorch module on `device` with the weights of one fold; not to be changed."""
        self._load(fold)
        return self.module

    def _load(self, fold: int) -> None:
        if self._loaded != fold:
            self._loaded = None
            self.module.load_state_dict(self.folds[fold])
            self.module.to(self.device).eval()
            self._loaded = fold

    def _compile_or_use_torch(self, fold: int, stages: int = 0) -> None:
        """Compilation of a fold by OpenVINO; PyTorch runs all folds where the outputs differ.

        Tracing follows one image through the network. A network that decides by the size of its
        input would be traced wrongly, so that another size is tried.
        """
        rows, columns = (p + m for p, m in zip(self.patch, self.multiple))
        channels = _input_channels(self.module)
        image = torch.rand(1, channels, rows, columns, generator=torch.Generator().manual_seed(0))
        module = _StagesAndLogits(self.module, stages) if stages else self.module
        try:
            compiled = self._compile(fold, module)
            outputs = compiled(image.numpy())
            found = [torch.from_numpy(outputs[k]) for k in range(stages + 1)]
        except Exception as error:
            # Whatever it cannot do: there is another engine.
            self._do_without(f"{type(error).__name__}", stages)
            return
        expected = module(image) if stages else [module(image)]
        pairs = zip(found, expected, strict=True)
        if not all(torch.allclose(one, two, rtol=1e-3, atol=1e-2) for one, two in pairs):
            self._do_without("it gives other results", stages)
            return
        self._compiled[fold, stages] = compiled

    def _do_without(self, reason: str, stages: int) -> None:
        if stages:
            # Masks are made by OpenVINO still.
            self._stages_by_torch = True
            return
        warnings.warn(f"OpenVINO cannot run this network ({reason}); PyTorch does", stacklevel=2)
        self.engine = "torch"
        self._compiled.clear()

    def _compile(
        self, fold: int, module: torch.nn.Module
    ) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Network of OpenVINO for a module on top of `self.module`, with the weights of a fold."""
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        self._load(fold)
        channels = _input_channels(self.module)
        example = torch.zeros(1, channels, *self.patch)
        # The front end itself: what `openvino.convert_model` does beside it is not needed.
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")
            traced = torch.jit.freeze(
                torch.jit.trace(module.eval(), example, check_trace=False).eval()
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
                # A pinned thread waits where another process has its core.
                "ENABLE_CPU_PINNING": False,
            },
        )


class _StagesAndLogits(torch.nn.Module):
    """Network that gives its encoder's last outputs too, before the logits."""

    def __init__(self, network: torch.nn.Module, stages: int):
        super().__init__()
        self.network, self.stages = network, stages

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        kept: list[torch.Tensor] = []
        hook = self.network.get_submodule("encoder").register_forward_hook(
            lambda own, inputs, outputs: kept.extend(outputs)
        )
        try:
            logits = self.network(images)
        finally:
            hook.remove()
        logits = logits[0] if isinstance(logits, list | tuple) else logits
        return (*kept[-self.stages :], logits)


def _input_channels(module: torch.nn.Module) -> int:
    """Number of input channels of the first convolution."""
    return next(weight.shape[1] for weight in module.parameters() if weight.ndim == 4)


def _engine(device: torch.device) -> str:
    """`openvino` on a CPU where it is installed, else `torch`."""
    if device.type != "cpu" or os.environ.get(ENGINE_VARIABLE) == "torch":
        return "torch"
    # Importing openvino reports itself to a server, by a forked process and a thread that is waited
    # for at exit. A package that cannot be imported keeps it from that, and from a file at home.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino.frontend.pytorch  # noqa: F401
    except Exception:
        # Not installed, or damaged.
        return "torch"
    return "openvino"
