"""What is kept of a worker's work: figures, spans, usage and its price."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from providers.pricing import PriceBook
from queue_backends import Backend
from worker.call_estimates import CallEstimates
from worker.metrics import Metrics
from worker.queue_gauges import QueueGauges, queue_name
from worker.settings import Settings
from worker.telemetry import Telemetry
from worker.usage import UsageLedger


class Records(Struct, frozen=True, kw_only=True):
    """What is kept of a worker's work."""

    metrics: Metrics
    telemetry: Telemetry
    ledger: UsageLedger
    prices: PriceBook
    estimates: CallEstimates


@asynccontextmanager
async def open_records(settings: Settings, backend: Backend) -> AsyncIterator[Records]:
    """While entered, telemetry is exported; what is left of it, at the end."""
    metrics = Metrics(prefix=settings.metrics_prefix, namespace=settings.namespace)
    metrics.queue = QueueGauges(backend.queue.stats, queue_name(settings.queue_url))
    telemetry = Telemetry.from_environment(
        metrics_prefix=settings.metrics_prefix, namespace=settings.namespace, metrics=metrics
    )
    try:
        yield Records(
            metrics=metrics,
            telemetry=telemetry,
            ledger=UsageLedger(keep_s=settings.usage_retention_days * 86_400.0),
            prices=PriceBook(settings.prices),
            estimates=CallEstimates(),
        )
    finally:
        await telemetry.shutdown()
