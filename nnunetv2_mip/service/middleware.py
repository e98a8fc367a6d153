"""Middleware of the service: time of arrival, limits, metrics and log line of every request."""

import asyncio
import itertools
import json
import logging
import time

from starlette.exceptions import HTTPException

from nnunetv2_mip.service.logs import log
from nnunetv2_mip.service.monitoring import Metrics

# Uploads for the page have a larger limit of bytes and of seconds.
UPLOAD_PATH = "/page/cases"
UPLOAD_S = 600.0
# Bodies of these routes are read as JSON, with any content type or none.
_JSON_PATHS = ("/predict", "/tumor/predict")
# Only these paths become labels of metrics: clients could send any number of others.
_LABELLED_PATHS = (*_JSON_PATHS, "/api", "/", "/health", "/metrics", "/openapi.json")
_LABELLED_METHODS = ("GET", "POST", "HEAD")
_NOT_LOGGED = ("/health", "/metrics")
_numbers = itertools.count(1)


class RequestMiddleware:
    """ASGI middleware around the application.

    A body that is too large gets 413: by its `Content-Length`, or without one as soon as too many
    bytes have come. A body that is not complete in time gets 408. An exception that no handler
    takes gets 500 and is logged with its traceback.

    Routes find `arrived` (by `time.monotonic`), `number` and `notes` (fields of the log line) in
    `request.state`.

    Args:
        app: ASGI application.
        metrics: gets the counts.
        max_body: bytes of a body.
        max_upload: bytes of an upload for the page.
        body_s: seconds from arrival until a body must be complete.
    """

    def __init__(self, app, metrics: Metrics, max_body: int, max_upload: int, body_s: float):
        self.app, self.metrics = app, metrics
        self.max_body, self.max_upload, self.body_s = max_body, max_upload, body_s

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        state = scope.setdefault("state", {})
        state.update(arrived=arrived, number=next(_numbers), notes={})
        if scope["path"] in _JSON_PATHS:
            _set_json_content_type(scope)
        response = _ResponseStatus(send)
        try:
            await self._limited(scope, receive, response.send, arrived)
        except Exception as error:
            log(
                "defect",
                logging.ERROR,
                exc_info=True,
                request=state["number"],
                error=type(error).__name__,
            )
            if not response.status:
                await _refuse(response.send, 500, "an internal error; see the log")
        finally:
            self._record(scope, state, response.status, time.monotonic() - arrived)

    async def _limited(self, scope, receive, send, arrived: float) -> None:
        """Run the application with the limits of the path on bytes and seconds."""
        upload = scope["path"] == UPLOAD_PATH
        limit = self.max_upload if upload else self.max_body
        due = arrived + (UPLOAD_S if upload else self.body_s)
        length = _content_length(scope)
        if length is not None and length > limit:
            reason = f"the body has {length} bytes, at most {limit} are taken"
            await _refuse(send, 413, reason)
        else:
            await self.app(scope, _LimitedBody(receive, limit, due).receive, send)

    def _record(self, scope, state: dict, status: int, seconds: float) -> None:
        """Metrics and log line of a finished request."""
        path, method = scope["path"], scope["method"]
        if path in _LABELLED_PATHS:
            route = path
        else:
            route = "/page" if path.startswith("/page") else "other"
        method = method if method in _LABELLED_METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        if route not in _NOT_LOGGED:
            log(
                "request",
                request=state["number"],
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000),
                **state["notes"],
            )


class _ResponseStatus:
    """Outgoing side of a request: keeps the status, 0 before the response has started."""

    def __init__(self, send):
        self._send = send
        self.status = 0

    async def send(self, message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _LimitedBody:
    """Incoming side of a request: a body of at most `limit` bytes, complete at `due`."""

    def __init__(self, receive, limit: int, due: float):
        self._receive, self._limit, self._due = receive, limit, due
        self._received, self._complete = 0, False

    async def receive(self):
        if self._complete:
            # The only message to come says that the client has closed the connection.
            return await self._receive()
        try:
            left = max(0.0, self._due - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._received > self._limit:
                raise HTTPException(413, f"the body has more than {self._limit} bytes")
        return message


def _set_json_content_type(scope) -> None:
    others = [header for header in scope["headers"] if header[0] != b"content-type"]
    scope["headers"] = [*others, (b"content-type", b"application/json")]


def _content_length(scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            try:
                return int(value)
            except ValueError:
                return None
    return None


async def _refuse(send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # The body was not read: the connection cannot be used again.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
