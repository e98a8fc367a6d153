"""Frame fitted to the organs of a label map: it places the parts that the map does not show.

`FittedFrame` maps the nominal millimetres of the phantom's skeleton, vessels, bowel and lymph nodes
to a body with known organs. It is piecewise linear in height between landmarks (bladder, kidneys,
lungs, brain). At every height it is shifted and scaled across to the organs found there. The trunk
is then widened or narrowed to hold its organs.
"""

from dataclasses import dataclass, field

import numpy as np

from nnunetv2_mip.phantom.body import TRUNK, Frame
from nnunetv2_mip.phantom.shapes import Point

# Heights of the landmarks in the nominal body, mm.
BLADDER_Z, KIDNEY_Z, LUNG_Z, LUNG_TOP_Z, BRAIN_BOTTOM_Z, BRAIN_TOP_Z = 182, 419, 636, 750, 893, 1012
# Half widths and depths there that hold 98 % of the organ.
LUNG_HALF, BRAIN_HALF = (134, 72), (59, 74)
# Muscle, ribs and skin between an organ and the surface of the trunk's muscle.
WALL_X_MM, WALL_Y_MM = 13.0, 15.0
# Limits of the scale of a stretch of the body against the nominal one.
LEAST_SCALE, MOST_SCALE = 0.75, 1.3


@dataclass(frozen=True)
class FittedFrame(Frame):
    """Map from nominal millimetres to those of a body with known organs.

    Attributes:
        heights: rows (nominal z, z here), rising.
        across: rows (nominal z, x of the midline, scale of x, y of nominal 0, scale of y), rising.
    """

    heights: np.ndarray = field(default_factory=lambda: np.array([[0.0, 0.0], [1.0, 1.0]]))
    across: np.ndarray = field(default_factory=lambda: np.array([[0.0, 0, 1, 0, 1]]))

    def z_of(self, nominal: np.ndarray | float) -> np.ndarray:
        """Heights (mm) here for nominal ones."""
        return _line(nominal, self.heights[:, 0], self.heights[:, 1])

    def at(self, x: float, y: float, z: float) -> Point:
        x0, sx, y0, sy = self._across(z)
        return float(x0 + sx * x), float(y0 + sy * y), float(self.z_of(z))

    def semi(self, x: float, y: float, z: float) -> Point:
        return x * self.width, y * self.depth, z * self.height

    def column(self) -> np.ndarray:
        _, sx, y0, sy = self._across(self.trunk[:, 0])
        z, a, b, y = self.trunk.T
        return np.stack([self.z_of(z), a * sx, b * sy, y0 + sy * y], axis=1)

    def nominal(self, points: np.ndarray) -> np.ndarray:
        """Nominal points (n, 3) for points here, x, y, z mm: the inverse of `at`."""
        z = _line(points[:, 2], self.heights[:, 1], self.heights[:, 0])
        x0, sx, y0, sy = self._across(z)
        return np.stack([(points[:, 0] - x0) / sx, (points[:, 1] - y0) / sy, z], axis=1)

    def _across(self, z) -> list[np.ndarray]:
        return [np.interp(z, self.across[:, 0], self.across[:, k]) for k in range(1, 5)]


