"""Settings of the views of a study: angles, channels, intensity window, pixel size, labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nnunetv2_mip.conventions import DEFAULT_ARC_DEG, DEFAULT_VIEWS, DEFAULT_WINDOW_SUV
from nnunetv2_mip.errors import MipError

# The SUV is the first: its maximum decides which voxel of a ray is shown. The other channels
# describe that voxel.
CHANNELS = ("suv", "ct", "depth")
LABEL_MODES = ("projected", "visible", "ignore")


@dataclass(frozen=True)
class OcclusionSettings:
    """Criteria of a lesion that is visible in a view (see `views.labels`).

    Attributes:
        visible_share: share of its pixels that must be visible for the whole projection to stay.
        fragment_mm: least size of a visible fragment otherwise: its number of pixels times the
            pixel's edge in mm (of the square of equal area).
        gradient: the fragment's mean Sobel gradient must be above this: magnitude of the two 3 × 3
            Sobel derivatives (weights 1 2 1, not divided) of the MIP scaled to [0, 1] over the
            window, mean over the fragment's pixels.

    Raises:
        MipError: a value out of range.
    """

    visible_share: float = 0.75
    fragment_mm: float = 25.0
    gradient: float = 0.15

    def __post_init__(self):
        if not 0 <= self.visible_share <= 1:
            raise MipError(f"--visible_share {self.visible_share}: choose between 0 and 1")
        for option, value in (("--fragment_mm", self.fragment_mm), ("--gradient", self.gradient)):
            if not 0 <= value < math.inf:
                raise MipError(f"{option} {value}: must be 0 or more")


@dataclass(frozen=True)
class ViewSettings:
    """Settings of a projection, of its channels and of its label views.

    Attributes:
        views: number of projection angles.
        arc_deg, start_deg: the angles cover [start, start + arc) degrees.
        window_suv: SUV that maps to level 255.
        angles_deg: the angles themselves, in degrees, instead of `arc_deg` and `start_deg`; then
            `views` is their number.
        pixel_mm: edge of the square pixels the views are resampled to; None keeps the study's own.
        channels: some of `CHANNELS`, the SUV first.
        labels: one of `LABEL_MODES`.
        occlusion: what counts as visible.

    Raises:
        MipError: a value out of range, or settings that exclude each other.
    """

    views: int = DEFAULT_VIEWS
    arc_deg: float = DEFAULT_ARC_DEG
    start_deg: float = 0.0
    window_suv: float = DEFAULT_WINDOW_SUV
    angles_deg: tuple[float, ...] | None = None
    pixel_mm: float | None = None
    channels: tuple[str, ...] = ("suv",)
    labels: str = "projected"
    occlusion: OcclusionSettings = field(default_factory=OcclusionSettings)

    def __post_init__(self):
        if not 0 < self.window_suv < math.inf:
            raise MipError(f"--window {self.window_suv}: must be above 0 SUV")
        if self.pixel_mm is not None and not 0.1 <= self.pixel_mm <= 100:
            raise MipError(f"--pixel_mm {self.pixel_mm}: choose between 0.1 and 100 mm")
        if not 0 < self.arc_deg <= 360:
            raise MipError(f"--arc {self.arc_deg}: choose above 0 and up to 360 degrees")
        if not math.isfinite(self.start_deg):
            raise MipError(f"--start {self.start_deg}: must be a number of degrees")
        if self.labels not in LABEL_MODES:
            raise MipError(f"--labels {self.labels}: choose from {', '.join(LABEL_MODES)}")
        check_channels(self.channels)
        if self.angles_deg is None:
            from nnunetv2_mip.views.geometry import view_angles

            view_angles(self.views)
            return
        if (self.arc_deg, self.start_deg) != (DEFAULT_ARC_DEG, 0.0):
            raise MipError("--angles names every angle: leave --arc and --start out")
        angles = tuple(float(angle) for angle in self.angles_deg)
        check_angles(angles)
        object.__setattr__(self, "angles_deg", angles)
        object.__setattr__(self, "views", len(angles))

    @property
    def angles(self) -> tuple[float, ...]:
        """Projection angles in degrees."""
        # NumPy is imported when views are made: parsers need the names of the settings alone.
        from nnunetv2_mip.views.geometry import view_angles

        return self.angles_deg or view_angles(self.views, self.arc_deg, self.start_deg)


def check_angles(angles_deg: Sequence[float]) -> None:
    """Check of listed angles: MipError for no angle, one that is no number, or one named twice."""
    if not angles_deg:
        raise MipError("--angles: name at least one angle")
    if not all(math.isfinite(angle) for angle in angles_deg):
        raise MipError(f"--angles {' '.join(map(str, angles_deg))}: must be numbers of degrees")
    if len(set(angles_deg)) < len(angles_deg):
        raise MipError(f"--angles {' '.join(f'{a:g}' for a in angles_deg)}: names an angle twice")


def check_channels(channels: Sequence[str]) -> None:
    """Check of channel names: MipError for an unknown or repeated one, or `suv` not first."""
    unknown = [name for name in channels if name not in CHANNELS]
    if unknown or not channels or channels[0] != "suv" or len(set(channels)) < len(channels):
        raise MipError(
            f"channels {','.join(channels) or 'none'}: "
            f"choose suv first, then any of {', '.join(CHANNELS[1:])}"
        )
