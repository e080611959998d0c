"""Accepting tasks: what arq's client writes, in one step for all that are submitted at a time.

arq's own `enqueue_job` takes three round trips a job and knows neither idempotency keys nor a depth limit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from queue_backends.arq.jobs import job_of
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.wire import Scripts
from queue_backends.interfaces import BackendOptions, QueueStats
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import LANES
from queue_backends.redis.submitting import REMEMBERED_MS, Submitter
from queue_backends.redis.wire import CallTable

if TYPE_CHECKING:
    from queue_backends.redis.submitting import Call, Script


class ArqSubmitter(Submitter):
    """Adds tasks to one queue of arq's."""

    def __init__(
        self,
        client: RedisClient,
        keys: ArqKeys,
        scripts: Scripts,
        options: BackendOptions,
        stats: Callable[[], Awaitable[QueueStats]],
    ) -> None:
        super().__init__(client, keys, options, stats)
        self._scripts = scripts
        self._suffix = uuid.uuid4().hex[:8]
        """Ids are unique over the queues of a database, too: arq's jobs of all queues stand side by side."""

    def _script(self, call: Call) -> Script:
        table = CallTable(self._keys.submitter(call.name))
        packed = [
            (
                LANES.index(task.priority) + 1,
                round(run_at * 1000) if run_at is not None else 0,
                table.position(self._keys.idempotency(task.idempotency_key)) if task.idempotency_key else 0,
                job_of(task).decode(),
                self._expires_ms(run_at),
            )
            for task, run_at in call.tasks
        ]
        return self._scripts.script(
            "submit",
            self._options.max_depth,
            round(self._options.idempotency_retention_s * 1000),
            packed,
            call.number,
            REMEMBERED_MS,
            self._suffix,
            call.each,
            table=table,
        )

    def _expires_ms(self, run_at: float | None) -> int:
        """A job's lifetime, as arq counts it: from when it is submitted, a delay on top."""
        delay_s = max(0.0, run_at - time.time()) if run_at is not None else 0.0
        return round((delay_s + self._options.unfinished_ttl_s) * 1000)
