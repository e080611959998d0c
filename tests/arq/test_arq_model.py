"""The arq backend behaves as the model of a queue does, whatever its users do in whatever order.

To explore: `SHOAL_TEST_MODEL_EXAMPLES=3000 pytest --timeout 0 tests/arq/test_arq_model.py`.
"""

from __future__ import annotations

import os
from typing import cast

import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from queue_backends import Backend, BackendOptions
from queue_backends.arq import open_backend as open_arq
from queue_backends.arq.names import ArqKeys
from queue_backends.arq.queue import ArqQueue
from queue_backends.interfaces import Delivery
from tests.queue_backends.model.machine import QueueMachine
from tests.servers import Server, fresh_stream

EXAMPLES = 12
STEPS = 40


class ArqSite:
    """A queue of its own on a server."""

    def __init__(self, server: Server) -> None:
        queue = f"arq:{fresh_stream()}"
        self._url = f"arq+{server.url()}?queue={queue}"
        self._keys = ArqKeys(queue)
        self._client = redis.asyncio.Redis.from_url(server.url())

    async def open(self, options: BackendOptions) -> Backend:
        """Another connection."""
        return await open_arq(self._url, options)

    async def end_lease(self, delivery: Delivery) -> None:
        """Its end has been long ago, and arq's mark has expired."""
        task_id = delivery.entry_id.rpartition("#")[0]  # the model's own task does not know its id
        for queue in (self._keys.running, *self._keys.lanes):
            await self._client.zadd(queue, {task_id: 1}, xx=True)
        await self._client.delete(self._keys.progress(task_id))

    async def end_delay(self, task_id: str) -> None:
        """It was due long ago."""
        for lane in self._keys.lanes:
            await self._client.zadd(lane, {task_id: 1}, xx=True)

    def look_around(self, backend: Backend) -> None:
        """Although the server has just been started."""
        assert isinstance(backend.queue, ArqQueue)
        backend.queue._client.availability._silence_ended_at = float("-inf")

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def test_it_behaves_as_the_model(valkey_server: Server) -> None:
    """Whatever is done in whatever order: the backend shows what the model shows, and nothing is lost or doubled."""
    explored = int(os.environ.get("SHOAL_TEST_MODEL_EXAMPLES", "0"))
    run_state_machine_as_test(
        cast("type[QueueMachine]", lambda: QueueMachine(ArqSite(valkey_server))),  # all it does with it is call it
        settings=settings(
            max_examples=explored or EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not explored,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
