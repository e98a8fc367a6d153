"""CPU settings for training: bfloat16 arithmetic and the number of threads."""

import os
from typing import Any

import torch


def has_bfloat16_arithmetic() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it PyTorch emulates, which is slower than float32. False where PyTorch is too old to
    report it.
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def apply_thread_limit() -> None:
    """Set torch's number of threads to OMP_NUM_THREADS, where that is set.

    nnU-Net's commands set the number of cores, whatever the user asked for. Threads wait for each
    other at every layer: beside other work, one is faster than two.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        torch.set_num_threads(int(wanted))
