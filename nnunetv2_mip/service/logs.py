"""JSON log of the service: one object a line on stderr, without any image content."""

import json
import logging
import sys
import time

LOGGER = logging.getLogger("nnunetv2_mip.service")
# Attribute of a log record that holds the fields of `log`.
_FIELDS = "mip_fields"


def log(event: str, level: int = logging.INFO, exc_info: bool = False, **fields) -> None:
    """Log line of an event.

    Args:
        event: name of the event.
        level: of `logging`.
        exc_info: adds the traceback of the current exception.
        fields: numbers and short texts.
    """
    LOGGER.log(level, event, exc_info=exc_info, extra={_FIELDS: fields})


class _StderrHandler(logging.StreamHandler):
    """Handler that looks up `sys.stderr` for each line, so that a replaced stderr is respected."""

    @property
    def stream(self):
        return sys.stderr

    @stream.setter
    def stream(self, _):
        pass


class JsonFormatter(logging.Formatter):
    """Formatter of log records: `{"time": …, "level": …, "event": …, …}`."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False, default=str)


def set_up_logging(verbose: bool = False) -> None:
    """Send the events of the service, and the messages of uvicorn, to stderr as JSON.

    Args:
        verbose: log debug events too, and uvicorn's messages below warnings.
    """
    handler = _StderrHandler()
    handler.setFormatter(JsonFormatter())
    for name, level in (
        (LOGGER.name, logging.DEBUG if verbose else logging.INFO),
        ("uvicorn.error", logging.INFO if verbose else logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
