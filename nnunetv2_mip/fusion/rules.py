"""Which fusion rules exist, without the machinery (settings and commands need only the names)."""

from dataclasses import dataclass

from nnunetv2_mip.errors import MipError

# Rules that ask every voxel alone, and the one that looks for the best mask as a whole.
VOTES = ("hull", "mean", "max", "visibility")
RULES = ("explain", *VOTES)
DEFAULT_RULE = "explain"
# Large lesions are uneven: their faint parts are measured against peaks nearby, not far away.
UPTAKE_RADIUS_MM = 12.0
# Weight of a view that cannot see a voxel at all: silence is weak evidence, not none. A view that
# sees it as the maximum of the ray has 1 more.
UNSEEN_WEIGHT = 0.02


@dataclass(frozen=True)
class FusionRule:
    """How views become a mask.

    Attributes:
        rule: one of `RULES`.
        threshold: 3D probability from which a voxel belongs to a lesion's region. `explain` weighs
            the views against each other instead.
        uptake_share: of such a region only voxels stay whose SUV is at least this share of the
            highest SUV of the region within `UPTAKE_RADIUS_MM`, the isocontour by which readers
            outline lesions; 0 keeps the whole region.
        smallest_ml: smaller components (18-connected) are dropped; 0 keeps all.
    """

    rule: str = DEFAULT_RULE
    threshold: float = 0.5
    uptake_share: float = 0.0
    smallest_ml: float = 0.0

    def __post_init__(self):
        if self.rule not in RULES:
            raise MipError(f"fusion rule {self.rule!r}: choose one of {', '.join(RULES)}")
        if not 0 <= self.uptake_share < 1:
            raise MipError(f"uptake share {self.uptake_share}: must lie in [0, 1)")
        if not self.smallest_ml >= 0:
            raise MipError(f"smallest component {self.smallest_ml} ml: must not be below 0")

    @property
    def border(self) -> float:
        """Probability of a view's pixel at which a lesion begins."""
        return 0.5 if self.rule == "explain" else self.threshold


# Specks go. Of what was measured on simulated patients nothing else helped (docs/fusion.md).
PREDICTED_VIEWS = FusionRule(DEFAULT_RULE, smallest_ml=0.2)
