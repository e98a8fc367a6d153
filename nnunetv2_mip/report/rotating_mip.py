"""Rotating MIPs of a report: views and masks of a case as pictures that the page turns."""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, features

from nnunetv2_mip.conventions import DEFAULT_WINDOW_SUV, PNG_PIXEL_MM
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.files import read_json
from nnunetv2_mip.io.volumes import Volume
from nnunetv2_mip.report.case_arrays import read_png_case, read_stack_case, read_volume_case
from nnunetv2_mip.report.case_files import CaseFiles
from nnunetv2_mip.views.geometry import ViewGeometry, view_angles
from nnunetv2_mip.views.intensity import levels_from_suv
from nnunetv2_mip.views.labels import label_views
from nnunetv2_mip.views.projection import project, project_mask
from nnunetv2_mip.views.resampling import to_pixels
from nnunetv2_mip.views.stack_files import geometry_path
from nnunetv2_mip.visualization.case_views import CaseViews, body_columns
from nnunetv2_mip.visualization.view_sheet import SHEET_COLUMNS, view_sheet

DEFAULT_VIEWS = 24
MAX_VIEWS = 90
# Pixel size of rotating MIPs; finer pixels make the file larger and show no more.
PIXEL_MM = 3.0
# Largest side of the picture of all views of a case: every browser decodes it.
MAX_SHEET_PX = 8192
WEBP_QUALITY = 80
# Bits of a pixel of the overlay.
TRUTH, PREDICTION = 1, 2


@dataclass(frozen=True)
class RotatingMIPSettings:
    """Settings of the drawing of rotating MIPs.

    Attributes:
        views: angles over 180°, 1 to 90.
        window_suv: SUV drawn black.

    Raises:
        MipError: a value out of range.
    """

    views: int = DEFAULT_VIEWS
    window_suv: float = DEFAULT_WINDOW_SUV

    def __post_init__(self):
        if not 1 <= self.views <= MAX_VIEWS:
            raise MipError(f"--views {self.views}: choose between 1 and {MAX_VIEWS}")
        if not 0 < self.window_suv < math.inf:
            raise MipError(f"--window {self.window_suv}: must be above 0 SUV")


@dataclass(frozen=True)
class RotatingMIP:
    """Rotating MIP of one case, encoded for the page.

    Attributes:
        page: data of the page's script (JSON): views and overlay as data URLs, sizes, angles.
        seen_in: number of views in which each lesion of the truth is visible (see
            `views.labels`), in the order of `lesion_table`; None where that is not known.
        views: number of views.
    """

    page: dict
    seen_in: list[int] | None
    views: int


def draw_rotating_mip(files: CaseFiles, settings: RotatingMIPSettings) -> RotatingMIP:
    """Views of a case, with its masks.

    Raises:
        MipError: a file that cannot be read, or files that do not fit each other.
    """
    draw = {"png": _draw_png, "volume": _draw_volume, "stack": _draw_stack}[files.kind]
    return draw(files, settings)


def _draw_png(files: CaseFiles, settings: RotatingMIPSettings) -> RotatingMIP:
    levels, truth, prediction = (
        None if array is None else array[None] for array in read_png_case(files)
    )
    return _pack(levels, truth, prediction, (PNG_PIXEL_MM, PNG_PIXEL_MM), (0.0,), None)


def _draw_stack(files: CaseFiles, settings: RotatingMIPSettings) -> RotatingMIP:
    *stacks, pixel_mm = read_stack_case(files)
    total = next(len(stack) for stack in stacks if stack is not None)
    angles = _angles_of_stack(files, total)
    # Every second, third, … view, so that the angles stay evenly spread.
    step = math.ceil(total / settings.views)
    levels, truth, prediction = (None if stack is None else stack[::step] for stack in stacks)
    return _pack(levels, truth, prediction, pixel_mm, angles[::step], None)


def _angles_of_stack(files: CaseFiles, views: int) -> tuple[float, ...]:
    for path in (files.image, files.truth, files.prediction):
        beside = None if path is None else geometry_path(path)
        if beside is not None:
            angles = tuple(float(angle) for angle in read_json(beside).get("angles_deg", ()))
            if len(angles) == views:
                return angles
    return view_angles(views)


