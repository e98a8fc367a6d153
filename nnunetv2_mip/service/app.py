"""Application of the service: routes, middleware and error replies around one loaded predictor."""

import time
from contextlib import asynccontextmanager

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from nnunetv2_mip import __version__
from nnunetv2_mip.errors import MipError
from nnunetv2_mip.inference.deadline import Cancelled
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.service.middleware import RequestMiddleware
from nnunetv2_mip.service.monitoring import Metrics
from nnunetv2_mip.service.request_queue import Busy, RequestQueue
from nnunetv2_mip.service.routes import router
from nnunetv2_mip.service.settings import Settings

# The status by which proxies log that the client closed the connection; it is not received.
CLIENT_CLOSED_REQUEST = 499


def warm_up(predictor: MIPPredictor) -> float:
    """Seconds taken to predict two sizes once, so that the first request is not slow."""
    start = time.monotonic()
    for rows in (991, 512):
        levels = np.zeros((rows, 400), np.uint8)
        levels[20:-20, 40:-40] = 60
        predictor.predict_image(levels)
    return time.monotonic() - start


def create_app(predictor: MIPPredictor, settings: Settings, model_name: str = "") -> FastAPI:
    """Application that serves a predictor.

    Its `state` has `settings`, `queue`, `metrics`, `model_name`, `started` (by `time.monotonic`),
    and `cases` if the page is served.

    Args:
        predictor: loaded model, best after `warm_up`; `never_empty` of the settings is applied.
        settings: limits.
        model_name: name of the model in `/health` and in reports.
    """
    app = FastAPI(
        title="nnunetv2_mip",
        version=__version__,
        description="Tumour segmentation on MIP-PET. Research use only.",
        # These pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    if settings.never_empty:
        predictor = predictor.override(never_empty=True)
    state = app.state
    state.settings, state.model_name, state.started = settings, model_name, time.monotonic()
    state.metrics = Metrics()
    state.queue = RequestQueue(predictor, settings.queue, state.metrics)
    app.add_middleware(
        RequestMiddleware,
        metrics=state.metrics,
        max_body=settings.max_body_bytes,
        max_upload=settings.max_upload_bytes,
        body_s=settings.deadline_s,
    )
    _add_error_handlers(app)
    app.include_router(router)
    if settings.page:
        from nnunetv2_mip.service.page_routes import add_page

        add_page(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI):
    yield
    app.state.queue.close()
    if app.state.settings.page:
        app.state.cases.close()


def _add_error_handlers(app: FastAPI) -> None:
    """Reply to each error with `{"detail": one line}`, which never repeats the content sent."""
    app.exception_handler(RequestValidationError)(_invalid_body)
    app.exception_handler(MipError)(_unusable_input)
    app.exception_handler(Busy)(_busy)
    app.exception_handler(Cancelled)(_client_closed)
    app.exception_handler(ClientDisconnect)(_client_closed)


async def _invalid_body(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse({"detail": "the body is no valid JSON"}, 400)
    where = ".".join(str(part) for part in first["loc"][:3])[:80]
    wanted = 'send {"img": "<base64 PNG>"} as application/json'
    return JSONResponse({"detail": f"{where}: {first['msg'][:120]}; {wanted}"}, 422)


async def _unusable_input(request: Request, error: MipError) -> Response:
    return JSONResponse({"detail": " ".join(str(error).splitlines())[:400]}, 422)


async def _busy(request: Request, error: Busy) -> Response:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(error.retry_s)})


async def _client_closed(request: Request, error: Exception) -> Response:
    request.app.state.metrics.cancelled.inc()
    return Response(status_code=CLIENT_CLOSED_REQUEST)
