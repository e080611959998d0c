"""How long a worker has its usage records kept."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from queue_backends import Task, open_backend
from queue_backends.redis.keys import Keys
from tests.servers import Server
from worker.assembly import open_worker
from worker.errors import BadSetting
from worker.settings import load_settings
from worker.usage import USAGE_LOG

LIMIT_S = 30
DAY_MS = 86_400_000


@pytest.mark.parametrize(("given", "days"), [({}, 90), ({"SHOAL_USAGE_RETENTION_DAYS": "3"}, 3)])
async def test_records_are_kept_as_long_as_configured(
    valkey_server: Server, stream: str, given: dict[str, str], days: int
) -> None:
    """The log, its index and the totals disappear so long after the last record."""
    script = {"scenarios": [{"turns": [{"text": "hi", "usage": {"input_tokens": 5, "output_tokens": 3}}]}]}
    agent = {"agent.model": "scripted", "agent.provider": "scripted", "agent.options": {"script": script}}
    settings = load_settings(given, file=None, overrides=agent)
    keys = Keys(stream)
    async with (
        asyncio.timeout(LIMIT_S),
        await open_backend(valkey_server.url(stream), settings.backend) as backend,
        redis.asyncio.Redis.from_url(valkey_server.url()) as raw,
    ):
        async with open_worker(settings, backend):
            task_id = await backend.queue.submit(Task(prompt="hello"))
            await backend.queue.wait(task_id, LIMIT_S)
        for key in (keys.log(USAGE_LOG), keys.log_index(USAGE_LOG), keys.counters("usage:model:scripted/scripted")):
            assert (days - 1) * DAY_MS < await raw.pttl(key) <= days * DAY_MS


@pytest.mark.parametrize("days", ["0", "-1", "1.5", "3661"])
def test_a_retention_that_cannot_be_is_refused(days: str) -> None:
    """Without any, a record that is written again after a crash would be counted again."""
    with pytest.raises(BadSetting, match="SHOAL_USAGE_RETENTION_DAYS"):
        load_settings({"SHOAL_USAGE_RETENTION_DAYS": days}, file=None)
