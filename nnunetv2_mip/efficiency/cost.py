"""What an answer costs: operations of the networks, time, memory, energy.

Operations are those that torch's `FlopCounterMode` counts, two for a multiplication with its
addition: convolutions, their transposes and matrix products. Each shape that a network was given is
counted once, on torch's device `meta` that computes nothing, and multiplied by how often it came:
so OpenVINO's runs, which torch does not see, are counted like torch's.
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
    """Counts what the networks of a predictor do.

    Args:
        predictor: a `MIPPredictor` (all of its stages count) or a `SecondStagePredictor`.
    """

    def __init__(self, predictor):
        self._networks = list(getattr(predictor, "networks", ()))
        # Networks over volumes run in nnU-Net's own loop: these are watched by a hook.
        self._volumetric = [n.module for n in self._networks if len(n.patch) != 2]
        second = getattr(predictor, "second_stage", None)
        if second is not None:
            self._volumetric.append(second.module)
        if not self._networks:
            self._volumetric.append(predictor.module)
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    @contextlib.contextmanager
    def counting(self) -> Iterator[list[int]]:
        """`with count.counting() as operations:`; afterwards `operations[0]` is their number."""
        found: list[int] = []
        before = [Counter(network.asked) for network in self._networks]
        shapes = [Counter() for _ in self._volumetric]
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
    """What a piece of work took.

    Attributes:
        seconds: of the clock.
        cpu_seconds: of all threads of this process.
        peak_mb: most memory that this process held meanwhile, its libraries and the model
            included; None where the system does not tell.
        peak_gpu_mb: likewise of the GPU, what torch allocated; None without one.
        energy_wh: codecarbon's estimate (CPU, GPU and RAM); None without it.
        processor_wh: that of CPU and GPU alone. It grows with the work; that of the RAM grows with
            the clock, so on a shared machine with the work of others too.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float | None = None
    peak_gpu_mb: float | None = None
    energy_wh: float | None = None
    processor_wh: float | None = None


class Meter:
    """Measures pieces of work in this process.

    Args:
        device: where the networks run.
        energy: also estimate energy; `reason` then says why not, where that cannot be.
    """

    def __init__(self, device: str, energy: bool = True):
        self._gpu = device.startswith("cuda")
        self._tracker, self.reason = _energy_tracker() if energy else (None, "not asked for")

    @contextlib.contextmanager
    def measuring(self) -> Iterator[Cost]:
        """`with meter.measuring() as cost:`; `cost` is complete afterwards."""
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


def _energy_tracker():
    """codecarbon's tracker of this process, or None, and why not."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return None, 'codecarbon is not installed: pip install ".[study]"'
    # It sets its level only after the first lines.
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
        # Whatever it does not find on this machine: the rest can be measured without it.
        return None, f"codecarbon cannot run here ({type(error).__name__}: {error})"
    return tracker, None


def peak_memory_mb() -> float | None:
    """Most resident memory (MB of 2^20 bytes) of this process since `_forget_peak`, or its start.

    None where the system does not tell.
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
    # Where that is not possible the peak is that of the process so far, which is no less.
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
    """What an iteration of training costs: forward, backward and a step of AdamW.

    The network alone, in float32, on noise with cross-entropy: augmentation and nnU-Net's deep
    supervision come on top.

    Args:
        module: the network; it is left as it is.
        shape: (B, C, *spatial) of a batch by its plans.
        classes: number of logits.
        device: where to run.
        meter: measures the iterations, after one that is not measured.
        iterations: how many to measure.

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
    found = {"operations": operations, "iterations": iterations}
    for name in ("seconds", "cpu_seconds", "energy_wh", "processor_wh"):
        value = getattr(cost, name)
        found[name] = None if value is None else value / iterations
    return {**found, "peak_mb": cost.peak_mb, "peak_gpu_mb": cost.peak_gpu_mb}
