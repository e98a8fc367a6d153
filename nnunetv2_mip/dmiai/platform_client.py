"""The competition's platform, seen from a competitor.

`POST …/validate/queue` with the URL of the service queues an attempt; `GET …/validate/queue/UUID`
tells how it stands; `…/evaluate/queue` is the same, and is allowed once.
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
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
# Something on the way gave up, or broke: the request may have been taken before.
_UNKNOWN_OUTCOME = (500, 502, 504)


@dataclass(frozen=True)
class Account:
    """Where and as whom to submit."""

    platform: str
    token: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], platform: str | None) -> "Account":
        """Read the token, and the platform's address unless it is given.

        Raises:
            MipError: a variable is missing, or the address is none.
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
class Status:
    """How an attempt stands.

    Attributes:
        state: `queued`, `running`, `done`, `failed`, or what else the platform says.
        score: when done.
        errors: what the platform complains of.
        position: in the queue, where it says so.
    """

    uuid: str
    state: str
    score: float | None = None
    errors: tuple[str, ...] = ()
    position: int | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("done", "failed")


def require_url(text: str, what: str) -> str:
    """The address itself; MipError where it is none of http or https."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise MipError(f"{what} {text!r}: give an address that starts with http:// or https://")
    return text


class Platform:
    """A client that tries again, with growing pauses, where the platform is busy.

    Args:
        account: where and as whom.
        sleep: for tests.
    """

    def __init__(self, account: Account, sleep: Callable[[float], None] = time.sleep):
        self._sleep = sleep
        self._client = httpx.Client(
            base_url=account.platform + PREFIX,
            headers={"x-token": account.token},
            timeout=30,
        )

    def submit(self, kind: str, service_url: str) -> Status:
        """Queue an attempt.

        Args:
            kind: `validate` or `evaluate`. An evaluation is sent once and never repeated, not
                even when no answer came: it might have been counted.
            service_url: of the service's `/predict`, as the platform reaches it.

        Raises:
            MipError: the platform refuses, or cannot be reached.
        """
        content = self._ask(
            "POST", f"/{kind}/queue", {"url": service_url}, attempts=1 if kind == "evaluate" else 0
        )
        uuid = content.get("queued_attempt_uuid")
        if not uuid:
            raise MipError(f"{kind}: the platform's answer has no queued_attempt_uuid: {content}")
        return Status(str(uuid), "queued", position=_whole(content.get("position_in_queue")))

    def status(self, kind: str, uuid: str) -> Status:
        """How an attempt stands.

        Raises:
            MipError: the platform does not know it, or cannot be reached.
        """
        content = self._ask("GET", f"/{kind}/queue/{quote(uuid, safe='')}")
        attempt = content.get("attempt")
        attempt = attempt if isinstance(attempt, Mapping) else {}
        errors = attempt.get("errors") or content.get("errors") or ()
        errors = [errors] if isinstance(errors, str) else errors
        score = attempt.get("score")
        return Status(
            uuid,
            str(content.get("status", "unknown")),
            float(score) if isinstance(score, int | float) else None,
            tuple(str(error) for error in errors),
            _whole(content.get("position_in_queue")),
        )

    def wait(self, kind: str, uuid: str, seconds: float, tell: Callable[[Status], None]) -> Status:
        """Ask until the attempt has ended, at growing distances of up to 20 s.

        Args:
            seconds: to wait at most.
            tell: called with every status.

        Raises:
            MipError: it has not ended by then.
        """
        ends = time.monotonic() + seconds
        pause = 2.0
        while True:
            status = self.status(kind, uuid)
            tell(status)
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
        # What is sent once may have arrived all the same.
        hint = "; it may have been counted: look before you try again" if attempts == 1 else ""
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            answer = None
            try:
                answer = self._client.request(method, path, json=body)
            except httpx.HTTPError as error:
                if last:
                    raise MipError(
                        f"{self._client.base_url}: cannot be reached "
                        f"({str(error) or type(error).__name__}){hint}"
                    ) from None
            if answer is not None and (last or answer.status_code not in _TRY_AGAIN):
                break
            self._sleep(_pause(attempt, answer))
        try:
            return _content(answer, path)
        except MipError as error:
            if hint and answer.status_code in _UNKNOWN_OUTCOME:
                raise MipError(f"{error}{hint}") from None
            raise


def status_option(kind: str) -> str:
    """What `nnUNetv2_mip_submit status` needs beside the UUID for an attempt of that kind."""
    return " --evaluation" if kind == "evaluate" else ""


def _pause(attempt: int, answer: httpx.Response | None) -> float:
    """Seconds before the next try: what the platform asks for, or 1, 2, 4, … with some chance."""
    asked = answer.headers.get("Retry-After", "") if answer is not None else ""
    if asked.isdigit():
        return min(float(asked), 60.0)
    return 2.0**attempt * random.uniform(0.75, 1.25)


def _content(answer: httpx.Response, path: str) -> dict[str, Any]:
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


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