def _draw_volume(files: CaseFiles, settings: RotatingMIPSettings) -> RotatingMIP:
    suv, truth, prediction, _ = read_volume_case(files)
    masks = (truth, prediction)
    like, angles = suv, view_angles(settings.views)
    if like is None:
        # Without a PET the geometry is that of the masks.
        known = [mask for mask in masks if mask is not None]
        union = np.maximum.reduce([mask.array for mask in known]).astype(np.float32)
        like = Volume(union, known[0].grid, known[0].path)
    geometry = ViewGeometry.for_volume(like, angles)
    pixel_mm = max(PIXEL_MM, min(geometry.pixel_mm))
    levels = seen_in = None
    if suv is not None:
        views = project(suv.array, geometry).suv
        levels = levels_from_suv(to_pixels(views, geometry, pixel_mm), settings.window_suv)
        if truth is not None:
            found = label_views(truth.array, suv.array, views, geometry, settings.window_suv)
            # In the order of `lesion_table`.
            ranked = sorted(found.lesions, key=lambda lesion: -round(lesion.volume_ml, 4))
            seen_in = [sum(lesion.labelled) for lesion in ranked]
    true_views, predicted_views = (
        None
        if mask is None
        else to_pixels(project_mask(mask.array, geometry), geometry, pixel_mm, nearest=True)
        for mask in masks
    )
    return _pack(levels, true_views, predicted_views, (pixel_mm, pixel_mm), angles, seen_in)


def _pack(levels, truth, prediction, pixel_mm, angles, seen_in) -> RotatingMIP:
    """Rotating MIP of (V, H, W) arrays; each is uint8 or None, not all of them None."""
    shape = next(a.shape for a in (levels, truth, prediction) if a is not None)
    overlay = np.zeros(shape, np.uint8)
    for bit, mask in ((TRUTH, truth), (PREDICTION, prediction)):
        if mask is not None:
            overlay[mask != 0] |= bit
    has_image = levels is not None
    if levels is None:
        levels = np.zeros(shape, np.uint8)
    crop = _columns_to_show(levels, overlay, pixel_mm)
    levels, overlay = levels[..., crop], overlay[..., crop]
    shrink = math.ceil(max(view_sheet(overlay).shape) / MAX_SHEET_PX)
    if shrink > 1:
        levels, overlay = levels[:, ::shrink, ::shrink], overlay[:, ::shrink, ::shrink]
        pixel_mm = tuple(shrink * side for side in pixel_mm)
    views, rows, columns = overlay.shape
    page = {
        "views": views,
        "rows": rows,
        "columns": columns,
        "across": min(views, SHEET_COLUMNS),
        "pixel_mm": list(pixel_mm),
        "angles_deg": [round(angle, 2) for angle in angles],
        "wraps": _covers_half_turn(angles),
        "has_image": has_image,
        "has_truth": truth is not None,
        "has_prediction": prediction is not None,
        "image": _data_url(*_encode_grey(view_sheet(levels))),
        "overlay": _data_url(*_encode_two_bits(view_sheet(overlay))),
    }
    return RotatingMIP(page, seen_in, views)


def _columns_to_show(levels: np.ndarray, overlay: np.ndarray, pixel_mm: tuple) -> slice:
    """Columns with body or mask, symmetric about the axis of rotation: no white margins."""
    total = levels.shape[2]
    first = body_columns(CaseViews("", levels, pixel_mm)).start
    marked = np.flatnonzero(overlay.any(axis=(0, 1)))
    if marked.size:
        first = min(first, int(marked[0]), total - 1 - int(marked[-1]))
    return slice(first, total - first)


def _covers_half_turn(angles: tuple[float, ...]) -> bool:
    """Whether views are spread evenly over 180°: their mirror images complete the turn."""
    if len(angles) < 2:
        return False
    step = 180.0 / len(angles)
    return all(abs(angle - angles[0] - k * step) < 0.5 * step for k, angle in enumerate(angles))


def _encode_grey(sheet: np.ndarray) -> tuple[bytes, str]:
    """Grey picture and its media type, small: WebP where Pillow has it, else PNG."""
    stream = io.BytesIO()
    if features.check("webp"):
        Image.fromarray(sheet).save(stream, "WEBP", quality=WEBP_QUALITY, method=4)
        return stream.getvalue(), "image/webp"
    Image.fromarray(sheet).save(stream, "PNG", optimize=True)
    return stream.getvalue(), "image/png"


def _encode_two_bits(sheet: np.ndarray) -> tuple[bytes, str]:
    """PNG with two bits a pixel and its media type; values 0 to 3 are grey 0, 85, 170, 255."""
    image = Image.fromarray(sheet).convert("P")
    image.putpalette([value for level in (0, 85, 170, 255) for value in (level,) * 3])
    stream = io.BytesIO()
    image.save(stream, "PNG", bits=2, optimize=True)
    return stream.getvalue(), "image/png"


def _data_url(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"
