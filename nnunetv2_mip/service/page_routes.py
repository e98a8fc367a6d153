"""The routes of the page. Everything it needs is served from here; nothing is fetched elsewhere."""

import asyncio
import re
import tempfile
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from nnunetv2_mip.conventions import VOLUME_SUFFIXES
from nnunetv2_mip.service.page_cases import Case, Cases, mask_file
from nnunetv2_mip.service.page_report import TITLES, render_case_report
from nnunetv2_mip.service.request_queue import Desk
from nnunetv2_mip.service.settings import Settings
from nnunetv2_mip.visualization.view_sheet import SHEET_COLUMNS, view_sheet_png

STATIC = Path(__file__).parent / "static"
# The script that turns MIPs, which reports have too.
SHARED = Path(__file__).parent.parent / "visualization" / "static"
# The browser itself refuses whatever would come from elsewhere.
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_SUFFIXES = (*VOLUME_SUFFIXES, ".png", ".zip", ".jpg", ".jpeg")
_THRESHOLD = Query(None, ge=0.01, le=0.99, description="probability from which is lesion")


class _OwnFiles(StaticFiles):
    def get_directories(self, directory=None, packages=None):
        return [*super().get_directories(directory, packages), SHARED]

    async def get_response(self, path, scope):
        response = await super().get_response(path, scope)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


def add_page(app: FastAPI, desk: Desk, settings: Settings) -> Cases:
    """Add the page's routes to the app; gives the cases, to be closed at the end."""
    cases = Cases(desk, settings)
    # Not of the competition's interface, so not in its OpenAPI document.
    router = APIRouter(prefix="/page/cases", include_in_schema=False)

    @router.post("", status_code=202)
    async def add(request: Request, name: str = "file"):
        name = Path(name.replace("\\", "/")).name[:120] or "file"
        # Before the body: there is room on the disk for so many.
        case = cases.reserve(name)
        folder = tempfile.TemporaryDirectory(prefix="nnunetv2_mip_", ignore_cleanup_errors=True)
        try:
            suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), "")
            path = Path(folder.name) / f"upload{suffix}"
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
    async def state(key: str):
        return JSONResponse(_state(_find(cases, key)))

    @router.delete("/{key}", status_code=204)
    async def drop(key: str):
        cases.drop(key)

    @router.get("/{key}/views.png")
    async def views(key: str):
        case = _finished(cases, key)
        return Response(await cases.aside(view_sheet_png, case.levels), media_type="image/png")

    @router.get("/{key}/overlay.png")
    async def overlay(key: str, threshold: float | None = _THRESHOLD):
        case = _finished(cases, key)
        marked = await cases.aside(cases.mark, case, threshold or case.threshold)
        content = await cases.aside(view_sheet_png, marked.overlay * 255)
        return Response(content, media_type="image/png")

    @router.get("/{key}/table")
    async def table(key: str, threshold: float | None = _THRESHOLD):
        case = _finished(cases, key)
        marked = await cases.aside(cases.mark, case, threshold or case.threshold)
        titles = {k: TITLES.get(k, k) for k in (marked.rows[0] if marked.rows else ())}
        return {"titles": titles, "rows": marked.rows}

    @router.get("/{key}/mask")
    async def mask(key: str, threshold: float | None = _THRESHOLD):
        case = _finished(cases, key)
        marked = await cases.aside(cases.mark, case, threshold or case.threshold)
        content, suffix = await cases.aside(mask_file, case, marked)
        kind = "image/png" if suffix == ".png" else "application/gzip"
        return _download(content, kind, f"{_stem(case.name)}_mask{suffix}")

    @router.get("/{key}/report")
    async def report(key: str, threshold: float | None = _THRESHOLD):
        case = _finished(cases, key)
        chosen = threshold or case.threshold
        marked = await cases.aside(cases.mark, case, chosen)
        text = await cases.aside(render_case_report, case, marked, chosen, app.state.model_name)
        return _download(
            text.encode(), "text/html; charset=utf-8", f"{_stem(case.name)}_report.html"
        )

    app.include_router(router)
    app.mount("/page", _OwnFiles(directory=STATIC, html=True), name="page")
    return cases


def _find(cases: Cases, key: str) -> Case:
    try:
        return cases.get(key)
    except KeyError:
        raise HTTPException(404, "no such case; it was forgotten, or never there") from None


def _finished(cases: Cases, key: str) -> Case:
    case = _find(cases, key)
    if case.state != "done":
        raise HTTPException(409, f"the case is {case.state}")
    return case


def _state(case: Case) -> dict:
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


def _download(content: bytes, kind: str, name: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    }
    return Response(content, media_type=kind, headers=headers)


def _stem(name: str) -> str:
    suffix = next((s for s in _SUFFIXES if name.lower().endswith(s)), "")
    stem = name[: len(name) - len(suffix)] if suffix else name
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._") or "case"
