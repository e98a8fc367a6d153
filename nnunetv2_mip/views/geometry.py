"""Projection geometry: angles, detector and rays of the views of a volume.

Volumes are (z, y, x) in canonical LPS: x to the patient's left, y to the back, z to the head. The
view at θ degrees has detector direction u = (cos θ, sin θ) and ray direction d = (−sin θ, cos θ) in
(x, y): 0° is the coronal view (maximum along y, patient's left on the right), 90° looks along −x.
View stacks are (view, row, column) with row 0 at the head. θ + 180° is the left-right mirror of θ,
so a set covers [0°, 180°).

Memory layouts of views. Arguments and results of public functions, and files, are (V, H, W): view,
row, detector column. Kernels keep views in one of two other orders, in both of which z is the
voxel's slice (z = H − 1 − row, feet first):

- (V, W, z) in the projector of masks and in backprojection (`projection.detector_layout`). A voxel
  column (all z at one x, y) meets the same detector columns at every z, so the inner loop runs over
  z, contiguous in memory. The projector of the SUV keeps slabs of `simd.LANES` slices in the same
  order.
- (z, V, W) in the fusion rule `explain` (`explain.slice_layout`). It visits single voxels, slice
  by slice; the rays of a voxel in all views lie close together in memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from nnunetv2_mip.conventions import DEFAULT_ARC_DEG, VIEW_AXIS_SPACING_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json, write_json
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.volumes import Volume

FORMAT_VERSION = 1
# The width of the views covers the body: in-plane positions of which more than this share of the
# slices is above this SUV. Single voxels of noise in the air do not count.
BODY_SUV = 0.1
BODY_SHARE = 0.02
# Larger volumes and views have a wrong spacing in their header, and would fill the memory.
MAX_LENGTH_MM = 3000.0
MAX_VIEW_PIXELS = 4_000_000
# Columns beside the body, so that interpolation and augmentation have its whole edge.
MARGIN_COLUMNS = 2


def view_angles(
    views: int, arc_deg: float = DEFAULT_ARC_DEG, start_deg: float = 0.0
) -> tuple[float, ...]:
    """Projection angles in degrees, evenly spaced over [start, start + arc)."""
    if views < 1:
        raise MipError(f"--views {views}: at least one view is needed")
    return tuple(start_deg + arc_deg * index / views for index in range(views))


@dataclass(frozen=True)
class ViewGeometry:
    """Geometry of the views of one volume, for projection and for fusion back onto its grid.

    Attributes:
        angles_deg: projection angles θ in degrees, one a view.
        bin_mm: width of a detector column and length of a ray step, mm.
        columns: number of detector columns W, the same for all angles.
        steps: number of samples along a ray.
        grid: voxel grid of the source file.
        source: name of the source file, without folders, which may name a patient.
        body_box: first and last voxel above 0 along z, y and x in canonical order. None where it
            is not known.
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
        """Geometry that covers the body of `volume` at every angle.

        Bin and ray step are the smaller in-plane spacing. The parities of columns and steps make
        the 0° view (and on a square grid the 90° view) equal to the plain array maximum.

        Args:
            volume: SUV.
            angles_deg: of the views.
            pixel_mm: pixels that the views will be resampled to (`resampling.to_pixels`). Where
                they are much finer than the voxels, so is the detector (a half, a third, … of a
                voxel), since rays between the voxels are more exact than an interpolation of views.
            body_suv: SUV above which a voxel may be body.

        Raises:
            MipError: the volume is larger than any patient, or its views are too large.
        """
        longest = max(n * step for n, step in zip(volume.array.shape, volume.spacing_mm))
        if longest > MAX_LENGTH_MM:
            raise MipError(
                f"{volume.path}: is {longest:.0f} mm long, at most {MAX_LENGTH_MM:.0f} are "
                "projected; check the spacing in its header"
            )
        _, ny, nx = volume.array.shape
        _, sy, sx = volume.spacing_mm
        bins = 1 if pixel_mm is None else max(1, round(min(sy, sx) / pixel_mm))
        bin_mm = min(sy, sx) / bins
        # An odd number of rays a voxel: one runs through its centre. An even number would put one
        # on its face, where it belongs to no voxel: then rays at quarters, eighths, … of a voxel.
        parity_y, parity_x = (n if bins % 2 else 0 for n in (ny, nx))
        radius_mm, box = _body_radius_and_box(volume, body_suv)
        corner_mm = math.hypot((nx - 1) / 2 * sx, (ny - 1) / 2 * sy)
        columns = _count_covering(min(radius_mm, corner_mm) / bin_mm + MARGIN_COLUMNS, parity_x)
        steps = _count_covering(corner_mm / bin_mm, parity_y)
        if len(volume.array) * max(columns, steps) > MAX_VIEW_PIXELS:
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
            body_box=box,
        )

    @property
    def views(self) -> int:
        """Number of views V."""
        return len(self.angles_deg)

    @property
    def rows(self) -> int:
        """Number of rows H of a view, one a slice."""
        return self.grid.shape_zyx[0]

    @property
    def stack_shape(self) -> tuple[int, int, int]:
        """Shape (V, H, W) of a stack of these views."""
        return self.views, self.rows, self.columns

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Spacing (row, column) of a view in mm."""
        return self.grid.spacing_zyx[0], self.bin_mm

    @property
    def stack_spacing_mm(self) -> tuple[float, float, float]:
        """Spacing (view axis, row, column) in mm; that of the view axis marks a stack."""
        return (VIEW_AXIS_SPACING_MM, *self.pixel_mm)

    def with_window(self, window_suv: float | None) -> "ViewGeometry":
        """Copy for views whose SUV `window_suv` is level 255; None for views of raw SUV."""
        return replace(self, window_suv=window_suv)

    def to_dict(self) -> dict:
        """Content of the geometry file (JSON)."""
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
        """Geometry of the content of a geometry file, the inverse of `to_dict`.

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
        """Write the geometry file."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> "ViewGeometry":
        """Geometry of a file; MipError where it is missing or no geometry file."""
        return cls.from_dict(read_json(path), path)


def image_geometry(source: str, pixel_mm: float) -> dict:
    """Content of the geometry file of a MIP-PET image: one coronal view without a volume."""
    return {
        "format_version": FORMAT_VERSION,
        "kind": "image",
        "angles_deg": [0.0],
        "row_mm": pixel_mm,
        "bin_mm": pixel_mm,
        "window_suv": None,
        "source": source,
    }


def _body_radius_and_box(
    volume: Volume, body_suv: float
) -> tuple[float, tuple[tuple[int, int], ...] | None]:
    """Distance in mm of the body's farthest voxel from the rotation axis, and its box above 0."""
    # Imported here, so that commands show their help without numba.
    from nnunetv2_mip.views.body_extent import body_extent

    _, ny, nx = volume.array.shape
    _, sy, sx = volume.spacing_mm
    array = np.ascontiguousarray(volume.array)
    slices_with_body, box = body_extent(array, np.float32(body_suv))
    ys, xs = np.nonzero(slices_with_body > BODY_SHARE * len(volume.array))
    if len(ys) == 0:
        ys, xs = np.array([0, ny - 1]), np.array([0, nx - 1])
    y_mm, x_mm = (ys - (ny - 1) / 2) * sy, (xs - (nx - 1) / 2) * sx
    radius_mm = float(np.sqrt(x_mm**2 + y_mm**2).max())
    if box[0, 1] < 0:
        return radius_mm, None
    return radius_mm, tuple((int(low), int(high)) for low, high in box)


def _count_covering(radius: float, parity_of: int) -> int:
    """Smallest count of unit samples about a centre that reach `radius`, of the given parity.

    Samples lie at j − (count − 1) / 2. With the parity of the grid's size they lie on its voxels.
    """
    if parity_of % 2:
        return 2 * math.ceil(radius - 1e-6) + 1
    return 2 * math.ceil(radius - 0.5 - 1e-6) + 2
