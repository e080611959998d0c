"""A worker whose broker is away: runs go on or wait, nothing is lost or paid twice, the log says it once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from queue_backends import (
    Backend,
    BackendOptions,
    BackendUnavailable,
    Chunk,
    ChunkType,
    Task,
    TaskResult,
    TaskState,
    open_backend,
)
from tests.proxies import Proxy
from tests.servers import Server, valkey_program
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.health import HealthServer
from worker.settings import load_settings
from worker.usage import UsageReport
from worker.worker import Worker

LIMIT_S = 30
AWAY, BACK = "the broker is away, trying until it is back", "the broker is back"


class Scene(NamedTuple):
    """A worker whose way to the server can be disturbed, and an engine whose way can not."""

    fleet: Fleet
    worker: Worker
    backend: Backend
    proxy: Proxy


@asynccontextmanager
async def scene_of(server: Server, stream: str, *turns: dict[str, Any], **settings: Any) -> AsyncIterator[Scene]:
    """A worker with the scripted provider, behind a proxy."""
    overrides: dict[str, Any] = {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent.options": {"script": {"scenarios": [{"turns": list(turns)}]}},
        "retry_base_s": 0.0,
        "concurrency": 200,
        **settings,
    }
    options = BackendOptions(lease_s=settings.get("backend.lease_s", 30))
    loaded = load_settings({}, file=None, overrides=overrides)
    async with (
        asyncio.timeout(LIMIT_S),
        Proxy(server.port) as proxy,
        await open_backend(server.url(stream), options) as engine,
        await open_backend(proxy.url(stream), options) as backend,
        open_worker(loaded, backend) as worker,
    ):
        yield Scene(Fleet(engine), worker, backend, proxy)


@pytest.fixture
def fleeting_server() -> Iterator[Server]:
    """A server for one test that keeps nothing over a restart, and takes no long arguments."""
    program = valkey_program()
    assert program is not None
    with Server(program, options=["--proto-max-bulk-len", "1mb"]) as server:
        yield server


async def ended(handle: Handle) -> tuple[TaskResult, list[Chunk]]:
    """The task's result and its stream, which has no gap and one end."""
    chunks = [chunk async for chunk in handle]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_final for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    return await handle.result(), chunks


def text_of(chunks: list[Chunk]) -> str:
    """The answer, as streamed."""
    return "".join(chunk.content for chunk in chunks if chunk.type is ChunkType.CONTENT)


async def until(holds: Any) -> None:
    """Return when something holds that nothing announces."""
    while not holds():
        await asyncio.sleep(0.01)


async def test_two_hundred_runs_go_through_an_outage(valkey_server: Server, stream: str) -> None:
    """Every run ends with its whole stream and one paid call, and the log has a few lines for all of them together."""
    turn = {"text": "one two three four", "chunk_delay_s": 0.2}
    limits = {"concurrency": 210, "backend.lease_s": 3.0}
    async with scene_of(valkey_server, stream, turn, **limits) as (fleet, worker, _, proxy):
        handles = await fleet.submit_many([f"task {number}" for number in range(200)])
        await until(lambda: worker.running == 200)
        with capture_logs() as logs:
            await proxy.refuse()
            health = HealthServer(worker._health, not_pulling_after_s=1.0)
            await asyncio.sleep(1.5)  # how long the outage is; the runs have said all they have to say by then
            assert health.healthz().ok
            assert "no pull has succeeded" in (await health.readyz()).reason
            await proxy.accept()
            results = [await ended(handle) for handle in handles]
        assert {(result.output, result.error, text_of(chunks)) for result, chunks in results} == {
            ("one two three four", "", "one two three four")
        }
        records = await UsageReport(fleet.backend.state).recent(limit=1000)
        assert sorted(record.task_id for record in records) == sorted(handle.id for handle in handles)
        lines = [line["event"] for line in logs if line["log_level"] != "debug"]
        assert lines[:2] == [AWAY, BACK]
        assert len(lines) <= 6  # a connection that had seemed to be alive may be a second, short outage
        assert (await fleet.backend.queue.stats()).running == 0


