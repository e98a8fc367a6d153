"""Device lock: one user of the device at a time, urgent requests before background work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nnunetv2_mip.inference.deadline import Cancelled, Deadline


class DeviceLock:
    """Lock with two priorities: a waiting urgent user gets it before any other."""

    def __init__(self):
        self._changed = threading.Condition()
        self._held = False
        self._urgent_waiting = 0

    @contextmanager
    def hold(self, urgent: bool) -> Iterator[None]:
        """Context in which the caller has the device."""
        self._acquire(urgent)
        try:
            yield
        finally:
            self._release()

    def yield_to_urgent(self) -> None:
        """Let waiting urgent users run first; the caller holds the lock and is not urgent."""
        if self._urgent_waiting:
            self._release()
            self._acquire(urgent=False)

    def _acquire(self, urgent: bool) -> None:
        with self._changed:
            self._urgent_waiting += urgent
            self._changed.wait_for(lambda: not self._held and (urgent or not self._urgent_waiting))
            self._urgent_waiting -= urgent
            self._held = True

    def _release(self) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()


class BackgroundDeadline(Deadline):
    """Deadline of background work: no time limit; requests run between any two windows.

    Args:
        device_lock: held, without urgency, while a network runs.
        numba_lock: held by the caller, and released while a network runs.
        report_progress: called with the finished share, 0 to 1, before each window.
        stopped: returns True when the work is not wanted any more.
    """

    def __init__(
        self,
        device_lock: DeviceLock,
        numba_lock: threading.Lock,
        report_progress: Callable[[float], None],
        stopped: Callable[[], bool],
    ):
        self._device_lock, self._numba_lock = device_lock, numba_lock
        self._report_progress, self._stopped = report_progress, stopped
        self._checks = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        self._numba_lock.release()
        try:
            with self._device_lock.hold(urgent=False):
                yield
        finally:
            self._numba_lock.acquire()

    def check(self) -> None:
        self._device_lock.yield_to_urgent()
        if self._stopped():
            raise Cancelled
        self._report_progress(self._checks / max(1, self.windows))
        self._checks += 1
