"""What the CPU can do for a network."""

import torch


def has_bfloat16_arithmetic() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX).

    Without it PyTorch emulates, which is slower than float32. Older PyTorch cannot tell: False.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
