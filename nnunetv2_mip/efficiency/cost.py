"""Cost of a prediction or of a training step: operations, time, memory, energy.

Operations are those that torch's `FlopCounterMode` counts, two for a multiplication with its
addition: convolutions, their transposes and matrix products. Each input shape of a network is
counted once, on torch's device `meta` that computes nothing, and multiplied by the number of its
inputs: so OpenVINO's runs, which torch does not see, are counted like torch's.
"""

import contextlib
import copy
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forward_operations(module: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Operations of a network for an input of `shape` (B, C, *spatial)."""
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        _on_meta(module).eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops()


def training_operations(module: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Operations of a forward and a backward pass for a batch of `shape` (B, C, *spatial)."""
    with torch.inference_mode(False), torch.enable_grad(), FlopCounterMode(display=False) as count:
        _on_meta(module).train()(torch.empty(shape, device="meta")).sum().backward()
    return count.get_total_flops()


def _on_meta(module: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(module).to("meta")


class OperationCount:
    """Counter of the operations of a predictor's networks.

    Args:
        predictor: a `MIPPredictor` (all of its stages count) or a `SecondStagePredictor`.
    """

    def __init__(self, predictor):
        self._networks = list(getattr(predictor, "networks", ()))
        # Networks over volumes run in nnU-Net's own loop: a hook counts their inputs.
        self._volumetric = [n.module for n in self._networks if len(n.patch) != 2]
        second = getattr(predictor, "second_stage", None)
        if second is not None:
            self._volumetric.append(second.module)
        if not self._networks:
            self._volumetric.append(predictor.module)
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Context of a count: `with count.counting() as operations:`.

        After the block `operations[0]` is the number of operations in it.
        """
        found: list[int] = []
        before = [Counter(network.asked) for network in self._networks]
        shapes: list[Counter[tuple[int, ...]]] = [Counter() for _ in self._volumetric]
        hooks = [
            module.register_forward_pre_hook(
                lambda _, inputs, seen=seen: seen.update([tuple(inputs[0].shape)])
            )
            for module, seen in zip(self._volumetric, shapes)
        ]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()
        asked = [(n.module, n.asked - old) for n, old in zip(self._networks, before)]
        found.append(
            sum(
                times * self._of(module, shape)
                for module, seen in [*asked, *zip(self._volumetric, shapes)]
                for shape, times in seen.items()
            )
        )

    def _of(self, module: torch.nn.Module, shape: tuple[int, ...]) -> int:
        key = (id(module), shape)
        if key not in self._known:
            self._known[key] = forward_operations(module, shape)
        return self._known[key]


@dataclass
class Cost:
    """Cost of a piece of work.

    Attributes:
        seconds: wall-clock time.
        cpu_seconds: CPU time of all threads of this process.
        peak_mb: peak memory of this process meanwhile, with its libraries and the model; None
            where the system does not report it.
        peak_gpu_mb: peak memory that torch allocated on the GPU; None without a GPU.
        energy_wh: codecarbon's estimate (CPU, GPU and RAM); None without it.
        processor_wh: the estimate of CPU and GPU alone. It grows with the work. That of the RAM
            grows with the clock, so on a shared machine also with the work of others.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float | None = None
    peak_gpu_mb: float | None = None
    energy_wh: float | None = None
    processor_wh: float | None = None


class Meter:
    """Meter of the cost of pieces of work in this process.

    Args:
        device: device of the networks.
        energy: whether energy is estimated too. Where that is not possible, `reason` says why.
    """

    def __init__(self, device: str, energy: bool = True):
        self._gpu = device.startswith("cuda")
        self._tracker: Any = None
        self.reason: str | None = "not asked for"
        if energy:
            self._tracker, self.reason = _energy_tracker()

    @contextlib.contextmanager
    def measuring(self) -> Iterator[Cost]:
        """Context of a measurement: `with meter.measuring() as cost:`.

        `cost` is complete after the block.
        """
        cost, used = Cost(), None
        _forget_peak()
        if self._gpu:
            torch.cuda.reset_peak_memory_stats()
        if self._tracker is not None:
            self._tracker.start_task()
        start, worked = time.perf_counter(), time.process_time()
        try:
            yield cost
            if self._gpu:
                torch.cuda.synchronize()
        finally:
            cost.seconds = time.perf_counter() - start
            cost.cpu_seconds = time.process_time() - worked
            if self._tracker is not None:
                used = self._tracker.stop_task()
        cost.peak_mb = peak_memory_mb()
        if self._gpu:
            cost.peak_gpu_mb = torch.cuda.max_memory_allocated() / 2**20
        if used is not None:
            cost.energy_wh = used.energy_consumed * 1000
            cost.processor_wh = (used.cpu_energy + used.gpu_energy) * 1000


def _energy_tracker() -> tuple[Any, str | None]:
    """codecarbon's tracker of this process and None, or None and the reason."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return None, 'codecarbon is not installed: pip install ".[study]"'
    # codecarbon logs some lines before it applies its own log level.
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    try:
        tracker = OfflineEmissionsTracker(
            # Only emissions depend on the country, and they are not reported.
            country_iso_code="DEU",
            tracking_mode="process",
            # A processor's own counters know nothing of processes: they count the whole machine.
            force_mode_cpu_load=True,
            output_methods=[],
            allow_multiple_runs=True,
            log_level="critical",
        )
        tracker.start_task()
        if tracker.stop_task() is None:
            return None, "codecarbon measured nothing"
    except Exception as error:
        # codecarbon may not know this machine; everything else can be measured without it.
        return None, f"codecarbon cannot run here ({type(error).__name__}: {error})"
    return tracker, None


def peak_memory_mb() -> float | None:
    """Peak resident memory (MB of 2^20 bytes) of this process since `_forget_peak` or its start.

    None where the system does not report it.
    """
    if _STATUS.is_file():
        for line in _STATUS.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    # Bytes on macOS, kB elsewhere.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _forget_peak() -> None:
    # Where that is not possible, the peak since the start of the process is reported.
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def training_cost(
    module: torch.nn.Module,
    shape: tuple[int, ...],
    classes: int,
    device: str,
    meter: Meter,
    iterations: int,
) -> dict:
    """Cost of an iteration of training: forward, backward and a step of AdamW.

    The network alone, in float32, on noise with cross-entropy: augmentation and nnU-Net's deep
    supervision come on top.

    Args:
        module: the network; it is left as it is.
        shape: (B, C, *spatial) of a batch by its plans.
        classes: number of logits.
        device: device of the training.
        meter: measures the iterations, after one that is not measured.
        iterations: number of measured iterations.

    Returns:
        `operations` of an iteration, `iterations`, and the mean `seconds`, `cpu_seconds`,
        `energy_wh` and `processor_wh` of one; `peak_mb` and `peak_gpu_mb` of all.
    """
    operations = training_operations(module, shape)
    with torch.inference_mode(False), torch.enable_grad():
        network = copy.deepcopy(module).to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(shape, generator=generator).to(device)
        labels = torch.randint(0, classes, (shape[0], *shape[2:]), generator=generator).to(device)

        def step() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

        step()
        with meter.measuring() as cost:
            for _ in range(iterations):
                step()
    found: dict[str, Any] = {"operations": operations, "iterations": iterations}
    for name in ("seconds", "cpu_seconds", "energy_wh", "processor_wh"):
        value = getattr(cost, name)
        found[name] = None if value is None else value / iterations
    return {**found, "peak_mb": cost.peak_mb, "peak_gpu_mb": cost.peak_gpu_mb}
