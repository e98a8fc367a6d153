"""HTML report of one case of the service's page: pictures and table in one file."""

import base64
import io
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from nnunetv2_mip import __version__
from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.lesions.lesion_table import TITLES as LESION_TITLES
from nnunetv2_mip.lesions.region_table import TITLES as REGION_TITLES
from nnunetv2_mip.report.templating import STATIC, render
from nnunetv2_mip.service.page_cases import Case, CaseMask

TITLES = {**LESION_TITLES, **REGION_TITLES}
MASK_COLOUR = np.array((255, 102, 0), np.float32)
STYLE = STATIC / "case_report.css"
MAX_VIEWS = 4


@dataclass(frozen=True)
class ViewPicture:
    """Picture of one view: its angle in degrees, and a PNG as base64 text."""

    degrees: str
    png: str


def render_case_report(case: Case, marked: CaseMask, threshold: float, model_name: str) -> str:
    """HTML of a case with its mask at a threshold.

    Args:
        case: finished case.
        marked: its mask at `threshold`.
        threshold: probability from which a pixel or voxel is lesion.
        model_name: as the report names it.
    """
    total = len(case.levels)
    count = min(total, MAX_VIEWS)
    shown = [int(number * total / count) for number in range(count)]
    return render(
        "case_report.html",
        case=case,
        style="".join(STYLE.read_text("utf-8").splitlines()),
        model_name=model_name,
        version=__version__,
        threshold=f"{threshold:.2f}",
        date=time.strftime("%Y-%m-%d %H:%M"),
        views=[_view_picture(case, marked, view) for view in shown],
        summary=_summary(case, marked.rows),
        titles=TITLES,
        rows=marked.rows,
    )


def _summary(case: Case, rows: list[dict]) -> str:
    if not rows:
        return "Nothing is marked"
    if case.is_volume:
        return f"Lesions: {len(rows)}, {sum(row['volume_ml'] for row in rows):.1f} ml"
    return f"Regions: {len(rows)}, {sum(row['area_cm2'] for row in rows):.1f} cm²"


def _view_picture(case: Case, marked: CaseMask, view: int) -> ViewPicture:
    """One view, dark is uptake, the mask in orange, with square pixels."""
    grey = (LEVEL_MAX - case.levels[view]).astype(np.float32)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    inside = marked.overlay[view] != 0
    rgb[inside] = 0.5 * rgb[inside] + 0.5 * MASK_COLOUR
    rows, columns = grey.shape
    row_mm, column_mm = case.pixel_mm
    size = (columns, max(1, round(rows * row_mm / column_mm)))
    stream = io.BytesIO()
    picture = Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    picture.save(stream, "PNG")
    png = base64.b64encode(stream.getvalue()).decode()
    return ViewPicture(f"{case.angles_deg[view]:.0f}", png)
