"""Names and settings of the fusion rules.

Settings and commands import these without the computations.
"""

from dataclasses import dataclass

from nnunetv2_mip.errors import MipError

# Rules that decide each voxel alone. `explain` is the rule that decides on a mask as a whole.
VOTES = ("hull", "mean", "max", "visibility")
RULES = ("explain", *VOTES)
DEFAULT_RULE = "explain"
# Distance within which the peak uptake of a voxel's region is looked for. In a large lesion of
# uneven uptake a far peak would remove the faint parts.
UPTAKE_RADIUS_MM = 12.0
# Weight of a view in which a voxel is hidden completely. A view in which the voxel is the maximum
# of its ray has 1 more.
UNSEEN_WEIGHT = 0.02


@dataclass(frozen=True)
class FusionRule:
    """Settings of the fusion of views to a mask.

    Attributes:
        rule: one of `RULES`.
        threshold: 3D probability from which a voxel belongs to a lesion's region. `explain` does
            not use it.
        uptake_share: isocontour. Only voxels of a region stay whose SUV is at least this share of
            the highest SUV of the region within `UPTAKE_RADIUS_MM`; 0 keeps the whole region.
        outline_share: the outlines of regions move by a few millimetres to where the SUV is this
            share of the contrast between surroundings and the highest uptake nearby (see
            `fusion.outlines`); 0 leaves them.
        smallest_ml: smaller components (18-connected) are removed; 0 keeps all.
        view_threshold: probability of a view's pixel from which `explain` takes it for marked. The
            other rules do not use it.

    Raises:
        MipError: a value out of range.
    """

    rule: str = DEFAULT_RULE
    threshold: float = 0.5
    uptake_share: float = 0.0
    smallest_ml: float = 0.0
    view_threshold: float = 0.5
    outline_share: float = 0.0

    def __post_init__(self):
        if self.rule not in RULES:
            raise MipError(f"fusion rule {self.rule!r}: choose one of {', '.join(RULES)}")
        if not 0 <= self.uptake_share < 1:
            raise MipError(f"uptake share {self.uptake_share}: must lie in [0, 1)")
        if not 0 <= self.outline_share < 1:
            raise MipError(f"outline share {self.outline_share}: must lie in [0, 1)")
        if not self.smallest_ml >= 0:
            raise MipError(f"smallest component {self.smallest_ml} ml: must not be below 0")
        if not 0 < self.view_threshold < 1:
            raise MipError(f"view threshold {self.view_threshold}: must lie between 0 and 1")

    @property
    def border(self) -> float:
        """Probability of a view's pixel at which a lesion begins."""
        return self.view_threshold if self.rule == "explain" else self.threshold


# Default for views predicted by a network. Nothing else that was measured on simulated patients
# helped (docs/results/fusion.md).
PREDICTED_VIEWS = FusionRule(DEFAULT_RULE, smallest_ml=0.2)
