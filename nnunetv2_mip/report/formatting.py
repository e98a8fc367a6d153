"""Numbers as the words of a report."""

import math


def counted(number: int, noun: str) -> str:
    """Number with its noun: `1 case`, `2 cases`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def fixed(value: float | None, decimals: int) -> str:
    """Number with so many decimals, or a dash where there is none (None, NaN)."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{decimals}f}"
