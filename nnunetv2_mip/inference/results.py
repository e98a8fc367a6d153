"""Results of a prediction: mask, probability and lesion table of a volume or an image.

Arrays of a result lie in the axes of the input, so that they index it:

- a volume from a file or a SimpleITK image: the order of `SimpleITK.GetArrayFromImage` (k, j, i),
  which is (slice, row, column), whatever direction these run in;
- a volume from an array: the axes of that array, (z, y, x);
- an image: (row, column).
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import SimpleITK as sitk

from nnunetv2_mip.conventions import PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import check_output
from nnunetv2_mip.io.grid import SourceGrid
from nnunetv2_mip.io.png import PNG_SUFFIX
from nnunetv2_mip.io.png_masks import write_mask_png
from nnunetv2_mip.io.volumes import image_on_grid, write_volume
from nnunetv2_mip.lesions.lesion_table import (
    lesion_numbers,
    lesion_table,
    lesion_table_path,
    write_lesion_table,
)
from nnunetv2_mip.lesions.region_table import region_table
from nnunetv2_mip.lesions.summary import describe_lesions, describe_regions

if TYPE_CHECKING:
    from nnunetv2_mip.io.read_study import Study
    from nnunetv2_mip.views.channels import StudyViews

What = Literal["mask", "probability", "lesions"]


@dataclass(frozen=True, eq=False, repr=False)
class VolumeResult:
    """Result of a volume: 3D mask on the grid of the input, and its lesions.

    Attributes:
        case: name of the case.
        grid: voxel grid of the input.
        study: SUV (and CT) that were read; its arrays are (z, y, x) in canonical LPS axes. None
            where views were fused without their study.
        canonical_mask: (z, y, x) uint8 of 0 and 1, in the axes of `study`.
        canonical_probability: (z, y, x) float32, in the axes of `study`; None unless asked for.
        views: views that the network saw, and the rays; None where unknown.
        view_probability: (V, H, W) float32, on the pixels of `views.levels`; None likewise.
        warnings: lines about the input that a user should read.
    """

    case: str
    grid: SourceGrid
    study: "Study | None"
    canonical_mask: np.ndarray
    canonical_probability: np.ndarray | None = None
    views: "StudyViews | None" = None
    view_probability: np.ndarray | None = None
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def mask(self) -> np.ndarray:
        """Mask (k, j, i) uint8 of 0 and 1, in the axes of the input."""
        return self._as_input(self.canonical_mask)

    @cached_property
    def probability(self) -> np.ndarray | None:
        """Probability (k, j, i) float32 of each voxel by itself; None unless it was asked for."""
        found = self.canonical_probability
        return None if found is None else self._as_input(found)

    @cached_property
    def suv(self) -> np.ndarray | None:
        """SUV (k, j, i) float32, in the axes of the input; None without a study."""
        return None if self.study is None else self._as_input(self.study.suv.array)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the axes of `mask` (k, j, i), mm."""
        i, j, k = self.grid.spacing
        return k, j, i

    @cached_property
    def lesions(self) -> list[dict[str, Any]]:
        """Rows of the lesion table, the largest lesion first (see `lesions.lesion_table`).

        Keys: `lesion` (number from 1), `volume_ml`, `suv_max`, `suv_mean`, `tlg`, and the centre
        `x_mm`, `y_mm`, `z_mm` in physical LPS coordinates. Without a study the SUV are None.
        """
        suv = None if self.study is None else self.study.suv.array
        return lesion_table(self.canonical_mask, suv, self.grid)

    @property
    def volume_ml(self) -> float:
        """Volume of the whole mask, ml."""
        return float(np.count_nonzero(self.canonical_mask)) * self.grid.voxel_ml

    def describe(self) -> str:
        """Summary of the lesions in a few words: `2 lesions, 31.5 ml in all, SUVmax 12.8`."""
        return describe_lesions(self.lesions)

    def to_sitk(self, what: What = "mask") -> sitk.Image:
        """Image with size, spacing, origin and direction of the input.

        Args:
            what: `mask` (0 and 1), `probability`, or `lesions` (number of the lesion in the table
                at each voxel, 0 outside).

        Raises:
            MipError: `probability` was not asked for.
        """
        if what == "mask":
            array = self.canonical_mask
        elif what == "lesions":
            array = lesion_numbers(self.canonical_mask, self.grid)
        elif what == "probability":
            if self.canonical_probability is None:
                raise MipError(f"{self.case}: predict it with probability=True to have it")
            array = self.canonical_probability
        else:
            raise MipError(f"to_sitk({what!r}): choose mask, probability or lesions")
        return image_on_grid(array, self.grid.as_stored())

    def save(self, path: Path | str) -> list[Path]:
        """Write the mask, and the lesion table beside it (`NAME_lesions.csv`).

        Args:
            path: `.nii.gz`, `.nii`, `.mha` or `.nrrd`; it gets exactly the header of the input.

        Returns:
            The files written.

        Raises:
            MipError: another type of file, or one that cannot be written.
        """
        path = Path(path)
        check_output(path)
        write_volume(self.canonical_mask, self.grid, path)
        table = lesion_table_path(path)
        write_lesion_table(self.lesions, table)
        return [path, table]

    def save_picture(self, path: Path | str) -> Path:
        """Write the rotating MIP with the outline of the mask as a GIF.

        Raises:
            MipError: `path` is no `.gif`, or there is no study to draw.
        """
        from nnunetv2_mip.visualization.result_picture import write_volume_picture

        if self.study is None:
            raise MipError(f"{self.case}: has no SUV to draw; fuse the views with their study")
        write_volume_picture(self.case, self.study.suv, self.canonical_mask, path, self.describe())
        return Path(path)

    def _as_input(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(self.grid.from_canonical(array))

    def __repr__(self) -> str:
        return f"<VolumeResult {self.case}: {self.describe()}>"


@dataclass(frozen=True, eq=False, repr=False)
class ImageResult:
    """Result of a MIP-PET image: 2D mask of its size, and its regions.

    Attributes:
        case: name of the case.
        levels: (row, column) uint8, input of the network; bright is uptake.
        mask: (row, column) uint8 of 0 and 1.
        probability: (row, column) float32.
        pixel_mm: (row, column) size of a pixel, mm.
        warnings: lines about the input that a user should read.
    """

    case: str
    levels: np.ndarray
    mask: np.ndarray
    probability: np.ndarray
    pixel_mm: tuple[float, float] = (PNG_PIXEL_MM, PNG_PIXEL_MM)
    warnings: tuple[str, ...] = field(default=())

    @cached_property
    def lesions(self) -> list[dict[str, Any]]:
        """Rows of the table of regions, the largest first (see `lesions.region_table`).

        Keys: `region` (number from 1), `area_cm2`, `max_uptake_percent` (of the scale of the
        image), `max_probability`, and the centre `row`, `column` in pixels.
        """
        return region_table(self.mask, self.levels, self.pixel_mm, self.probability)

    @property
    def area_cm2(self) -> float:
        """Area of the whole mask, cm²."""
        return float(np.count_nonzero(self.mask)) * self.pixel_mm[0] * self.pixel_mm[1] / 100

    def describe(self) -> str:
        """Summary of the regions in a few words: `2 regions, 12.4 cm² in all`."""
        return describe_regions(self.lesions)

    def to_sitk(self, what: What = "mask") -> sitk.Image:
        """2D image with the pixel size in mm.

        Args:
            what: `mask` (0 and 1) or `probability`.

        Raises:
            MipError: `what` is neither.
        """
        arrays = {"mask": self.mask, "probability": self.probability}
        if what not in arrays:
            raise MipError(f"to_sitk({what!r}): of an image, choose mask or probability")
        image = sitk.GetImageFromArray(np.ascontiguousarray(arrays[what]))
        image.SetSpacing((self.pixel_mm[1], self.pixel_mm[0]))
        return image

    def save(self, path: Path | str) -> list[Path]:
        """Write the mask as a PNG of the size of the input, 255 where a lesion is.

        Returns:
            The files written.

        Raises:
            MipError: `path` is no `.png`, or cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() != PNG_SUFFIX:
            raise MipError(f"{path}: the mask of an image is a {PNG_SUFFIX} file")
        check_output(path)
        write_mask_png(self.mask, path)
        return [path]

    def save_picture(self, path: Path | str) -> Path:
        """Write the image with the outline of the mask as a GIF of one frame.

        Raises:
            MipError: `path` is no `.gif`.
        """
        from nnunetv2_mip.visualization.result_picture import write_image_picture

        write_image_picture(self.case, self.levels, self.mask, self.pixel_mm, path, self.describe())
        return Path(path)

    def __repr__(self) -> str:
        return f"<ImageResult {self.case}: {self.describe()}>"
