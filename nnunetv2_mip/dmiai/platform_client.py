"""Client of the DM i AI platform: queues attempts and asks for their status.

`POST …/validate/queue` with the URL of a service queues a validation. `GET …/validate/queue/UUID`
returns its status. `…/evaluate/queue` does the same for the evaluation, which is allowed once.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from nnunetv2_mip.errors import MipError

TOKEN_VARIABLE = "EVAL_API_TOKEN"
SERVICE_VARIABLE = "TUMOR_SEGMENTATION_SERVICE_URL"
PLATFORM_VARIABLE = "EVAL_API_URL"
PREFIX = "/api/v1/usecases/tumor-segmentation"
MAX_POLL_S = 20.0
ATTEMPTS = 6
_RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
# Errors of the platform or of a proxy after which the request may still have been accepted.
_UNKNOWN_OUTCOME = (500, 502, 504)


@dataclass(frozen=True)
class Account:
    """Address of the platform, and token of a team."""

    platform: str
    token: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], platform: str | None) -> "Account":
        """Account of the environment variables; `platform`, if given, replaces the address.

        Raises:
            MipError: a variable is missing, or the address is not one of http or https.
        """
        token = environment.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise MipError(f"{TOKEN_VARIABLE}: is not set; export the token of your team")
        address = platform or environment.get(PLATFORM_VARIABLE, "")
        if not address:
            raise MipError(
                f"{PLATFORM_VARIABLE}: is not set; export the platform's address, or give "
                "--platform https://…"
            )
        return cls(require_url(address, "the platform's address").rstrip("/"), token)


@dataclass(frozen=True)
class AttemptStatus:
    """Status of a validation or an evaluation.

    Attributes:
        uuid: of the attempt.
        state: `queued`, `running`, `done`, `failed`, or another word of the platform.
        score: score of a finished attempt, or None.
        errors: messages of the platform.
        position: position in the queue, or None.
    """

    uuid: str
    state: str
    score: float | None = None
    errors: tuple[str, ...] = ()
    position: int | None = None

    @property
    def ended(self) -> bool:
        """True for `done` and `failed`."""
        return self.state in ("done", "failed")


def require_url(text: str, what: str) -> str:
    """The address `text`, checked.

    Args:
        text: the address.
        what: its name in the message.

    Raises:
        MipError: the address is not one of http or https.
    """
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise MipError(f"{what} {text!r}: give an address that starts with http:// or https://")
    return text


class PlatformClient:
    """HTTP client of the platform, with retries after growing pauses while it is busy.

    Args:
        account: address and token.
        sleep: called with the seconds of each pause; tests replace it.
    """

    def __init__(self, account: Account, sleep: Callable[[float], None] = time.sleep):
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=account.platform + PREFIX,
            headers={"x-token": account.token},
            timeout=30,
        )

    def submit(self, kind: str, service_url: str) -> AttemptStatus:
        """Queue an attempt; returns its status.

        Args:
            kind: `validate` or `evaluate`. An evaluation is sent once and never repeated, even
                without an answer, because it may have been counted.
            service_url: address of the service's `/predict` for the platform.

        Raises:
            MipError: the platform refuses the attempt, or cannot be reached.
        """
        content = self._ask(
            "POST", f"/{kind}/queue", {"url": service_url}, attempts=1 if kind == "evaluate" else 0
        )
        uuid = content.get("queued_attempt_uuid")
        if not uuid:
            raise MipError(f"{kind}: the platform's answer has no queued_attempt_uuid: {content}")
        return AttemptStatus(
            str(uuid), "queued", position=_int_or_none(content.get("position_in_queue"))
        )

    def status(self, kind: str, uuid: str) -> AttemptStatus:
        """Status of an attempt.

        Args:
            kind: `validate` or `evaluate`.
            uuid: of the attempt.

        Raises:
            MipError: the platform does not know the attempt, or cannot be reached.
        """
        content = self._ask("GET", f"/{kind}/queue/{quote(uuid, safe='')}")
        attempt = content.get("attempt")
        attempt = attempt if isinstance(attempt, Mapping) else {}
        errors = attempt.get("errors") or content.get("errors") or ()
        errors = [errors] if isinstance(errors, str) else errors
        score = attempt.get("score")
        return AttemptStatus(
            uuid,
            str(content.get("status", "unknown")),
            float(score) if isinstance(score, int | float) else None,
            tuple(str(error) for error in errors),
            _int_or_none(content.get("position_in_queue")),
        )

    def wait(
        self, kind: str, uuid: str, seconds: float, on_status: Callable[[AttemptStatus], None]
    ) -> AttemptStatus:
        """Final status of an attempt, asked for after growing pauses of up to 20 s.

        Args:
            kind: `validate` or `evaluate`.
            uuid: of the attempt.
            seconds: longest time to wait.
            on_status: called with every status.

        Raises:
            MipError: the attempt has not ended after `seconds`.
        """
        ends = time.monotonic() + seconds
        pause = 2.0
        while True:
            status = self.status(kind, uuid)
            on_status(status)
            if status.ended:
                return status
            if time.monotonic() + pause > ends:
                raise MipError(
                    f"{uuid}: still {status.state} after {seconds:.0f} s; ask again with  "
                    f"nnUNetv2_mip_submit status {uuid}{status_option(kind)}"
                )
            self._sleep(pause)
            pause = min(1.5 * pause, MAX_POLL_S)

    def _ask(
        self, method: str, path: str, body: dict | None = None, attempts: int = 0
    ) -> dict[str, Any]:
        attempts = attempts or ATTEMPTS
        # A request sent once may have arrived although no answer came.
        hint = "; it may have been counted: look before you try again" if attempts == 1 else ""
        answer = self._answer(method, path, body, attempts, hint)
        try:
            return _json_object(answer, path)
        except MipError as error:
            if hint and answer.status_code in _UNKNOWN_OUTCOME:
                raise MipError(f"{error}{hint}") from None
            raise

    def _answer(
        self, method: str, path: str, body: dict | None, attempts: int, hint: str
    ) -> httpx.Response:
        """Answer to a request, which is sent up to so many times; the last answer counts."""
        attempt = 0
        while True:
            last = attempt + 1 >= attempts
            answer: httpx.Response | None = None
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.HTTPError as error:
                if last:
                    raise MipError(
                        f"{self._client.base_url}: cannot be reached "
                        f"({str(error) or type(error).__name__}){hint}"
                    ) from None
            if answer is not None and (last or answer.status_code not in _RETRY_STATUS):
                return answer
            self._sleep(_pause(attempt, answer))
            attempt += 1


def status_option(kind: str) -> str:
    """Option that `nnUNetv2_mip_submit status` needs for an attempt of that kind, or ''."""
    return " --evaluation" if kind == "evaluate" else ""


def _pause(attempt: int, answer: httpx.Response | None) -> float:
    """Seconds before the next try: `Retry-After` of the platform, or 1, 2, 4, … with jitter."""
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), 60.0)
    return 2.0**attempt * random.uniform(0.75, 1.25)


def _json_object(answer: httpx.Response, path: str) -> dict[str, Any]:
    if answer.status_code in (401, 403):
        raise MipError(
            f"{path}: the platform refuses the token ({answer.status_code}); check {TOKEN_VARIABLE}"
        )
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.status_code >= 400:
        reason = content.get("detail") if isinstance(content, dict) else answer.text
        raise MipError(f"{path}: the platform says {answer.status_code}: {str(reason)[:300]}")
    if not isinstance(content, dict):
        raise MipError(f"{path}: the platform's answer is no JSON object: {answer.text[:100]!r}")
    return content


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
