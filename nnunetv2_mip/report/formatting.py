"""Numbers as the words of a report."""

import math


def fixed(value: float | None, decimals: int) -> str:
    """Number with so many decimals, or a dash where there is none (None, NaN)."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}"
