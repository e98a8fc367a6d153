"""Routes of the service: prediction as DM i AI calls it, status, health and metrics.

The names of the route functions and models, the docstrings of the models and the summaries are
published in the OpenAPI document. `create_app` sets the attributes of `request.app.state` used
here.
"""

import asyncio
import datetime
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from nnunetv2_mip import __version__
from nnunetv2_mip.inference.deadline import Cancelled
from nnunetv2_mip.service.image_codec import decode_image, encode_mask
from nnunetv2_mip.service.monitoring import Metrics
from nnunetv2_mip.service.request_queue import Answer, PredictionRequest
from nnunetv2_mip.service.settings import SERVICE_NAME

DEGRADED_HEADER = "X-MIP-Degraded"
WARNING_HEADER = "X-MIP-Warning"
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
    """Probability and number of regions of a mask."""

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
_PREDICT: dict[str, Any] = {
    "response_model": PredictReply,
    "responses": _REFUSALS,
    "summary": "The tumour mask of a MIP-PET image",
}

router = APIRouter()


# No docstrings below: FastAPI would publish them.
@router.post("/tumor/predict", operation_id="tumor_predict", **_PREDICT)
@router.post("/predict", operation_id="predict", **_PREDICT)
async def predict(body: PredictRequest, request: Request, response: Response):
    state = request.app.state
    arrived = request.state.arrived
    image = await asyncio.to_thread(decode_image, body.img, state.settings)
    del body
    if image.warnings:
        response.headers[WARNING_HEADER] = request.state.notes["warning"] = "; ".join(
            image.warnings
        )
    prediction = PredictionRequest(image.levels, arrived, arrived + state.settings.deadline_s)
    state.queue.submit(prediction)
    answer = await _answer_of(prediction, request)
    _record(answer, request, response, state.metrics)
    return await asyncio.to_thread(_reply, answer)


@router.get("/api", response_model=ApiReply, summary="What runs here, and since when")
async def api(request: Request):
    uptime = datetime.timedelta(seconds=int(time.monotonic() - request.app.state.started))
    return {"service": SERVICE_NAME, "uptime": str(uptime)}


@router.get("/", response_class=HTMLResponse, summary="Tells that the endpoint runs")
async def home(request: Request):
    page = request.app.state.settings.page
    return _HOME.format(page='<a href="/page/">the page</a> · ' if page else "")


@router.get("/health", summary="Whether requests are served", responses={503: {}})
async def health(request: Request):
    state = request.app.state
    alive = state.queue.alive
    content = {
        "status": "ok" if alive else "failing",
        "model": state.model_name,
        "networks": state.queue.predictor.folds,
        "engine": state.queue.predictor.engine,
        "version": __version__,
    }
    return JSONResponse(content, 200 if alive else 503)


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
async def metrics(request: Request):
    content = generate_latest(request.app.state.metrics.registry)
    return Response(content, media_type=CONTENT_TYPE_LATEST)


async def _answer_of(prediction: PredictionRequest, request: Request) -> Answer:
    """Answer of the queue; the prediction is cancelled if the client closes the connection first.

    Raises:
        Cancelled: the client has closed the connection.
        Busy: the queue has refused the request.
    """
    answer = asyncio.wrap_future(prediction.answer)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answer, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            prediction.client_gone.set()
            raise Cancelled
        return answer.result()
    except asyncio.CancelledError:
        prediction.client_gone.set()
        raise
    finally:
        disconnected.cancel()
        if not answer.done():
            # A later exception is read here, or asyncio would log it as never retrieved.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _disconnected(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _record(answer: Answer, request: Request, response: Response, metrics: Metrics) -> None:
    """Write headers, metrics and fields of the log line for an answer."""
    rows, columns = answer.mask.shape
    pixels = int(answer.mask.sum())
    notes = request.state.notes
    notes.update(
        rows=rows,
        columns=columns,
        marked_px=pixels,
        waited_ms=round(answer.waited_s * 1000),
        device_ms=round(answer.device_s * 1000),
    )
    if not pixels:
        metrics.empty.inc()
    work = answer.work_done
    if work is not None and work.degraded:
        response.headers[DEGRADED_HEADER] = notes["degraded"] = str(work)
        metrics.degraded.labels("folds" if work.folds < work.planned_folds else "tta").inc()


def _reply(answer: Answer) -> dict:
    """Content of a `PredictReply`."""
    import cc3d

    regions = int(cc3d.connected_components(answer.mask, connectivity=8).max(initial=0))
    return {
        "img": encode_mask(answer.mask),
        "classification": {
            "lesion_probability": round(float(answer.probability.max(initial=0)), 4),
            "regions": regions,
        },
    }
