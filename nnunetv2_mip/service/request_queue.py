"""The desk in front of the device: a bounded queue, one inference at a time, the time in view.

One thread takes requests in the order of their arrival and runs them. A request has until its
deadline; the others behind it have theirs. What a request may spend is its fair part: so much that
everyone who waits can still be served if each takes as long. The predictor asks before every pass
whether there is time for it (`deadline`), so that under load mirrored copies fall away first, then
networks; the first pass is always run. Whoever has gone is not served, and whoever waited past the
deadline, in line or for the device, is refused rather than answered too late.

Work of the page (volumes take long) runs on a thread of its own, has the device only while a
network runs, and lets requests go first, between any two windows.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from nnunetv2_mip.inference.deadline import Cancelled, Deadline, WorkDone
from nnunetv2_mip.inference.predictor import MIPPredictor
from nnunetv2_mip.service.monitoring import Measures

# What is left to do after the last pass: probabilities back on pixels, the reply, the way home.
FINISH_S = 0.25
# A pass may take longer than the slowest before it.
SLACK = 1.2
_numbers = itertools.count(1)


class Busy(Exception):
    """No room or no time for a request.

    Attributes:
        retry_s: when to come again.
    """

    def __init__(self, reason: str, retry_s: float):
        super().__init__(reason)
        self.retry_s = max(1, round(retry_s))


@dataclass
class Answer:
    """What the predictor says of an image.

    Attributes:
        mask: (H, W) uint8 of 0 and 1.
        probability: (H, W) float32.
        work_done: what it was made with; None where the network was not needed (an empty image).
        waited_s, took_s: in the queue, on the device.
    """

    mask: np.ndarray
    probability: np.ndarray
    work_done: WorkDone | None
    waited_s: float
    took_s: float


@dataclass
class Ticket:
    """A request that waits or runs.

    Attributes:
        levels: (H, W) uint8.
        arrived, deadline: by `time.monotonic`.
        answer: gets an `Answer`, or `Busy`, `Cancelled`, or what the predictor raised.
        gone: set when the caller has left.
    """

    levels: np.ndarray
    arrived: float
    deadline: float
    answer: Future = field(default_factory=Future)
    gone: threading.Event = field(default_factory=threading.Event)
    number: int = field(default_factory=_numbers.__next__)


class Device:
    """One user at a time; who is urgent goes before who is not."""

    def __init__(self):
        self._changed = threading.Condition()
        self._taken = False
        self._urgent = 0

    @contextmanager
    def use(self, urgent: bool):
        self._take(urgent)
        try:
            yield
        finally:
            self._leave()

    def yield_to_urgent(self) -> None:
        """Let whoever is urgent go first; the caller holds the device and is not urgent."""
        if self._urgent:
            self._leave()
            self._take(urgent=False)

    def _take(self, urgent: bool) -> None:
        with self._changed:
            self._urgent += urgent
            self._changed.wait_for(lambda: not self._taken and (urgent or not self._urgent))
            self._urgent -= urgent
            self._taken = True

    def _leave(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()


class Desk:
    """Takes tickets and has them answered.

    Args:
        predictor: the model, with the service's choices.
        room: tickets that may wait.
        measures: gets the counts.
    """

    def __init__(self, predictor: MIPPredictor, room: int, measures: Measures):
        self.predictor = predictor
        self.device = Device()
        self._room = room
        self._measures = measures
        self._waiting: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._busy = False
        # Of the last requests, smoothed: for Retry-After.
        self._typical_s = 0.5
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether tickets are being answered."""
        return self._open and self._thread.is_alive()

    @property
    def busy(self) -> bool:
        """Whether a ticket has its turn."""
        return self._busy

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket.

        Raises:
            Busy: as many as there is room for wait already, or the service is closing.
        """
        with self._changed:
            waiting = sum(not other.gone.is_set() for other in self._waiting)
            if not self._open or waiting >= self._room:
                self._measures.refused.labels("queue").inc()
                raise Busy(
                    f"{waiting} requests wait already; come again later",
                    self._typical_s * (waiting + 1),
                )
            self._waiting.append(ticket)
            self._measures.waiting.set(waiting + 1)
            self._changed.notify()

    def close(self) -> None:
        """Answer nobody else."""
        with self._changed:
            self._open = False
            for ticket in self._waiting:
                ticket.answer.set_exception(Busy("the service is closing", 5))
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout=10)

    def time_left(self, ticket: Ticket) -> float:
        """Seconds that `ticket`, which runs now, may still spend on the device."""
        now = time.monotonic()
        with self._changed:
            others = [other.deadline for other in self._waiting if not other.gone.is_set()]
        # Behind the k-th in line k others have been served, each as long as this one.
        parts = [(due - now) / (k + 1) for k, due in enumerate([ticket.deadline, *others])]
        return min(parts) - FINISH_S

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._open:
                    return
                ticket = self._waiting.popleft()
                self._measures.waiting.set(len(self._waiting))
            if ticket.answer.set_running_or_notify_cancel():
                self._busy = True
                self._answer(ticket)
                self._busy = False

    def _answer(self, ticket: Ticket) -> None:
        deadline = _RequestDeadline(self, ticket)
        try:
            self._require_time(ticket)
            with self.device.use(urgent=True):
                # The page may have had the device until now.
                self._require_time(ticket)
                start = time.monotonic()
                mask, probability = self.predictor.predict_image(ticket.levels, deadline)
        except BaseException as error:
            # Whatever it is, the caller hears of it and the thread lives on.
            ticket.answer.set_exception(error)
            return
        took = time.monotonic() - start
        self._typical_s += 0.2 * (took - self._typical_s)
        self._measures.waited.observe(start - ticket.arrived)
        self._measures.inference.observe(took)
        answer = Answer(mask, probability, deadline.work_done, start - ticket.arrived, took)
        ticket.answer.set_result(answer)

    def _require_time(self, ticket: Ticket) -> None:
        """Raises Cancelled or Busy where the ticket is not to be served any more."""
        if ticket.gone.is_set():
            raise Cancelled
        if time.monotonic() >= ticket.deadline:
            self._measures.refused.labels("late").inc()
            raise Busy("waited past the deadline for its turn; come again later", self._typical_s)


class _RequestDeadline(Deadline):
    """Cancels when the caller has gone; knows the fair part of the time."""

    def __init__(self, desk: Desk, ticket: Ticket):
        self._desk, self._ticket = desk, ticket

    def check(self) -> None:
        if self._ticket.gone.is_set():
            raise Cancelled

    def allows(self, seconds: float) -> bool:
        return seconds * SLACK < self._desk.time_left(self._ticket)


class BackgroundDeadline(Deadline):
    """For work that takes long: lets requests go first, tells how far it is.

    Args:
        device: taken while a network runs, not urgently.
        hands: held by the caller; let go while a network runs.
        tell: called with the share that is done, 0 to 1.
        stopped: says whether the work is not wanted any more.
    """

    def __init__(
        self,
        device: Device,
        hands: threading.Lock,
        tell: Callable[[float], None],
        stopped: Callable[[], bool],
    ):
        self._device, self._hands = device, hands
        self._tell, self._stopped = tell, stopped
        self._done = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        self._hands.release()
        try:
            with self._device.use(urgent=False):
                yield
        finally:
            self._hands.acquire()

    def check(self) -> None:
        self._device.yield_to_urgent()
        if self._stopped():
            raise Cancelled
        self._tell(self._done / max(1, self.windows))
        self._done += 1
