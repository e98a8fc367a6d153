"""Prometheus metrics of the service: counters, gauges and histograms."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 10)


class Metrics:
    """Metrics of one service, in a registry of their own.

    Attributes:
        registry: of Prometheus, for `/metrics`.
        requests: answered requests by method, route and status.
        seconds: time from arrival to answer by route.
        waited: time in the queue.
        inference: time on the device.
        degraded: answers with less than planned, by `tta` or `folds`.
        refused: requests refused because of load, by `queue` (full) or `late` (past the deadline).
        cancelled: requests whose client closed the connection.
        empty: answers with an empty mask.
        waiting: length of the queue.
    """

    def __init__(self):
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "mip_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "mip_request_seconds",
            "From arrival to answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.waited = Histogram(
            "mip_queue_seconds", "Wait for the device", buckets=_SECONDS, registry=registry
        )
        self.inference = Histogram(
            "mip_inference_seconds", "On the device", buckets=_SECONDS, registry=registry
        )
        self.degraded = Counter(
            "mip_degraded",
            "Answers with fewer mirrored copies (tta) or fewer networks (folds) for lack of time",
            ["dropped"],
            registry=registry,
        )
        self.refused = Counter(
            "mip_refused", "Requests refused because of load", ["reason"], registry=registry
        )
        self.cancelled = Counter(
            "mip_cancelled", "Requests whose caller had gone", registry=registry
        )
        self.empty = Counter("mip_empty_masks", "Answers that mark nothing", registry=registry)
        self.waiting = Gauge(
            "mip_queue_length", "Requests that wait for the device", registry=registry
        )
        # Labels without a value would be missing from the output.
        for dropped in ("tta", "folds"):
            self.degraded.labels(dropped)
        for reason in ("queue", "late"):
            self.refused.labels(reason)
