"""`/v1/ops`: the queue, workers, running tasks, dead letters, usage, budgets, rate limits and providers.

A caller that is bound to a tenant sees the tasks, dead letters and usage of that tenant alone, and changes nothing that
touches others.
"""

from __future__ import annotations

from worker.gateway.operation import Operation
from worker.gateway.ops import accounts_api, dead_api, providers_api, queue_api, usage_api, workers_api

OPERATIONS: tuple[Operation, ...] = (
    *queue_api.OPERATIONS,
    *workers_api.OPERATIONS,
    *dead_api.OPERATIONS,
    *usage_api.OPERATIONS,
    *accounts_api.OPERATIONS,
    *providers_api.OPERATIONS,
)
