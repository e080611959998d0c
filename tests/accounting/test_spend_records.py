"""Spend records: what kubeswarm's operator finds of the money that its team's workers have spent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import redis.asyncio
from structlog.testing import capture_logs

from providers import AgentConfig
from providers.pricing import ModelPrice
from queue_backends import Task, TokenUsage, open_backend
from tests.accounting.calls import call_record, model_call, used
from tests.servers import Server, valkey_program
from worker.assembly import open_worker
from worker.budgets.spend_records import SpendRecords
from worker.errors import BadSetting
from worker.settings import Settings

WITHIN_S = 30.0
ALL = "swarm:spend:_all"


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that this test may kill."""
    program = valkey_program()
    assert program is not None
    with Server(program) as server:
        yield server


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[Any]:
    """The operator's connection."""
    async with redis.asyncio.Redis.from_url(url.partition("?")[0]) as client:
        yield client


async def found(client: Any, key: str, stream: str) -> list[tuple[dict[str, Any], float]]:
    """The records of a key that are about this test's own team, and their scores."""
    members = await client.zrange(key, 0, -1, withscores=True)
    records = [(msgspec.json.decode(member), score) for member, score in members]
    return [each for each in records if each[0]["Team"] == stream]


async def test_a_team_worker_tells_the_operator_what_it_spent(durable_server: Server, stream: str) -> None:
    """One record for the call, under the team's key and the common one, in kubeswarm's words."""
    usage = {"input_tokens": 1_000_000, "output_tokens": 500_000}
    agent = AgentConfig(
        model="m",
        provider="scripted",
        options={"script": {"scenarios": [{"turns": [{"text": "ok", "usage": usage}]}]}},
    )
    settings = Settings(
        queue_url=durable_server.url(stream),
        agent=agent,
        namespace="prod",
        team_name=stream,
        team_role="writer",
        prices={"m": ModelPrice(input_usd=3.0, output_usd=15.0)},
    )
    async with asyncio.timeout(WITHIN_S), await open_backend(settings.queue_url) as backend:
        async with open_worker(settings, backend):
            task_id = await backend.queue.submit(Task(prompt="go"))
            assert (await backend.queue.wait(task_id, WITHIN_S)).output == "ok"
        async with looking(settings.queue_url) as client:
            [(record, score)] = await found(client, f"swarm:spend:prod.{stream}", stream)
            [(same, _)] = await found(client, ALL, stream)
            assert 0 < await client.ttl(ALL) <= 90 * 86_400
    assert list(record) == [
        "Timestamp",
        "Namespace",
        "Team",
        "RunName",
        "StepName",
        "Model",
        "InputTokens",
        "OutputTokens",
        "CostUSD",
    ]
    assert same == record
    assert (record["RunName"], record["StepName"], record["Namespace"]) == (task_id, "writer", "prod")
    assert (record["InputTokens"], record["OutputTokens"], record["CostUSD"]) == (1_000_000, 500_000, 10.5)
    assert record["Timestamp"].endswith("Z")
    assert score == int(score)
    assert abs(score / 1000 - int(task_id.partition("-")[0]) / 1000) < 60


@pytest.mark.parametrize("settings", [{}, {"team_name": "t", "queue_url": "memory://"}])
async def test_other_workers_write_none(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of no team, and those whose queue is on another engine."""
    monkeypatch.setattr(SpendRecords, "__init__", lambda *_, **__: pytest.fail("records would be written"))
    wanted = Settings(**{"queue_url": "memory://", "agent": AgentConfig(model="m", provider="mock"), **settings})
    async with await open_backend("memory://") as backend, open_worker(wanted, backend):
        task_id = await backend.queue.submit(Task(prompt="go"))
        assert (await backend.queue.wait(task_id, WITHIN_S)).ok


async def test_while_redis_is_away_records_wait(
    own_server: Server, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written when it is back, each once however often that is tried; the log says once that they wait. What
    used nothing leaves none."""
    monkeypatch.setattr("worker.budgets.spend_records._RETRY_S", 0.02)
    url = own_server.url(stream).partition("?")[0]
    records = SpendRecords(url, namespace="prod", team=stream, role="", keep_s=3600.0)
    call = model_call("t1")
    with capture_logs() as logs:
        async with asyncio.timeout(WITHIN_S), records.kept():
            await asyncio.to_thread(own_server.kill)
            usage = used(call, TokenUsage(input_tokens=3, output_tokens=4), cost_usd=0.5)
            await records.leave(call, call_record(), usage)
            records.note(call, call_record(), usage)
            await records.leave(call, call_record(), used(call, TokenUsage()))
            while not logs:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(own_server.start)
    async with looking(url) as client:
        [(record, _)] = await found(client, f"swarm:spend:prod.{stream}", stream)
    assert (record["InputTokens"], record["OutputTokens"], record["CostUSD"]) == (3, 4, 0.5)
    assert [entry["event"] for entry in logs] == ["spend records cannot be written, and are kept until they can"]


async def test_when_too_many_wait_the_log_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not with each record that is lost."""
    monkeypatch.setattr("worker.budgets.spend_records.MOST_WAITING", 2)
    records = SpendRecords("redis://127.0.0.1:1", namespace="prod", team="t", role="", keep_s=3600.0)
    call = model_call("t1")
    with capture_logs() as logs:
        for _ in range(5):
            records.note(call, call_record(), used(call, TokenUsage(input_tokens=1)))
    assert [entry["event"] for entry in logs] == ["spend records are lost: Redis does not take them"]


def test_an_address_that_is_none_shows_no_password() -> None:
    """The parser's own message quotes what it took for a port."""
    with pytest.raises(BadSetting, match="SPEND_STORE_URL is no Redis URL") as raised:
        SpendRecords("redis://user:secret/word@host:6379", namespace="n", team="t", role="", keep_s=1.0)
    assert "secret" not in str(raised.value)
