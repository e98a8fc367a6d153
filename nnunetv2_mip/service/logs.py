"""Logs as JSON, one object a line, on stderr. Never any image content."""

import json
import logging
import sys
import time

LOGGER = logging.getLogger("nnunetv2_mip.service")
_OWN = "mip_fields"


def log(event: str, level: int = logging.INFO, exc_info: bool = False, **fields) -> None:
    """Log an event with its fields (numbers and short texts), `exc_info` with the traceback."""
    LOGGER.log(level, event, exc_info=exc_info, extra={_OWN: fields})


class _ToStderr(logging.StreamHandler):
    """Writes to what is stderr now, not to what it was when logging was set up."""

    @property
    def stream(self):
        return sys.stderr

    @stream.setter
    def stream(self, _):
        pass


class JsonLines(logging.Formatter):
    """`{"time": …, "level": …, "event": …, …}`"""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _OWN, {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False, default=str)


def set_up(verbose: bool = False) -> None:
    """Send our events, and what the server itself has to say, to stderr."""
    handler = _ToStderr()
    handler.setFormatter(JsonLines())
    for name, level in (
        (LOGGER.name, logging.DEBUG if verbose else logging.INFO),
        ("uvicorn.error", logging.INFO if verbose else logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
