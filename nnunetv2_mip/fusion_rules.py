"""Which fusion rules exist, without the machinery (settings and commands need only the names)."""

from dataclasses import dataclass

from nnunetv2_mip.errors import MipError

RULES = ("hull", "mean", "max", "visibility")
DEFAULT_RULE = "visibility"


@dataclass(frozen=True)
class FusionRule:
    """How views become a mask.

    Attributes:
        rule: one of `RULES`.
        threshold: 3D probability from which a voxel is lesion.
    """

    rule: str = DEFAULT_RULE
    threshold: float = 0.5

    def __post_init__(self):
        if self.rule not in RULES:
            raise MipError(f"fusion rule {self.rule!r}: choose one of {', '.join(RULES)}")
