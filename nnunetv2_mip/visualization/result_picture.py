"""Pictures of a predicted mask: the rotating MIP of a volume, or an image, with its outline."""

from pathlib import Path

import numpy as np

from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.visualization.case_views import CaseViews
from nnunetv2_mip.visualization.rotating_gif import write_turning_gif

# Views over 180°; the turn shows their mirror images too.
PICTURE_VIEWS = 24


def write_volume_picture(
    name: str, suv: Volume, mask: np.ndarray, path: Path | str, caption: str
) -> None:
    """Write the rotating MIP of a volume with the outline of a mask as a GIF.

    Args:
        name: of the case, above the picture.
        suv: PET.
        mask: (z, y, x) on the grid of `suv`, canonical axes.
        path: a `.gif` file.
        caption: line below the name.

    Raises:
        MipError: `path` is no `.gif`.
    """
    geometry = ViewGeometry.for_volume(suv, view_angles(PICTURE_VIEWS))
    views = project(suv.array, geometry).suv
    outline = project_mask(mask, geometry)
    write_turning_gif(
        CaseViews(name, views, geometry.pixel_mm, prediction=outline, caption=caption), path
    )


def write_image_picture(
    name: str,
    levels: np.ndarray,
    mask: np.ndarray,
    pixel_mm: tuple[float, float],
    path: Path | str,
    caption: str,
) -> None:
    """Write an image with the outline of a mask as a GIF of one frame.

    Args:
        name, path, caption: as of `write_volume_picture`.
        levels: (H, W) uint8, bright is uptake.
        mask: (H, W).
        pixel_mm: (row, column).

    Raises:
        MipError: `path` is no `.gif`.
    """
    write_turning_gif(
        CaseViews(name, levels[None], pixel_mm, prediction=mask[None], caption=caption), path
    )