async def test_run_that_says_more_than_is_kept_waits_for_the_broker(
    valkey_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is buffered meanwhile is bounded; the run goes on where it stood, and its stream is whole."""
    monkeypatch.setattr("worker.streaming.MOST_PENDING_CHARS", 1000)
    text = "word " * 2000
    async with scene_of(valkey_server, stream, {"text": text, "delay_s": 0.3}) as (fleet, worker, backend, proxy):
        handle = await fleet.submit("hi")
        await until(lambda: worker.running == 1)
        await proxy.refuse()
        pending = worker._publisher
        await until(lambda: pending.pending_chars > 1000)
        with pytest.raises(BackendUnavailable):
            await backend.queue.ping()
        for _ in range(100):  # it would be through with its text by now
            await asyncio.sleep(0)
            assert pending.pending_chars < 2500
        assert worker.running == 1
        await proxy.accept()
        result, chunks = await ended(handle)
        assert result.output == text_of(chunks) == text


async def test_outcome_of_a_run_that_times_out_meanwhile_is_written(valkey_server: Server, stream: str) -> None:
    """The time limit goes on while the broker is away; what the run was, and what it has used, is told afterwards."""
    turn = {"text": "a b c d e f", "chunk_delay_s": 0.3}
    async with scene_of(valkey_server, stream, turn, timeout_s=1, max_retries=0) as (fleet, worker, _, proxy):
        handle = await fleet.submit("hi")
        await until(lambda: worker.running == 1)
        await proxy.refuse()
        run = next(iter(worker.runs))
        await until(lambda: run.was_stopped())
        await proxy.accept()
        result, _ = await ended(handle)
        assert "longer than 1 s" in result.error
        (record,) = await UsageReport(fleet.backend.state).recent()
        assert (record.task_id, record.outcome) == (handle.id, "cancelled")


async def test_server_that_lost_its_data_is_served_on(fleeting_server: Server, stream: str) -> None:
    """Runs whose tasks are gone are stopped and write nothing; the next task is pulled, run and answered."""
    turns = {"text": "a b", "chunk_delay_s": 60}
    async with scene_of(fleeting_server, stream, turns, **{"backend.lease_s": 2.0}) as (fleet, worker, _, _):
        lost = await fleet.submit("lost")
        await until(lambda: worker.running == 1)
        consumer = lost.chunks()
        assert (await anext(consumer)).content
        await asyncio.to_thread(fleeting_server.restart)
        await until(lambda: worker.running == 0)
        assert await fleet.backend.queue.results([lost.id]) == [None]
        again = await fleet.submit("next")
        await until(lambda: worker.running == 1)
        await again.cancel()
        result, _ = await ended(again)
        assert result.error == "run cancelled"


async def test_result_that_the_broker_never_takes_ends_the_task(fleeting_server: Server, stream: str) -> None:
    """It is neither repeated for ever nor run again: the error says what to do, and the usage is in the books."""
    turn = {"text": "é" * 1_000_000, "usage": {"input_tokens": 1, "output_tokens": 2}}
    async with scene_of(fleeting_server, stream, turn) as (fleet, _, backend, _):
        handle = await fleet.submit("hi")
        result = await handle.result(LIMIT_S)
        assert "the result cannot be stored" in result.error
        assert "proto-max-bulk-len" in result.error
        (record,) = await UsageReport(fleet.backend.state).recent()
        assert record.task_id == handle.id
        (letter,) = await backend.queue.dead_letters()
        assert letter.task_id == handle.id


async def test_list_that_the_broker_forbids_costs_only_its_own_task(fleeting_server: Server, stream: str) -> None:
    """An ACL allows the queue's own keys; a task names another list: its neighbours keep their leases and results."""
    async with redis.asyncio.Redis.from_url(fleeting_server.url()) as admin:
        await admin.execute_command("ACL", "SETUSER", "default", "resetkeys", f"~{stream}*")
    turn = {"text": "a b c", "chunk_delay_s": 1.0}
    async with scene_of(fleeting_server, stream, turn, **{"backend.lease_s": 1.0}) as (fleet, worker, _, _):
        good, bad = await fleet.submit("good"), await fleet.submit(Task(prompt="bad", stream_key="elsewhere"))
        assert (await ended(good))[0].output == "a b c"
        result, _ = await ended(bad)
        assert "the result cannot be stored" in result.error
        assert (await good.status()).state is TaskState.SUCCEEDED
        assert worker.running == 0


async def test_right_that_was_taken_away_is_waited_for(fleeting_server: Server, stream: str) -> None:
    """Nobody may write any more: that is said once and gives no task up; the results are written when it is mended."""
    turn = {"text": "a b c", "chunk_delay_s": 0.1}
    async with (
        redis.asyncio.Redis.from_url(fleeting_server.url()) as admin,
        scene_of(fleeting_server, stream, turn) as (fleet, worker, _, _),
    ):
        handles = await fleet.submit_many(["one", "two", "three"])
        await until(lambda: worker.running == 3)
        with capture_logs() as logs:
            await admin.execute_command("ACL", "SETUSER", "default", "-evalsha", "-eval")
            await until(lambda: any("lets nobody write results" in line["event"] for line in logs))
            await admin.execute_command("ACL", "SETUSER", "default", "+evalsha", "+eval")
            for handle in handles:
                assert (await handle.result(LIMIT_S)).output == "a b c"
        assert sum("lets nobody write" in line["event"] for line in logs) == 1