def _line(value: np.ndarray | float, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """Linear interpolation, extrapolated in a straight line beyond the ends."""
    slopes = np.diff(ys) / np.diff(xs)
    low = ys[0] + slopes[0] * (np.minimum(value, xs[0]) - xs[0])
    high = slopes[-1] * (np.maximum(value, xs[-1]) - xs[-1])
    return np.interp(value, xs, ys) + (low - ys[0]) + high


def fit_frame(points: dict[str, np.ndarray], brain_is_cut: bool) -> FittedFrame:
    """Frame of a body with known organs.

    Args:
        points: (n, 3) x, y, z mm inside every known organ; at least two of the landmarks bladder,
            kidney, lung, brain.
        brain_is_cut: whether the top of the brain is missing.
    """
    heights = _heights(points, brain_is_cut)
    steps = np.diff(heights[:, 1]) / np.diff(heights[:, 0])
    scale = float(np.clip((heights[-1, 1] - heights[0, 1]) / np.ptp(heights[:, 0]), 0.8, 1.2))
    # A body is not stretched in one place and squeezed in the next beyond reason.
    steps = np.clip(steps, LEAST_SCALE * scale, MOST_SCALE * scale)
    middle = heights[len(heights) // 2]
    ends = np.r_[0, np.cumsum(steps * np.diff(heights[:, 0]))]
    heights = np.stack([heights[:, 0], ends - ends[len(ends) // 2] + middle[1]], axis=1)

    across = _across_rows(points, scale)
    trunk_rows = across[across[:, 0] < 800]
    width, depth = (float(np.mean(trunk_rows[:, k])) for k in (2, 4))
    frame = FittedFrame(width, depth, scale, TRUNK, heights, across)
    return FittedFrame(width, depth, scale, _fitted_trunk(frame, points), heights, across)


def _heights(points: dict[str, np.ndarray], brain_is_cut: bool) -> np.ndarray:
    rows = []
    if "bladder" in points:
        rows.append((BLADDER_Z, points["bladder"][:, 2].mean()))
    if "kidney" in points:
        rows.append((KIDNEY_Z, points["kidney"][:, 2].mean()))
    if "lung" in points:
        rows.append((LUNG_Z, points["lung"][:, 2].mean()))
        rows.append((LUNG_TOP_Z, np.percentile(points["lung"][:, 2], 99)))
    if "brain" in points:
        rows.append((BRAIN_BOTTOM_Z, np.percentile(points["brain"][:, 2], 1)))
        if not brain_is_cut:
            rows.append((BRAIN_TOP_Z, np.percentile(points["brain"][:, 2], 99)))
    return np.array(rows, float)


def _across_rows(points: dict[str, np.ndarray], scale: float) -> np.ndarray:
    """Rows of `FittedFrame.across`."""

    def span(organ: str, axis: int) -> tuple[float, float]:
        low, high = np.percentile(points[organ][:, axis], (1, 99))
        return (low + high) / 2, (high - low) / 2

    sx = sy = scale
    midlines: list[float] = []
    y0: float | None = None
    if "lung" in points:
        sx = float(np.clip(span("lung", 0)[1] / LUNG_HALF[0], 0.8, 1.25))
        sy = float(np.clip(span("lung", 1)[1] / LUNG_HALF[1], 0.8, 1.25))
        midlines.append(span("lung", 0)[0])
        y0 = span("lung", 1)[0] - 8 * sy
    if "kidney" in points:
        midlines.append(span("kidney", 0)[0])
    if "bladder" in points:
        midlines.append(points["bladder"][:, 0].mean())
    if not midlines:
        midlines.append(points["brain"][:, 0].mean())
    x0 = float(np.mean(midlines))
    kidney_y0 = points["kidney"][:, 1].mean() - 40 * sy if "kidney" in points else y0
    bladder_y0 = points["bladder"][:, 1].mean() + 26 * sy if "bladder" in points else kidney_y0
    known = [v for v in (y0, kidney_y0, bladder_y0) if v is not None]
    if not known:
        known = [points["brain"][:, 1].mean() + 3 * scale]
    y0, kidney_y0, bladder_y0 = (known[0] if v is None else v for v in (y0, kidney_y0, bladder_y0))
    # A full bladder bulges to the front: half of it is posture.
    pelvis_y0 = 0.5 * (bladder_y0 + kidney_y0)
    rows = [(150, x0, sx, pelvis_y0, sy), (KIDNEY_Z, x0, sx, kidney_y0, sy)]
    rows += [(LUNG_Z, x0, sx, y0, sy), (LUNG_TOP_Z, x0, sx, y0, sy)]
    if "brain" in points:
        (x, half_x), (y, half_y) = span("brain", 0), span("brain", 1)
        bx, by = (float(np.clip(h / n, 0.85, 1.2)) for h, n in zip((half_x, half_y), BRAIN_HALF))
        rows.append((BRAIN_BOTTOM_Z, x, bx, y + 3 * by, by))
    return np.array(rows, float)


def _fitted_trunk(frame: FittedFrame, points: dict[str, np.ndarray]) -> np.ndarray:
    """`TRUNK` made as wide and deep as the organs in it need; rows as there."""
    inside = [points[o] for o in points if o not in ("brain", "gland", "prostate")]
    spots = frame.nominal(np.concatenate(inside)) if inside else np.zeros((0, 3))
    factors = []
    for z, a, b, y in TRUNK:
        here = spots[np.abs(spots[:, 2] - z) < 28]
        if z > 780 or z < 140 or len(here) < 20:
            factors.append(1.0)
            continue
        across = np.abs(here[:, 0]) / (a - WALL_X_MM)
        along = np.abs(here[:, 1] - y) / (b - WALL_Y_MM)
        need = float(np.percentile((across**2.4 + along**2.4) ** (1 / 2.4), 99.5))
        # Only chest and upper abdomen are filled by the organs of a map, and may be narrowed.
        factors.append(float(np.clip(need, 0.88 if 500 < z < 680 else 1.0, 1.35)))
    # Wide enough at every level, and no step between two levels.
    wide = np.maximum.reduce(
        [np.pad(factors, 1, mode="edge")[k : k + len(factors)] for k in range(3)]
    )
    wide = np.where(np.array(factors) < 1, factors, wide)
    smooth = np.convolve(np.pad(wide, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    trunk = TRUNK.copy()
    trunk[:, 1:3] *= np.maximum(smooth, factors)[:, None]
    return trunk
