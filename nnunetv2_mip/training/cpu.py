"""What the CPU can do for a network."""

import os

import torch


def has_bfloat16_arithmetic() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it PyTorch emulates, which is slower than float32. Older PyTorch cannot tell: False.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def obey_thread_limit() -> None:
    """Compute in as many threads as OMP_NUM_THREADS says, where it says so.

    nnU-Net's commands set as many as there are cores, whatever the user asked for. Threads wait for
    each other at every layer: beside other work, one is faster than two.
    """
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        torch.set_num_threads(int(wanted))
