"""Where each view looks from, and how its pixels lie in the patient.

Volumes are (z, y, x) in canonical LPS. The view at θ degrees has detector direction
u = (cos θ, sin θ) and ray direction d = (−sin θ, cos θ) in (x, y): 0° is the coronal view (maximum
along y, patient's left on the right), 90° looks along −x. View stacks are (view, row, column) with
row 0 at the head. θ + 180° is the left-right mirror of θ, so a set covers [0°, 180°).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import VIEW_AXIS_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume

FORMAT_VERSION = 1
DEFAULT_VIEWS = 48
DEFAULT_ARC_DEG = 180.0
# When the width of the views is chosen, an in-plane position counts as body where more than this
# share of its slices is above this SUV: single voxels of noise in the air are no body.
BODY_SUV = 0.1
BODY_SHARE = 0.02
# Beyond these the header's spacing is wrong, and views of it would fill the memory.
MOST_MM = 3000.0
MOST_PIXELS = 4_000_000
# Columns kept beside the body, so that interpolation and augmentation see its whole edge.
MARGIN_COLUMNS = 2


def view_angles(
    views: int, arc_deg: float = DEFAULT_ARC_DEG, start_deg: float = 0.0
) -> tuple[float, ...]:
    """`views` angles in degrees, evenly spaced over [start, start + arc)."""
    if views < 1:
        raise MipError(f"--views {views}: at least one view is needed")
    return tuple(start_deg + arc_deg * index / views for index in range(views))


@dataclass(frozen=True)
class ViewGeometry:
    """Everything that is needed to project a volume and to fuse its views back.

    Attributes:
        angles_deg: projection angles θ in degrees, one a view.
        bin_mm: width of a detector column and length of a ray step, mm.
        columns: detector columns W, the same for all angles.
        steps: samples K along a ray.
        grid: voxel grid of the source file.
        source: its file name without folders (for people; patient paths do not travel).
        body_box: first and last voxel above 0 along z, y and x in canonical order; outside it no
            ray is looked at (nothing there can win). None where it is not known.
        window_suv: SUV that maps to level 255 in the stack, or None where it holds raw SUV.
    """

    angles_deg: tuple[float, ...]
    bin_mm: float
    columns: int
    steps: int
    grid: SourceGrid
    source: str = ""
    window_suv: float | None = None
    body_box: tuple[tuple[int, int], ...] | None = None
    format_version: int = field(default=FORMAT_VERSION)

    @classmethod
    def for_volume(
        cls,
        volume: Volume,
        angles_deg: Sequence[float],
        pixel_mm: float | None = None,
        body_suv: float = BODY_SUV,
    ) -> "ViewGeometry":
        """The geometry that covers the body of `volume` (in SUV) at every angle.

        Bin and ray step are the smaller in-plane spacing; the parities of columns and steps make
        the 0° view (and on a square grid the 90° view) equal to the plain array maximum.

        Args:
            volume: SUV.
            angles_deg: of the views.
            pixel_mm: pixels that the views will be resampled to (`pixels.to_pixels`). Where they
                are much finer than the voxels, so is the detector (a half, a third, … of a voxel):
                rays between the voxels know more than an interpolation of their neighbours.
            body_suv: SUV above which a voxel may be body.

        Raises:
            MipError: the volume is larger than any patient, or its views would be.
        """
        longest = max(n * step for n, step in zip(volume.array.shape, volume.spacing_mm))
        if longest > MOST_MM:
            raise MipError(
                f"{volume.path}: is {longest:.0f} mm long, at most {MOST_MM:.0f} are projected; "
                "check the spacing in its header"
            )
        _, ny, nx = volume.array.shape
        _, sy, sx = volume.spacing_mm
        bins = 1 if pixel_mm is None else max(1, round(min(sy, sx) / pixel_mm))
        bin_mm = min(sy, sx) / bins
        # Rays through the middles of voxels; with an even number of them a voxel those would come
        # with others along its faces, which meet nothing: then rays at quarters, eighths, …
        parity_y, parity_x = (n if bins % 2 else 0 for n in (ny, nx))
        # Commands show their help without numba.
        from nnunetv2_mip.views.body_extent import survey_body

        array = np.ascontiguousarray(volume.array)
        slices_with_body, box = survey_body(array, np.float32(body_suv))
        ys, xs = np.nonzero(slices_with_body > BODY_SHARE * len(volume.array))
        if len(ys) == 0:
            ys, xs = np.array([0, ny - 1]), np.array([0, nx - 1])
        y_mm, x_mm = (ys - (ny - 1) / 2) * sy, (xs - (nx - 1) / 2) * sx
        body_radius_mm = float(np.sqrt(x_mm**2 + y_mm**2).max())
        corner_mm = math.hypot((nx - 1) / 2 * sx, (ny - 1) / 2 * sy)
        columns = _count_covering(
            min(body_radius_mm, corner_mm) / bin_mm + MARGIN_COLUMNS, parity_x
        )
        steps = _count_covering(corner_mm / bin_mm, parity_y)
        if len(volume.array) * max(columns, steps) > MOST_PIXELS:
            raise MipError(
                f"{volume.path}: has views of {len(volume.array)} x {columns} pixels along rays of "
                f"{steps} steps; check the spacing in its header"
            )
        return cls(
            angles_deg=tuple(float(angle) for angle in angles_deg),
            bin_mm=bin_mm,
            columns=columns,
            steps=steps,
            grid=volume.grid,
            source=volume.path.name,
            body_box=tuple((int(low), int(high)) for low, high in box) if box[0, 1] >= 0 else None,
        )

    @property
    def views(self) -> int:
        return len(self.angles_deg)

    @property
    def rows(self) -> int:
        return self.grid.shape_zyx[0]

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """(V, H, W)."""
        return self.views, self.rows, self.columns

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """(row, column) spacing of a view in mm."""
        return self.grid.spacing_zyx[0], self.bin_mm

    @property
    def stack_spacing_mm(self) -> tuple[float, float, float]:
        """(view axis, row, column): the view axis gets a spacing no scanner has."""
        return (VIEW_AXIS_SPACING_MM, *self.pixel_mm)

    def with_window(self, window_suv: float | None) -> "ViewGeometry":
        return replace(self, window_suv=window_suv)

    def to_dict(self) -> dict:
        return {
            "format_version": self.format_version,
            "kind": "volume",
            "angles_deg": list(self.angles_deg),
            "bin_mm": self.bin_mm,
            "columns": self.columns,
            "rows": self.rows,
            "steps": self.steps,
            "row_mm": self.pixel_mm[0],
            "window_suv": self.window_suv,
            "source": self.source,
            "body_box": None if self.body_box is None else [list(pair) for pair in self.body_box],
            "grid": self.grid.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: dict, path: Path | str = "geometry") -> "ViewGeometry":
        """The inverse of `to_dict`.

        Raises:
            MipError: a newer format, or a missing entry.
        """
        try:
            version = int(content["format_version"])
            if version > FORMAT_VERSION:
                raise MipError(
                    f"{path}: geometry format {version} is newer than this program knows "
                    f"({FORMAT_VERSION}); update nnunetv2-mip"
                )
            if content["kind"] != "volume":
                raise MipError(
                    f"{path}: describes a single image without a volume, it cannot be fused to 3D"
                )
            box = content.get("body_box")
            return cls(
                angles_deg=tuple(float(angle) for angle in content["angles_deg"]),
                bin_mm=float(content["bin_mm"]),
                columns=int(content["columns"]),
                steps=int(content["steps"]),
                grid=SourceGrid.from_dict(content["grid"]),
                source=str(content["source"]),
                window_suv=content["window_suv"],
                body_box=None if box is None else tuple((int(a), int(b)) for a, b in box),
                format_version=version,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MipError(f"{path}: is not a view geometry file ({error!r})") from None

    def save(self, path: Path | str) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> "ViewGeometry":
        return cls.from_dict(read_json(path), path)


def image_geometry(source: str, pixel_mm: float) -> dict:
    """The geometry file of a MIP-PET image (a PNG): one coronal view without a volume behind it."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "image",
        "angles_deg": [0.0],
        "row_mm": pixel_mm,
        "bin_mm": pixel_mm,
        "window_suv": None,
        "source": source,
    }


def _count_covering(radius: float, parity_of: int) -> int:
    """Smallest count of unit samples about a centre that reach `radius`, of the given parity.

    Samples lie at j − (count − 1) / 2; equal parity puts them on the voxels of a grid whose size
    has that parity.
    """
    if parity_of % 2:
        return 2 * math.ceil(radius - 1e-6) + 1
    return 2 * math.ceil(radius - 0.5 - 1e-6) + 2
