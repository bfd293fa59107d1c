"""Metrics of the service, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from v2m.service.limits import Message, Receive, Send
from v2m.service.service import Service

JOB_BUCKETS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


class Metrics:
    """Counters of requests, times of jobs, and gauges of the queue."""

    def __init__(self, service: Service) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_QueueCollector(service))
        self._requests = Counter(
            "v2m_http_requests", "Requests, by route and status", ("method", "route", "status"), registry=self._registry
        )
        self._job_seconds = Histogram(
            "v2m_job_seconds",
            "Seconds from the start of a job to its end",
            ("recipe", "state"),
            buckets=JOB_BUCKETS_S,
            registry=self._registry,
        )
        service.scheduler.on_end = lambda recipe, state, seconds: self._job_seconds.labels(recipe, state).observe(
            seconds
        )

    def count_request(self, method: str, route: str, status: int) -> None:
        self._requests.labels(method, route, str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class RequestCounter:
    """ASGI middleware that counts requests by the template of their route: no caller makes a series."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in {"GET", "POST", "DELETE", "HEAD"} else "other"
            self._metrics.count_request(method, route, status)


class _QueueCollector(Collector):
    """Gauges that are read from the store when they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("v2m_jobs", "Jobs that are kept, by state", labels=["state"])
        counts = self._service.store.counts()
        for state in ("queued", "running", "done", "failed", "cancelled"):
            jobs.add_metric([state], counts.get(state, 0))
        yield jobs
        up = GaugeMetricFamily("v2m_scheduler_up", "Whether jobs are taken from the queue")
        up.add_metric([], float(self._service.scheduler.is_alive))
        yield up
