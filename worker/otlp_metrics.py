"""The worker's figures over OTLP: what /metrics shows, and the two client metrics of the GenAI semantic conventions.

A thread reads the plain numbers of `Metrics` every `OTEL_METRIC_EXPORT_INTERVAL` milliseconds (60000) and sends them;
counting itself never learns of it. Names are ark's with the prefix, `shoal.task.duration`, and times are milliseconds
as ark has them; `gen_ai.client.*` are in seconds. Sums and histograms are always cumulative.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtlpHistogram
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from worker.metric_families import Family, families
from worker.metrics import Histogram, Labels, Metrics, ModelMetrics
from worker.semconv import provider_name

_DEFAULT_INTERVAL_MS = 60_000

_log = structlog.get_logger(__name__)


class OtlpMetrics:
    """Sends the figures until it is stopped. An endpoint that is away costs nothing but a line in the log."""

    def __init__(
        self,
        metrics: Metrics,
        resource: Resource,
        *,
        exporter: MetricExporter | None = None,
        interval_s: float | None = None,
    ) -> None:
        self._metrics = metrics
        self._resource = resource
        self._exporter = exporter or OTLPMetricExporter()
        self._interval_s = _interval_s() if interval_s is None else interval_s
        self._started_ns = time.time_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Send once more and stop. Blocks for at most `timeout_s`; an export that hangs longer is left behind."""
        self._stop.set()
        self._thread.join(timeout_s)
        self._exporter.shutdown()

    def _run(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(self._interval_s)
            try:
                if self._metrics.queue is not None:
                    self._metrics.queue.refresh_from_thread()
                self._exporter.export(snapshot(self._metrics, self._resource, self._started_ns))
            except Exception as error:  # noqa: BLE001 - a bad export must not end the exports after it
                _log.warning("metrics could not be exported", error=str(error))


def snapshot(metrics: Metrics, resource: Resource, started_ns: int) -> MetricsData:
    """All figures as they stand now, in the SDK's form. `started_ns` is when they stood at zero."""
    now_ns = time.time_ns()
    points = _Points(started_ns, now_ns)
    converted = [points.family(metrics.prefix, family) for family in families(metrics) if family.samples]
    converted.extend(points.gen_ai(metrics.models()))
    scope = ScopeMetrics(scope=InstrumentationScope(metrics.prefix), metrics=converted, schema_url="")
    return MetricsData(
        resource_metrics=[ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url=resource.schema_url)]
    )


class _Points:
    """Builds data points of one moment."""

    def __init__(self, started_ns: int, now_ns: int) -> None:
        self._started_ns = started_ns
        self._now_ns = now_ns

    def family(self, prefix: str, family: Family) -> Metric:
        name, is_time = f"{prefix}.{family.name}", family.unit == "seconds"
        unit, scale = ("ms", 1000.0) if is_time else ("1", 1.0)
        if family.kind == "histogram":
            histograms = [(item.labels, item.value) for item in family.samples if isinstance(item.value, Histogram)]
            return self._histogram(name, family.help, unit, histograms, scale=scale)
        numbers = [
            self._number(item.labels, item.value * scale)
            for item in family.samples
            if not isinstance(item.value, Histogram)
        ]
        if family.kind == "gauge":
            return Metric(name=name, description=family.help, unit=unit, data=Gauge(data_points=numbers))
        total = Sum(data_points=numbers, aggregation_temporality=AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return Metric(name=name, description=family.help, unit=unit, data=total)

    def gen_ai(self, models: Sequence[ModelMetrics]) -> list[Metric]:
        if not models:
            return []
        durations = [(_gen_ai_labels(model), model.duration_s) for model in models]
        tokens = [
            ((*_gen_ai_labels(model), ("gen_ai.token.type", kind)), histogram)
            for model in models
            for kind, histogram in (("input", model.input_tokens), ("output", model.output_tokens))
        ]
        return [
            self._histogram("gen_ai.client.operation.duration", "GenAI operation duration.", "s", durations),
            self._histogram("gen_ai.client.token.usage", "Tokens used by GenAI operations.", "{token}", tokens),
        ]

    def _histogram(
        self, name: str, text: str, unit: str, histograms: Sequence[tuple[Labels, Histogram]], *, scale: float = 1.0
    ) -> Metric:
        points = []
        for labels, histogram in histograms:
            counts = list(histogram.counts)
            points.append(
                HistogramDataPoint(
                    attributes=dict(labels),
                    start_time_unix_nano=self._started_ns,
                    time_unix_nano=self._now_ns,
                    count=sum(counts),
                    sum=histogram.sum * scale,
                    bucket_counts=counts,
                    explicit_bounds=[bound * scale for bound in histogram.bounds],
                    min=None,  # type: ignore[arg-type] # optional on the wire, and not kept
                    max=None,  # type: ignore[arg-type] # optional on the wire, and not kept
                )
            )
        data = OtlpHistogram(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(name=name, description=text, unit=unit, data=data)

    def _number(self, labels: Labels, value: float) -> NumberDataPoint:
        return NumberDataPoint(
            attributes=dict(labels),
            start_time_unix_nano=self._started_ns,
            time_unix_nano=self._now_ns,
            value=value,
        )


def _gen_ai_labels(model: ModelMetrics) -> Labels:
    labels = dict(model.labels)
    return (
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", provider_name(labels["provider"])),
        ("gen_ai.request.model", labels["model"]),
        ("gen_ai.agent.name", labels["agent"]),
        ("role", labels["role"]),
    )


def _interval_s() -> float:
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")
    try:
        interval_ms = float(text) if text else _DEFAULT_INTERVAL_MS
    except ValueError:
        interval_ms = 0
    if interval_ms <= 0:
        _log.warning(
            "OTEL_METRIC_EXPORT_INTERVAL is no positive number of milliseconds: using the default",
            value=text,
            default_ms=_DEFAULT_INTERVAL_MS,
        )
        interval_ms = _DEFAULT_INTERVAL_MS
    return interval_ms / 1000
