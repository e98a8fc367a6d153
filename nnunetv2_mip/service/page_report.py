"""The report of a case: one HTML file that needs nothing else."""

import base64
import html
import io
import time

import numpy as np
from PIL import Image

from nnunetv2_mip import __version__
from nnunetv2_mip.conventions import LEVEL_MAX
from nnunetv2_mip.lesions.lesion_table import TITLES as LESION_TITLES
from nnunetv2_mip.lesions.region_table import TITLES as REGION_TITLES
from nnunetv2_mip.service.page_cases import Case, Marked

TITLES = {**LESION_TITLES, **REGION_TITLES}
MARK = np.array((255, 102, 0), np.float32)
_VIEWS = 4
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;"
    "border-bottom:1px solid #ddd}img{max-height:32em;margin:.5em}.note{background:#fff3e0;"
    "border-left:4px solid #ff6600;padding:.5em 1em}"
)


def write_report(case: Case, marked: Marked, threshold: float, model_name: str) -> str:
    """The report of `case` as it is `marked` at `threshold`."""
    count = len(case.levels)
    shown = [int(k * count / min(count, _VIEWS)) for k in range(min(count, _VIEWS))]
    pictures = "".join(
        f'<figure style="display:inline-block;margin:0"><img alt="view at '
        f'{case.angles_deg[k]:.0f} degrees" src="data:image/png;base64,'
        f'{base64.b64encode(_picture(case, marked, k)).decode()}"></figure>'
        for k in shown
    )
    kind = "Volume, SUV" if case.is_volume else "MIP image, pixels taken as 2 mm"
    notes = "".join(f"<p class=note>{html.escape(line)}</p>" for line in case.warnings)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(case.name)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(case.name)}</h1>"
        "<p class=note><b>Research use only.</b> Not a medical device: not for diagnosis, therapy "
        "planning or any clinical decision.</p>"
        f"<p>{kind}. Model {html.escape(model_name)}, nnunetv2-mip {__version__}, threshold "
        f"{threshold:.2f}, {time.strftime('%Y-%m-%d %H:%M')}.</p>{notes}"
        f"<p>{pictures}</p><h2>{_sum(case, marked)}</h2>{_table(marked.rows)}</html>"
    )


def _sum(case: Case, marked: Marked) -> str:
    if not marked.rows:
        return "Nothing is marked"
    if case.is_volume:
        total = sum(row["volume_ml"] for row in marked.rows)
        return f"Lesions: {len(marked.rows)}, {total:.1f} ml"
    total = sum(row["area_cm2"] for row in marked.rows)
    return f"Regions: {len(marked.rows)}, {total:.1f} cm²"


def _table(rows: list[dict]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{TITLES.get(key, key)}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{'' if v is None else v}</td>" for v in row.values()) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _picture(case: Case, marked: Marked, view: int) -> bytes:
    """One view, dark is uptake, the mask in orange, pixels made square."""
    grey = (LEVEL_MAX - case.levels[view]).astype(np.float32)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgb[marked.overlay[view] != 0] = 0.5 * rgb[marked.overlay[view] != 0] + 0.5 * MARK
    rows, columns = grey.shape
    row_mm, column_mm = case.pixel_mm
    picture = Image.fromarray(rgb.astype(np.uint8))
    size = (columns, max(1, round(rows * row_mm / column_mm)))
    stream = io.BytesIO()
    picture.resize(size, Image.Resampling.BILINEAR).save(stream, "PNG")
    return stream.getvalue()
