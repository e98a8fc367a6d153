"""Ablations: trainers that change a few settings of another one, each file made from one table.

nnU-Net's search for a trainer goes into this folder too. Scores and checkpoints name these classes,
so that their names stay.
"""

from collections.abc import Mapping
from typing import Any


def variants(base: type, changes: Mapping[str, Mapping[str, Any]], module: str) -> dict[str, type]:
    """Subclasses of a trainer with other class attributes, by their names.

    Args:
        base: trainer class.
        changes: suffix of the name → attribute → value.
        module: `__name__` of the module whose classes these are.

    Returns:
        `<name of base>_<suffix>` → class.

    Raises:
        AttributeError: `base` has no such attribute.
    """
    made = {}
    for suffix, attributes in changes.items():
        for attribute in attributes:
            getattr(base, attribute)
        name = f"{base.__name__}_{suffix}"
        made[name] = type(name, (base,), {"__module__": module, **attributes})
    return made
