"""Request queue of the service: one inference at a time, a deadline for each request.

The queue is bounded. One thread runs the requests in the order of their arrival. The time that a
request may spend is a fair share: small enough that all waiting requests can take as long and still
meet their deadlines. The predictor asks for more time before every pass, so under load it leaves
out mirrored copies first, then networks; the first pass always runs. A request whose client closed
the connection is skipped. A request that waited past its deadline, in the queue or for the device,
is refused.

Volumes of the page take long. They run on another thread, hold the device only while a network
runs, and let requests run between any two windows (`device_lock`).
"""

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_mip.inference.deadline import Cancelled, Deadline, WorkDone
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.service.device_lock import DeviceLock
from nnunetv2_mip.service.monitoring import Metrics
from nnunetv2_mip.wording import counted

# Reserved for the work after the last pass: resampling of probabilities, encoding, sending.
FINISH_S = 0.25
# A pass may take longer than the slowest before it.
SLACK = 1.2
# Weight of the latest request in the smoothed duration.
_SMOOTHING = 0.2


class Busy(Exception):
    """Refusal of a request because of load.

    Attributes:
        retry_s: whole seconds after which the client should try again.
    """

    def __init__(self, reason: str, retry_s: float):
        super().__init__(reason)
        self.retry_s = max(1, round(retry_s))


@dataclass
class Answer:
    """Prediction for one image.

    Attributes:
        mask: (H, W) uint8 of 0 and 1.
        probability: (H, W) float32.
        work_done: copies and folds averaged; None for an empty image, which needs no network.
        waited_s: seconds from arrival to start.
        device_s: seconds on the device.
    """

    mask: np.ndarray
    probability: np.ndarray
    work_done: WorkDone | None
    waited_s: float
    device_s: float


@dataclass
class PredictionRequest:
    """Request for the prediction of one image, waiting or running.

    Attributes:
        levels: (H, W) uint8.
        arrived: time of arrival by `time.monotonic`.
        deadline: latest time of the answer by `time.monotonic`.
        answer: future of an `Answer`, or of `Busy`, `Cancelled` or the predictor's exception.
        client_gone: set when the client has closed the connection.
    """

    levels: np.ndarray
    arrived: float
    deadline: float
    answer: Future = field(default_factory=Future)
    client_gone: threading.Event = field(default_factory=threading.Event)


class RequestQueue:
    """Bounded queue of prediction requests, and the thread that runs them.

    Args:
        predictor: model with the settings of the service.
        max_waiting: number of requests that may wait.
        metrics: updated for each request.

    Attributes:
        predictor: as given.
        device_lock: held while a request runs.
    """

    def __init__(self, predictor: MIPPredictor, max_waiting: int, metrics: Metrics):
        self.predictor = predictor
        self.device_lock = DeviceLock()
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._waiting: deque[PredictionRequest] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._busy = False
        # Smoothed duration of the last requests, for Retry-After.
        self._typical_s = 0.5
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while requests are answered."""
        return self._open and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """True while a request runs, or waits as the first for the device."""
        return self._busy

    def submit(self, request: PredictionRequest) -> None:
        """Append a request to the queue.

        Raises:
            Busy: the queue is full, or the service is closing.
        """
        with self._changed:
            waiting = sum(not other.client_gone.is_set() for other in self._waiting)
            if not self._open or waiting >= self._max_waiting:
                self._metrics.refused.labels("queue").inc()
                raise Busy(
                    f"{counted(waiting, 'request', 'waits')} already; come again later",
                    self._typical_s * (waiting + 1),
                )
            self._waiting.append(request)
            self._metrics.waiting.set(waiting + 1)
            self._changed.notify()

    def close(self) -> None:
        """Refuse all waiting requests, finish the running one and stop the thread."""
        with self._changed:
            self._open = False
            for request in self._waiting:
                request.answer.set_exception(Busy("the service is closing", 5))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout=10)

    def time_left(self, request: PredictionRequest) -> float:
        """Seconds that the running `request` may still spend on the device."""
        now = time.monotonic()
        with self._changed:
            others = [other.deadline for other in self._waiting if not other.client_gone.is_set()]
        # The k-th waiting request starts after k others, each as long as the running one.
        shares = [(due - now) / (k + 1) for k, due in enumerate([request.deadline, *others])]
        return min(shares) - FINISH_S

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                request = self._waiting.popleft()
                self._metrics.waiting.set(len(self._waiting))
            if request.answer.set_running_or_notify_cancel():
                self._busy = True
                self._answer(request)
                self._busy = False

    def _answer(self, request: PredictionRequest) -> None:
        deadline = _RequestDeadline(self, request)
        try:
            self._require_time(request)
            with self.device_lock.hold(urgent=True):
                # The page may have held the device until now.
                self._require_time(request)
                start = time.monotonic()
                mask, probability = self.predictor.predict_image(request.levels, deadline)
        except BaseException as error:
            # Any exception goes to the client; the thread must live on.
            request.answer.set_exception(error)
            return
        device_s = time.monotonic() - start
        waited_s = start - request.arrived
        self._typical_s += _SMOOTHING * (device_s - self._typical_s)
        self._metrics.waited.observe(waited_s)
        self._metrics.inference.observe(device_s)
        answer = Answer(mask, probability, deadline.work_done, waited_s, device_s)
        request.answer.set_result(answer)

    def _require_time(self, request: PredictionRequest) -> None:
        """Check before a request runs.

        Raises:
            Cancelled: the client has closed the connection.
            Busy: the deadline has passed.
        """
        if request.client_gone.is_set():
            raise Cancelled
        if time.monotonic() >= request.deadline:
            self._metrics.refused.labels("late").inc()
            raise Busy("waited past the deadline for its turn; come again later", self._typical_s)


class _RequestDeadline(Deadline):
    """Deadline of a request: its fair share of the time; cancelled when its client has gone."""

    def __init__(self, queue: RequestQueue, request: PredictionRequest):
        self._queue, self._request = queue, request

    def check(self) -> None:
        if self._request.client_gone.is_set():
            raise Cancelled

    def allows(self, seconds: float) -> bool:
        return seconds * SLACK < self._queue.time_left(self._request)
