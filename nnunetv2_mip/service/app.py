"""The app: the competition's routes, and what operators need.

Built by a factory from a predictor that is loaded already; `warm_up` it first.
"""

import asyncio
import datetime
import time
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Cancelled
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.service.image_codec import decode_image, encode_mask
from nnunetv2_mip.service.middleware import Gate
from nnunetv2_mip.service.monitoring import Measures
from nnunetv2_mip.service.request_queue import Answer, Busy, Desk, Ticket
from nnunetv2_mip.service.settings import SERVICE_NAME, Settings

# The status by which proxies log that the caller closed the connection; nobody receives it.
CLIENT_GONE = 499
DEGRADED_HEADER = "X-MIP-Degraded"
_HOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>nnunetv2_mip</title>
<body style="font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em">
<h1>Your endpoint is running!</h1>
<p>Tumour segmentation on MIP-PET: <code>POST /predict</code> with
<code>{{"img": "&lt;base64 PNG&gt;"}}</code>.</p>
<p>{page}<a href="/api">status</a> · <a href="/health">health</a> · <a href="/metrics">metrics</a> ·
<a href="/openapi.json">OpenAPI</a></p>
<p>For research use only. Not a medical device.</p></body></html>"""


class PredictRequest(BaseModel):
    """A MIP-PET image."""

    img: str = Field(description="base64 PNG, dark is uptake")


class Classification(BaseModel):
    """What rides along."""

    lesion_probability: float = Field(
        description="the highest probability of any pixel; not calibrated"
    )
    regions: int = Field(description="8-connected regions of the mask")


class PredictReply(BaseModel):
    """A mask."""

    img: str = Field(
        description="base64 PNG of the input's height and width, three equal channels, 255 is "
        "tumour and 0 is not"
    )
    classification: Classification


class ApiReply(BaseModel):
    service: str
    uptime: str


class Reason(BaseModel):
    """Why there is no mask."""

    detail: str


_REFUSALS = {
    400: {"model": Reason, "description": "the body is no JSON"},
    408: {"model": Reason, "description": "the body did not come in time"},
    413: {"model": Reason, "description": "the body is too large"},
    422: {"model": Reason, "description": "no base64, no image, damaged, or too large"},
    503: {"model": Reason, "description": "too many requests wait; see Retry-After"},
}


def warm_up(predictor: MIPPredictor) -> float:
    """Predict a few sizes once, so that the first caller does not pay for it; gives the seconds."""
    start = time.monotonic()
    for rows in (991, 512):
        levels = np.zeros((rows, 400), np.uint8)
        levels[20:-20, 40:-40] = 60
        predictor.predict_image(levels)
    return time.monotonic() - start


def create_app(predictor: MIPPredictor, settings: Settings, model_name: str = "") -> FastAPI:
    """The app.

    Args:
        predictor: loaded; `never_empty` of the settings is applied here.
        settings: limits.
        model_name: what /health calls the model.
    """
    measures = Measures()
    if settings.never_empty:
        predictor = predictor.override(never_empty=True)
    desk = Desk(predictor, settings.queue, measures)
    started = time.monotonic()

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        desk.close()
        if settings.page:
            app.state.cases.close()

    app = FastAPI(
        title="nnunetv2_mip",
        version=__version__,
        description="Tumour segmentation on MIP-PET. Research use only.",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.desk, app.state.measures, app.state.model_name = desk, measures, model_name
    app.add_middleware(
        Gate,
        measures=measures,
        max_body=settings.max_body_bytes,
        max_upload=settings.max_upload_bytes,
        body_s=settings.deadline_s,
    )
    _add_error_handlers(app)

    async def predict(body: PredictRequest, request: Request, response: Response):
        arrived = request.state.arrived
        levels = await asyncio.to_thread(decode_image, body.img, settings)
        del body
        ticket = Ticket(levels, arrived, arrived + settings.deadline_s)
        desk.submit(ticket)
        answer = await _answer_or_leave(request, ticket)
        _tell(answer, request, response, measures)
        return await asyncio.to_thread(_reply, answer)

    for path in ("/predict", "/tumor/predict"):
        app.post(
            path,
            response_model=PredictReply,
            responses=_REFUSALS,
            operation_id=path.strip("/").replace("/", "_"),
            summary="The tumour mask of a MIP-PET image",
        )(predict)

    @app.get("/api", response_model=ApiReply, summary="What runs here, and since when")
    async def api():
        uptime = datetime.timedelta(seconds=int(time.monotonic() - started))
        return {"service": SERVICE_NAME, "uptime": str(uptime)}

    @app.get("/", response_class=HTMLResponse, summary="Tells that the endpoint runs")
    async def home():
        return _HOME.format(page='<a href="/page/">the page</a> · ' if settings.page else "")

    @app.get("/health", summary="Whether requests are served", responses={503: {}})
    async def health():
        content = {
            "status": "ok" if desk.alive else "failing",
            "model": model_name,
            "networks": predictor.folds,
            "engine": predictor.engine,
            "version": __version__,
        }
        return JSONResponse(content, 200 if desk.alive else 503)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics():
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    if settings.page:
        from nnunetv2_mip.service.page_routes import add_page

        app.state.cases = add_page(app, desk, settings)
    return app


async def _answer_or_leave(request: Request, ticket: Ticket) -> Answer:
    """Wait for the answer; mark the ticket when the caller leaves first.

    Raises:
        Cancelled: the caller has gone.
        Busy: it was refused.
    """
    answer = asyncio.wrap_future(ticket.answer)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            ticket.gone.set()
            raise Cancelled
        return answer.result()
    except asyncio.CancelledError:
        ticket.gone.set()
        raise
    finally:
        leaving.cancel()
        if not answer.done():
            # Its exception, if any, is nobody's any more.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tell(answer: Answer, request: Request, response: Response, measures: Measures) -> None:
    """Headers, counters and the log line of an answer."""
    rows, columns = answer.mask.shape
    pixels = int(answer.mask.sum())
    notes = request.state.notes
    notes.update(
        rows=rows,
        columns=columns,
        marked_px=pixels,
        waited_ms=round(answer.waited_s * 1000),
        device_ms=round(answer.took_s * 1000),
    )
    if not pixels:
        measures.empty.inc()
    work_done = answer.work_done
    if work_done is not None and work_done.degraded:
        response.headers[DEGRADED_HEADER] = notes["degraded"] = str(work_done)
        measures.degraded.labels(
            "folds" if work_done.folds < work_done.planned_folds else "tta"
        ).inc()


def _reply(answer: Answer) -> dict:
    import cc3d

    regions = int(cc3d.connected_components(answer.mask, connectivity=8).max(initial=0))
    return {
        "img": encode_mask(answer.mask),
        "classification": {
            "lesion_probability": round(float(answer.probability.max(initial=0)), 4),
            "regions": regions,
        },
    }


def _add_error_handlers(app: FastAPI) -> None:
    """Every refusal is `{"detail": one line}` and never echoes what was sent."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError):
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return JSONResponse({"detail": "the body is no valid JSON"}, 400)
        where = ".".join(str(part) for part in first["loc"][:3])[:80]
        wanted = 'send {"img": "<base64 PNG>"} as application/json'
        return JSONResponse({"detail": f"{where}: {first['msg'][:120]}; {wanted}"}, 422)

    @app.exception_handler(MipError)
    async def unusable(request: Request, error: MipError):
        return JSONResponse({"detail": " ".join(str(error).splitlines())[:400]}, 422)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy):
        headers = {"Retry-After": str(error.retry_s)}
        return JSONResponse({"detail": str(error)}, 503, headers)

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(Cancelled)
    async def gone(request: Request, error: Exception):
        app.state.measures.cancelled.inc()
        return Response(status_code=CLIENT_GONE)
