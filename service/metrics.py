"""What Prometheus may ask the service: counts and times of requests, and the state of its parts at that moment.

Labels take values from small sets only: routes as they are declared, statuses, kinds of problem. No label holds what
a client chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.api.limits import Uploads
from service.api.problems import METHODS
from service.api.runtime import Runtime
from service.telemetry import Answered

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OTHER = "other"


class Metrics:
    """The metrics of one application, in a registry of its own. Thread-safe."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "resight_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "resight_request_seconds", "From head to answer", ["route"], buckets=SECONDS, registry=registry
        )
        self._stages = Histogram(
            "resight_stage_seconds", "Time of a request by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._problems = Counter(
            "resight_problems", "Requests refused or failed, by problem", ["type"], registry=registry
        )

    def count(self, answered: Answered) -> None:
        """Counts one request."""
        method = answered.method if answered.method in METHODS else OTHER
        route = answered.route or OTHER
        self._requests.labels(method, route, answered.status).inc()
        self._seconds.labels(route).observe(answered.seconds)
        for stage, ms in answered.stages_ms.items():
            self._stages.labels(stage).observe(ms / 1e3)
        if answered.problem is not None:
            self._problems.labels(answered.problem).inc()

    def exposition(self, runtime: Runtime) -> bytes:
        """Everything, in Prometheus's text format 0.0.4."""
        now = CollectorRegistry()
        now.register(_State(runtime, self._uploads))
        return generate_latest(self._registry) + generate_latest(now)


class _State(Collector):
    """What the parts of the service say of themselves when they are asked."""

    def __init__(self, runtime: Runtime, uploads: Uploads) -> None:
        self._runtime = runtime
        self._uploads = uploads

    def collect(self) -> Iterator[Metric]:
        worker, gallery, info = self._runtime.worker, self._runtime.gallery, self._runtime.info
        troubles = self._runtime.troubles
        ready = all(trouble is None for trouble in troubles.values())
        yield _gauge("ready", "1 while /readyz answers 200", ready)
        yield _flags("trouble", "1 while that part keeps /readyz at 503", "part", troubles)
        yield _flags("warning", "1 while /readyz warns of it", "about", self._runtime.warnings())
        yield _gauge("queue_images", "Images decoded that wait for the model", worker.queued)
        yield _gauge("admitted_images", "Images that hold a place in the queue", worker.admitted)
        yield _gauge("queue_limit_images", "Images that may hold a place in the queue", worker.queue_limit)
        yield _gauge("upload_bytes", "Memory that bodies take until they are answered", self._uploads.held)
        yield _gauge("gallery_crops", "Crops enrolled", gallery.crop_count)
        yield _gauge("gallery_identities", "Identities that have a crop", gallery.identity_count)
        yield _gauge("index_lag_writes", "Writes committed that searches do not see yet", gallery.index_lag)
        if (free := gallery.free_bytes) is not None:
            yield _gauge("disk_free_bytes", "Free on the disk of the gallery", free)
        rate = self._runtime.engine.images_per_second
        yield _gauge("engine_images_per_second", "What the model's start measured that it can do", rate)
        yield _batch_sizes(worker.batches.copy())
        yield CounterMetricFamily("resight_failed_images", "Images without a usable embedding", worker.failures)
        yield CounterMetricFamily("resight_engine_renewals", "Broken engines loaded again", worker.renewals)
        labels = {"name": info.name, "sha256": info.sha256, "provider": self._runtime.engine.provider}
        family = GaugeMetricFamily("resight_model_info", "The model and what runs it", labels=list(labels))
        family.add_metric(list(labels.values()), 1)
        yield family


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"resight_{name}", meaning, value=value)


def _flags(name: str, meaning: str, label: str, reasons: Mapping[str, str | None]) -> GaugeMetricFamily:
    """1 for each of those that has a reason, 0 for the others."""
    family = GaugeMetricFamily(f"resight_{name}", meaning, labels=[label])
    for part, reason in reasons.items():
        family.add_metric([part], reason is not None)
    return family


def _batch_sizes(batches: Mapping[int, int]) -> HistogramMetricFamily:
    """How often the engine was run with so many images."""
    reached = [sum(times for size, times in batches.items() if size <= most) for most in BATCHES]
    buckets = [(str(float(most)), float(times)) for most, times in zip(BATCHES, reached, strict=True)]
    total = sum(batches.values())
    images = sum(size * times for size, times in batches.items())
    return HistogramMetricFamily(
        "resight_batch_images", "Images in one run of the model", [*buckets, ("+Inf", float(total))], images
    )
