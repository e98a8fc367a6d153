"""Routes of the web page: static files, uploads, and images, tables and files of a case.

Everything the page needs is served from here; nothing is fetched from other hosts. The routes are
not part of the OpenAPI document.
"""

import asyncio
import re
import tempfile
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.io.dicom.options import check_options
from nnunetv2_mip.service.page_cases import Case, CaseMask, CaseStore, mask_file
from nnunetv2_mip.service.page_report import TITLES, render_case_report
from nnunetv2_mip.visualization.view_sheet import SHEET_COLUMNS, view_sheet_png

PAGE_FILES = Path(__file__).parent / "static"
# The script of the rotating MIP, which reports embed too.
SHARED_FILES = Path(__file__).parent.parent / "visualization" / "static"
# The browser refuses all content from other hosts.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_DOWNLOAD_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SUFFIXES = (*VOLUME_SUFFIXES, ".png", ".zip", ".jpg", ".jpeg")
_THRESHOLD = Query(None, ge=0.01, le=0.99, description="probability from which is lesion")

router = APIRouter(prefix="/page/cases", include_in_schema=False)


class PageFiles(StaticFiles):
    """Static files of the page, with headers that keep the browser from loading others."""

    def get_directories(self, directory=None, packages=None):
        return [*super().get_directories(directory, packages), SHARED_FILES]

    async def get_response(self, path, scope):
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = CONTENT_POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_page(app: FastAPI) -> None:
    """Add the routes of the page, and its cases as `app.state.cases`, which must be closed."""
    app.state.cases = CaseStore(app.state.queue, app.state.settings)
    app.include_router(router)
    app.mount("/page", PageFiles(directory=PAGE_FILES, html=True), name="page")


@router.post("", status_code=202)
async def upload(
    request: Request,
    name: str = "file",
    series: str | None = None,
    weight_kg: float | None = None,
    dose_mbq: float | None = None,
    injection_time: str | None = None,
):
    """Receive a file and start work on it; replies with the key of its case.

    The last four are of a zip with DICOM (see `io.dicom.options`).
    """
    options = check_options((series,) if series else (), weight_kg, dose_mbq, injection_time)
    cases = request.app.state.cases
    name = Path(name.replace("\\", "/")).name[:120] or "file"
    # Before the body is received: the disk has space for only so many files.
    case = cases.reserve(name, options)
    folder = tempfile.TemporaryDirectory(prefix="nnunetv2_mip_", ignore_cleanup_errors=True)
    try:
        path = Path(folder.name) / f"upload{_suffix(name)}"
        with path.open("wb") as stream:
            async for chunk in request.stream():
                await asyncio.to_thread(stream.write, chunk)
        cases.start(case, path, folder)
    except BaseException:
        folder.cleanup()
        cases.release()
        raise
    return {"key": case.key}


@router.get("/{key}")
async def state(request: Request, key: str):
    return JSONResponse(_state(_case(request, key)))


@router.delete("/{key}", status_code=204)
async def delete(request: Request, key: str):
    request.app.state.cases.drop(key)


@router.get("/{key}/views.png")
async def views(request: Request, key: str):
    """View sheet of the levels."""
    case = _finished_case(request, key)
    content = await request.app.state.cases.run_in_thread(view_sheet_png, case.levels)
    return Response(content, media_type="image/png")


@router.get("/{key}/overlay.png")
async def overlay(request: Request, key: str, threshold: float | None = _THRESHOLD):
    """View sheet of the mask, 0 and 255."""
    _, found, _ = await _case_and_mask(request, key, threshold)
    content = await request.app.state.cases.run_in_thread(view_sheet_png, found.overlay * 255)
    return Response(content, media_type="image/png")


@router.get("/{key}/table")
async def table(request: Request, key: str, threshold: float | None = _THRESHOLD):
    """Table of lesions or regions."""
    _, found, _ = await _case_and_mask(request, key, threshold)
    titles = {k: TITLES.get(k, k) for k in (found.rows[0] if found.rows else ())}
    return {"titles": titles, "rows": found.rows}


@router.get("/{key}/mask")
async def mask(request: Request, key: str, threshold: float | None = _THRESHOLD):
    """Mask as a file to download."""
    case, found, _ = await _case_and_mask(request, key, threshold)
    content, suffix = await request.app.state.cases.run_in_thread(mask_file, case, found)
    media_type = "image/png" if suffix == ".png" else "application/gzip"
    return _download(content, media_type, f"{_stem(case.name)}_mask{suffix}")


@router.get("/{key}/report")
async def report(request: Request, key: str, threshold: float | None = _THRESHOLD):
    """Report as a file to download."""
    case, found, threshold = await _case_and_mask(request, key, threshold)
    app_state = request.app.state
    text = await app_state.cases.run_in_thread(
        render_case_report, case, found, threshold, app_state.model_name
    )
    return _download(text.encode(), "text/html; charset=utf-8", f"{_stem(case.name)}_report.html")


def _case(request: Request, key: str) -> Case:
    try:
        return request.app.state.cases.get(key)
    except KeyError:
        raise HTTPException(404, "no such case; it was forgotten, or never there") from None


def _finished_case(request: Request, key: str) -> Case:
    case = _case(request, key)
    if case.state != "done":
        raise HTTPException(409, f"the case is {case.state}")
    return case


async def _case_and_mask(
    request: Request, key: str, threshold: float | None
) -> tuple[Case, CaseMask, float]:
    """Finished case, its mask, and the threshold of the mask (by default that of the model)."""
    cases: CaseStore = request.app.state.cases
    case = _finished_case(request, key)
    threshold = threshold or case.threshold
    return case, await cases.run_in_thread(cases.mask_at, case, threshold), threshold


def _state(case: Case) -> dict:
    """State of a case for the page, as JSON."""
    content = {
        "name": case.name,
        "state": case.state,
        "progress": round(case.progress, 3),
        "reason": case.reason,
        "warnings": case.warnings,
    }
    if case.state == "done":
        views, rows, columns = case.levels.shape
        content |= {
            "volume": case.is_volume,
            "views": views,
            "rows": rows,
            "columns": columns,
            "across": min(views, SHEET_COLUMNS),
            "pixel_mm": case.pixel_mm,
            "angles_deg": case.angles_deg,
            "threshold": case.threshold,
        }
    return content


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": _DOWNLOAD_POLICY,
    }
    return Response(content, media_type=media_type, headers=headers)


def _suffix(name: str) -> str:
    """Known suffix of a file name, in lower case, or ''."""
    return next((s for s in _SUFFIXES if name.lower().endswith(s)), "")


def _stem(name: str) -> str:
    """File name without its suffix, safe in a header; 'case' if nothing is left."""
    stem = name[: len(name) - len(_suffix(name))]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._") or "case"
