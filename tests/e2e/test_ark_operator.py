"""A raw Redis client, with none of our code, drives a worker process as an ark operator would."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from e2e_programs import workers

from tests.servers import Server

LIMIT_S = 30
SCRIPT = {
    "scenarios": [
        {"match": "fail", "turns": [{"fault": {"kind": "invalid_request", "message": "no such thing"}}]},
        {"match": "slow", "turns": [{"text": "never " * 50, "chunk_delay_s": 0.5}]},
        {"turns": [{"text": "Hello operator", "usage": {"input_tokens": 12, "output_tokens": 3}}]},
    ]
}


@pytest.fixture
async def operator(valkey_server: Server, stream: str, tmp_path: Path) -> AsyncIterator[Any]:
    """The operator's connection, while a worker configured by ark's environment variables runs."""
    environ = {
        "TASK_QUEUE_URL": valkey_server.url(stream),
        "AGENT_MODEL": "mock",
        "AGENT_SYSTEM_PROMPT": "Be brief.",
        "SHOAL_LEASE_SECONDS": "1",
    }
    settings = {"agent": {"options": {"script": SCRIPT}}}
    with workers(1, tmp_path, valkey_server.url(stream), settings, environ):
        async with redis.asyncio.Redis.from_url(valkey_server.url(), decode_responses=True) as client:
            yield client


async def result_of(operator: Any, stream: str, task_id: str) -> dict[str, Any]:
    """The result, announced on the task's channel, or already there."""
    async with operator.pubsub() as channel:
        await channel.subscribe(f"{stream}:done:{task_id}")
        await channel.get_message(timeout=LIMIT_S)
        text = await operator.hget(f"{stream}-results", task_id)
        if text is None:
            message = await channel.get_message(timeout=LIMIT_S)
            assert message is not None, "no result was announced"
            text = message["data"]
    result: dict[str, Any] = json.loads(text)
    return result


async def test_task_result_and_list_of_text(operator: Any, stream: str) -> None:
    """XADD in, HGET and LRANGE out; the entry is acknowledged and gone."""
    task_id = await operator.xadd(stream, {"prompt": "hi", "stream_key": f"{stream}-text"})
    result = await result_of(operator, stream, task_id)
    assert (result["result"], result["input_tokens"], result["output_tokens"]) == ("Hello operator", 12, 3)
    assert "error" not in result
    pieces = await operator.lrange(f"{stream}-text", 0, -1)
    assert ("".join(pieces[:-1]), pieces[-1]) == ("Hello operator", "__EOF__")
    assert await operator.xlen(stream) == 0


async def test_chunks_by_plain_subscribe(operator: Any, stream: str) -> None:
    """Whoever subscribes before the task is ready sees all of it, numbered, and how it ended."""
    await operator.set(f"{stream}:paused", "1")
    task_id = await operator.xadd(stream, {"prompt": "hi"})
    async with operator.pubsub() as channel:
        await channel.subscribe(f"{stream}:chunks:{task_id}")
        await channel.get_message(timeout=LIMIT_S)
        await operator.delete(f"{stream}:paused")
        chunks = []
        while not chunks or not chunks[-1].get("is_final"):
            message = await channel.get_message(timeout=LIMIT_S)
            assert message is not None, chunks
            chunks.append(json.loads(message["data"]))
    assert [chunk["seq"] for chunk in chunks] == list(range(len(chunks)))
    assert "".join(chunk["content"] for chunk in chunks if chunk["type"] == "CONTENT") == "Hello operator"
    assert chunks[-1]["type"] == "DONE"


async def test_dead_letter(operator: Any, stream: str) -> None:
    """A permanent failure stands in the dead stream and in the result, with ark's prefix."""
    task_id = await operator.xadd(stream, {"prompt": "please fail"})
    result = await result_of(operator, stream, task_id)
    assert result["error"] == "permanent failure: no such thing"
    assert await operator.xlen(f"{stream}-dead") == 1


async def test_operators_cancel_ends_the_run(operator: Any, stream: str) -> None:
    """XDEL, XACK, HSET on a running task: its worker stops within a lease, and the stream gets its end."""
    task_id = await operator.xadd(stream, {"prompt": "a slow one"})
    async with operator.pubsub() as channel:
        await channel.subscribe(f"{stream}:chunks:{task_id}")
        await channel.get_message(timeout=LIMIT_S)
        assert json.loads((await channel.get_message(timeout=LIMIT_S))["data"])["type"] == "CONTENT"
        await operator.xdel(stream, task_id)
        await operator.xack(stream, "agent-workers", task_id)
        cancelled = {"result": "", "error": "run cancelled", "input_tokens": 0, "output_tokens": 0}
        await operator.hset(f"{stream}-results", task_id, json.dumps(cancelled))
        last: dict[str, Any] = {}
        while not last.get("is_final"):
            message = await channel.get_message(timeout=LIMIT_S)
            assert message is not None, last
            last = json.loads(message["data"])
    assert (last["type"], last["content"]) == ("ERROR", "run cancelled")
    assert json.loads(await operator.hget(f"{stream}-results", task_id)) == cancelled


async def test_missing_ark_variable_is_one_line(valkey_server: Server, stream: str, tmp_path: Path) -> None:
    """Deployed by an operator without a model: ark's own words, and a failing exit code."""
    environ = {"TASK_QUEUE_URL": valkey_server.url(stream), "AGENT_NAMESPACE": "default"}
    with workers(1, tmp_path, valkey_server.url(stream), {}, environ) as (worker,):
        code = worker.wait()
        worker.signal(signal.SIGTERM)
    assert code != 0
    assert "required env var AGENT_MODEL is not set" in worker.log.read_text()
