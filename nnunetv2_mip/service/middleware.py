"""The gate every request passes: its time of arrival, its size, its measures, its log line."""

import asyncio
import itertools
import json
import logging
import time

from starlette.exceptions import HTTPException

from nnunetv2_mip.service.logs import log
from nnunetv2_mip.service.monitoring import Measures

# Uploads for the page have their own, larger limit, and longer to come in.
UPLOADS = "/page/cases"
UPLOAD_S = 600.0
# What comes here is JSON, whatever its sender calls it, or forgets to.
_JSON_ROUTES = ("/predict", "/tumor/predict")
_KNOWN = ("/predict", "/tumor/predict", "/api", "/", "/health", "/metrics", "/openapi.json")
_numbers = itertools.count(1)


class Gate:
    """ASGI middleware.

    Bodies that are too large are refused by their announced length, or where they do not announce
    it as soon as too much has come; bodies that do not come in time get 408.
    """

    def __init__(self, app, measures: Measures, max_body: int, max_upload: int, body_s: float):
        self.app, self.measures = app, measures
        self.max_body, self.max_upload, self.body_s = max_body, max_upload, body_s

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        arrived = time.monotonic()
        state = scope.setdefault("state", {})
        state.update(arrived=arrived, number=next(_numbers), notes={})
        if scope["path"] in _JSON_ROUTES:
            others = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]
        upload = scope["path"] == UPLOADS
        limit = self.max_upload if upload else self.max_body
        due = arrived + (UPLOAD_S if upload else self.body_s)
        status = 0

        async def counted_send(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            announced = _announced(scope)
            if announced is not None and announced > limit:
                reason = f"the body has {announced} bytes, at most {limit} are taken"
                await _refuse(counted_send, 413, reason)
            else:
                body = _Body(receive, limit, due)
                await self.app(scope, body.receive, counted_send)
        except Exception as error:
            log(
                "defect",
                logging.ERROR,
                exc_info=True,
                request=state["number"],
                error=type(error).__name__,
            )
            if not status:
                await _refuse(counted_send, 500, "an internal error; see the log")
        finally:
            self._record(scope, state, status, time.monotonic() - arrived)

    def _record(self, scope, state: dict, status: int, seconds: float) -> None:
        path = scope["path"]
        # Paths that strangers make up must not become labels.
        route = path if path in _KNOWN else "/page" if path.startswith("/page") else "other"
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
        self.measures.requests.labels(method, route, str(status)).inc()
        self.measures.seconds.labels(route).observe(seconds)
        if route not in ("/health", "/metrics"):
            log(
                "request",
                request=state["number"],
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000),
                **state["notes"],
            )


class _Body:
    """The incoming side of a request, with a limit on bytes and seconds until it is complete."""

    def __init__(self, receive, limit: int, due: float):
        self._receive, self._limit, self._due = receive, limit, due
        self._had, self._complete = 0, False

    async def receive(self):
        if self._complete:
            # What comes now is the news that the caller has gone.
            return await self._receive()
        try:
            left = max(0.0, self._due - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        if message["type"] == "http.request":
            self._had += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._had > self._limit:
                raise HTTPException(413, f"the body has more than {self._limit} bytes")
        return message


def _announced(scope) -> int | None:
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
