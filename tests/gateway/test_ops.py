"""`/v1/ops` over HTTP: what operators see and do, and what callers of one tenant do not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from providers import AgentConfig
from queue_backends import CallOutcome, Task, TokenUsage, UsageRecord
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from worker.budgets.rules import read_rules
from worker.fleet.presence import CircuitState, Presence, RunningTask, Workers
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.ops import room
from worker.rate_limits.rules import read_limits
from worker.routing.route import read_route
from worker.settings import Settings
from worker.usage import UsageLedger

NOW = 1_795_000_000.0
SCRIPT = {
    "scenarios": [
        {"match": "broken", "turns": [{"fault": {"kind": "invalid_request", "message": "no images"}}]},
        {"match": "slow", "turns": [{"text": "never said", "delay_s": 60}]},
        {"turns": [{"text": "ok", "usage": {"input_tokens": 100, "output_tokens": 10}}]},
    ]
}


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A scripted agent, a budget for tenants, a limit and a route."""
    settings = gateway_settings(
        budgets=read_rules({"tenants": {"scope": "tenant", "tokens": 10_000}, "all": {"scope": "fleet", "usd": 5}}),
        limits=read_limits({"scripted": {"where": {"provider": "scripted"}, "requests_per_min": 1000}}),
        routes={"main": read_route("main", [{"provider": "scripted", "model": "mock", "name": "first"}])},
    )
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    return Settings(**{name: getattr(settings, name) for name in settings.__struct_fields__} | {"agent": agent})


@pytest.fixture(scope="module")
def tenant_key(gateway_server: GatewayServer) -> str:
    """A key of an operator of acme's."""
    return gateway_server.make_key([Scope.OPS_READ, Scope.OPS_WRITE], tenant="acme")


@pytest.fixture(scope="module")
def dead(gateway_server: GatewayServer) -> dict[str, str]:
    """A dead letter of each of two tenants: letter ids by tenant."""
    for tenant in ("acme", "globex"):
        wait_for(gateway_server, submit(gateway_server, "broken picture", tenant=tenant))
    letters = gateway_server.do(lambda gateway: gateway.backend.queue.dead_letters(limit=10))
    return {letter.fields["tenant"]: letter.id for letter in letters}


def submit(server: GatewayServer, prompt: str, **fields: Any) -> str:
    """A task's id."""
    return server.do(lambda gateway: gateway.backend.queue.submit(Task(prompt=prompt, **fields)))


def wait_for(server: GatewayServer, task_id: str) -> None:
    """Return when a task has ended."""
    server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))


async def test_pausing_and_resuming(gateway_server: GatewayServer) -> None:
    """Both answer with the figures as they are then."""
    async with gateway_server.client() as client:
        paused = await client.post("/v1/ops/queue/pause")
        assert (paused.status_code, paused.json()["paused"]) == (200, True)
        assert (await client.get("/v1/ops/queue")).json()["paused"] is True
        assert (await client.post("/v1/ops/queue/resume")).json()["paused"] is False


async def test_dead_letters_are_listed_searched_and_shown(gateway_server: GatewayServer, dead: dict[str, str]) -> None:
    """The list has short texts and the number of all; one letter has its whole entry; an unknown one is a 404."""
    async with gateway_server.client() as client:
        found = (await client.get("/v1/ops/dead")).json()
        assert {letter["id"] for letter in found["letters"]} >= set(dead.values())
        assert found["dead"] >= 2
        assert (await client.get("/v1/ops/dead", params={"text": "NO IMAGES"})).json()["letters"]
        assert (await client.get("/v1/ops/dead", params={"text": "nobody said this"})).json()["letters"] == []
        letter = (await client.get(f"/v1/ops/dead/{dead['acme']}")).json()
        assert letter["prompt"] == "broken picture"
        assert letter["fields"]["tenant"] == "acme"
        missing = await client.get("/v1/ops/dead/none")
        assert (missing.status_code, missing.json()["code"]) == (404, "letter_not_found")


async def test_dead_letters_are_requeued_and_purged(gateway_server: GatewayServer) -> None:
    """By id or all at once; what is not there any more is counted; choosing nothing is refused."""
    task_id = submit(gateway_server, "broken again")
    wait_for(gateway_server, task_id)
    async with gateway_server.client() as client:
        [letter] = (await client.get("/v1/ops/dead", params={"text": task_id})).json()["letters"]
        nothing = await client.post("/v1/ops/dead/requeue", json={})
        assert nothing.status_code == 422
        both = await client.post("/v1/ops/dead/requeue", json={"ids": ["x"], "all": True})
        assert both.status_code == 422
        answer = await client.post("/v1/ops/dead/requeue", json={"ids": [letter["id"]]})
        assert answer.json() == {"requeued": 1, "missing": 0}
        again = await client.post("/v1/ops/dead/requeue", json={"ids": [letter["id"]]})
        assert again.json() == {"requeued": 0, "missing": 1}
        wait_for(gateway_server, task_id)
        [letter] = await eventually(lambda: letters_of(client, task_id))
        assert (await client.post("/v1/ops/dead/purge", json={"ids": [letter["id"]]})).json() == {"purged": 1}
        assert await letters_of(client, task_id) == []


async def test_a_tenants_operator_has_its_own_letters_alone(
    gateway_server: GatewayServer, tenant_key: str, dead: dict[str, str]
) -> None:
    """Others' letters are not listed, shown or touched, whatever their id; nor may all be meant."""
    async with gateway_server.client(tenant_key) as client:
        found = (await client.get("/v1/ops/dead")).json()
        assert {letter["tenant"] for letter in found["letters"]} == {"acme"}
        assert found["dead"] == len(found["letters"])
        assert (await client.get(f"/v1/ops/dead/{dead['globex']}")).status_code == 404
        for verb in ("requeue", "purge"):
            foreign = await client.post(f"/v1/ops/dead/{verb}", json={"ids": [dead["globex"]]})
            assert foreign.status_code == 404
            every = await client.post(f"/v1/ops/dead/{verb}", json={"all": True})
            assert (every.status_code, every.json()["code"]) == (403, "tenant_bound")
    letters = gateway_server.do(lambda gateway: gateway.backend.queue.dead_letters(limit=100))
    assert dead["globex"] in {letter.id for letter in letters}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/ops/queue/pause"),
        ("POST", "/v1/ops/queue/resume"),
        ("POST", "/v1/ops/workers/some-worker/drain"),
        ("GET", "/v1/ops/history"),
    ],
)
async def test_what_touches_all_is_refused_to_a_tenant(
    gateway_server: GatewayServer, tenant_key: str, method: str, path: str
) -> None:
    """403, with what to do; nothing happens."""
    async with gateway_server.client(tenant_key) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_bound")


async def test_running_tasks_are_those_of_the_caller(gateway_server: GatewayServer, tenant_key: str) -> None:
    """With agent, tenant, the prompt's beginning and the worker; a tenant's caller sees its own."""
    ids = {
        tenant: submit(gateway_server, f"slow {tenant} " + "x" * 500, tenant=tenant) for tenant in ("acme", "globex")
    }
    try:
        async with gateway_server.client() as client:
            tasks = await eventually(lambda: running(client, set(ids.values())))
        assert all(len(task["prompt"]) <= 300 and task["worker"] for task in tasks)
        async with gateway_server.client(tenant_key) as client:
            assert [task["id"] for task in (await client.get("/v1/ops/running")).json()["tasks"]] == [ids["acme"]]
    finally:
        gateway_server.do(lambda gateway: gateway.backend.queue.cancel(list(ids.values())))


async def test_a_tenants_tasks_are_found_among_too_many_others(
    gateway_server: GatewayServer, tenant_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not all running tasks are told of, a tenant's caller still sees its own."""
    tenants = ["globex"] * 3 + ["acme"] + ["globex"] * 3
    ids = [submit(gateway_server, f"slow {n}", tenant=tenant) for n, tenant in enumerate(tenants)]
    own = ids[3]
    try:
        async with gateway_server.client() as client:
            await eventually(lambda: running(client, set(ids)))
        named = [*zip(ids, tenants, strict=True), ("ended-since", "acme")]
        told = tuple(
            RunningTask(id=task_id, started_at=NOW + (task_id == own), tenant=tenant) for task_id, tenant in named
        )
        presence = Presence(id="web-3-79-abc", host="web-3", pid=79, beat_at=time.time(), tasks=told)
        gateway_server.do(lambda gateway: Workers(gateway.backend.state).tell(presence))
        monkeypatch.setattr(room, "MOST_RUNNING", 2)
        async with gateway_server.client(tenant_key) as client:
            found = await eventually(lambda: running(client, {own}))
        assert [task["tenant"] for task in found] == ["acme"]
    finally:
        gateway_server.do(lambda gateway: gateway.backend.queue.cancel(ids))
        gateway_server.do(lambda gateway: Workers(gateway.backend.state).forget("web-3-79-abc"))


async def test_workers_are_listed_and_drained(gateway_server: GatewayServer, tenant_key: str) -> None:
    """By whole id or the beginning of one; the worker finds the request; a tenant's caller hears of no spending."""
    presence = Presence(id="web-1-77-abc", host="web-1", pid=77, tokens=500, cost_usd=0.5, slots=4, beat_at=time.time())
    gateway_server.do(lambda gateway: Workers(gateway.backend.state).tell(presence))
    async with gateway_server.client() as client:
        [worker] = (await client.get("/v1/ops/workers")).json()["workers"]
        assert (worker["id"], worker["tokens"]) == ("web-1-77-abc", 500)
        answer = await client.post("/v1/ops/workers/web-1/drain")
        assert (answer.status_code, answer.json()["id"]) == (202, "web-1-77-abc")
        assert (await client.post("/v1/ops/workers/nobody/drain")).status_code == 404
    request = gateway_server.do(lambda gateway: Workers(gateway.backend.state).drain_requested("web-1-77-abc"))
    assert request is not None
    assert request.by == "everything"
    async with gateway_server.client(tenant_key) as client:
        [worker] = (await client.get("/v1/ops/workers")).json()["workers"]
        assert "tokens" not in worker
        assert "cost_usd" not in worker


async def test_usage_by_any_fields_of_any_period(gateway_server: GatewayServer, tenant_key: str) -> None:
    """Groups and their sum over whole hours; a tenant's caller gets its own and is refused others'."""
    records = [
        usage_record("a", at=NOW, agent="support", tenant="acme", cost_usd=1.0),
        usage_record("b", at=NOW + 3600, agent="support", tenant="globex", cost_usd=2.0),
        usage_record("c", at=NOW + 7200, agent="writer", tenant="acme", cost_usd=None),
        usage_record("d", at=NOW + 90_000, agent="writer", tenant="acme", cost_usd=8.0),
    ]
    await_append(gateway_server, records)
    period = {"since": str(NOW), "until": str(NOW + 10_000)}
    async with gateway_server.client() as client:
        found = (await client.get("/v1/ops/usage", params={**period, "by": "agent"})).json()
        assert [(group["agent"], group["calls"], group["cost_usd"]) for group in found["groups"]] == [
            ("support", 2, 3.0),
            ("writer", 1, 0.0),
        ]
        assert (found["total"]["calls"], found["total"]["unpriced_calls"], found["is_complete"]) == (3, 1, True)
        pairs = (await client.get("/v1/ops/usage", params={**period, "by": "hour,tenant"})).json()["groups"]
        assert [group["tenant"] for group in pairs] == ["acme", "globex", "acme"]
        one = (await client.get("/v1/ops/usage", params={**period, "agent": "writer"})).json()
        assert one["total"]["calls"] == 1
        assert (await client.get("/v1/ops/usage", params={"by": "moon"})).status_code == 400
        swapped = await client.get("/v1/ops/usage", params={"since": "20", "until": "10"})
        assert (swapped.status_code, swapped.json()["code"]) == (422, "bad_period")
    async with gateway_server.client(tenant_key) as client:
        own = (await client.get("/v1/ops/usage", params={**period, "by": "tenant"})).json()
        assert [group["tenant"] for group in own["groups"]] == ["acme"]
        foreign = await client.get("/v1/ops/usage", params={**period, "tenant": "globex"})
        assert foreign.status_code == 403


async def test_budgets_and_limits_with_what_is_used(gateway_server: GatewayServer, tenant_key: str) -> None:
    """Every rule with its accounts; a tenant's caller sees its own account of tenants' budgets."""
    for tenant in ("acme", "globex"):
        wait_for(gateway_server, submit(gateway_server, "hello", tenant=tenant))
    async with gateway_server.client() as client:
        budgets = {view["rule"]["name"]: view for view in (await client.get("/v1/ops/budgets")).json()["budgets"]}
        assert set(budgets) == {"all", "tenants"}
        assert {account["account"] for account in budgets["tenants"]["accounts"]} >= {"acme", "globex"}
        assert budgets["tenants"]["accounts"][0]["tokens_used"] > 0
        [limit] = (await client.get("/v1/ops/limits")).json()["limits"]
        assert limit["accounts"][0]["uses"][0]["kind"] == "requests"
    async with gateway_server.client(tenant_key) as client:
        [own] = (await client.get("/v1/ops/budgets")).json()["budgets"]
        assert [account["account"] for account in own["accounts"]] == ["acme"]
        assert (await client.get("/v1/ops/limits")).json()["limits"] == []


async def test_providers_with_health_and_circuits(gateway_server: GatewayServer) -> None:
    """What nobody asked for is not checked; a check is remembered; circuits are counted over the workers."""
    circuits = (CircuitState(provider="scripted", model="mock", circuit="open"),)
    presence = Presence(id="web-2-78-abc", host="web-2", pid=78, beat_at=time.time(), circuits=circuits)
    gateway_server.do(lambda gateway: Workers(gateway.backend.state).tell(presence))
    async with gateway_server.client() as client:
        before = (await client.get("/v1/ops/providers")).json()
        scripted = before["providers"][0]
        assert (scripted["name"], scripted["is_used"], scripted["last_check"]) == ("scripted", True, None)
        checked = (await client.get("/v1/ops/providers", params={"check": "used"})).json()["providers"]
        assert checked[0]["last_check"]["healthy"] is True
        assert all(view["last_check"] is None for view in checked if not view["is_used"])

        async def seen() -> list[Any]:
            routes = (await client.get("/v1/ops/providers")).json()["routes"]
            return [target for route in routes for target in route["targets"] if target["circuits"]]

        [target] = await eventually(seen)
        assert (target["name"], target["circuits"]) == ("first", {"open": 1})


async def test_the_feed_begins_with_everything_and_goes_on_with_changes(gateway_server: GatewayServer) -> None:
    """A newcomer gets each part once; then what changes, within moments."""
    async with gateway_server.client() as client, feed(client) as events:
        parts = await parts_until(events, {"queue", "workers", "running", "rates", "usage", "budgets", "limits"})
        assert parts["queue"]["paused"] is False
        task_id = submit(gateway_server, "slow and watched")
        try:
            async with asyncio.timeout(WITHIN_S):
                async for name, value in events:
                    if name == "running" and any(task["id"] == task_id for task in value["tasks"]):
                        break
        finally:
            gateway_server.do(lambda gateway: gateway.backend.queue.cancel([task_id]))


async def test_the_feed_of_a_tenant(gateway_server: GatewayServer, tenant_key: str) -> None:
    """Own tasks and usage; no samples of the fleet, nobody else's account."""
    ids = [submit(gateway_server, "slow", tenant=tenant) for tenant in ("acme", "globex")]
    try:
        async with gateway_server.client(tenant_key) as client, feed(client) as events:
            parts: dict[str, Any] = {}
            async with asyncio.timeout(WITHIN_S):
                async for name, value in events:
                    parts[name] = value
                    if {"budgets", "rates"} <= set(parts) and parts.get("running", {}).get("tasks"):
                        break
        assert [task["id"] for task in parts["running"]["tasks"]] == ids[:1]
        assert "sample" not in parts
        assert set(parts["rates"]) == {"today"}
        assert {use["account"] for view in parts["budgets"]["budgets"] for use in view["accounts"]} <= {"acme"}
    finally:
        gateway_server.do(lambda gateway: gateway.backend.queue.cancel(ids))


async def test_watchers_that_leave_are_forgotten(gateway_server: GatewayServer) -> None:
    """When the last one has gone, nothing is computed for anybody."""
    async with gateway_server.client() as client, feed(client) as events:
        await parts_until(events, {"queue"})
        assert gateway_server.gateway.ops.feed.watchers == 1

    async def none_left() -> bool:
        return gateway_server.gateway.ops.feed.watchers == 0

    assert await eventually(none_left)
    assert not gateway_server.gateway.ops.feed.wanted.is_set()


async def test_history_grows_while_nobody_watches(gateway_server: GatewayServer) -> None:
    """The gateway samples by itself; columns are of equal length; spans are known ones."""
    async with gateway_server.client() as client:

        async def samples() -> Any:
            series = (await client.get("/v1/ops/history", params={"span": "15m"})).json()
            return series if len(series["at"]) >= 2 else None

        series = await eventually(samples)
        assert {len(column) for name, column in series.items() if name != "every_s"} == {len(series["at"])}
        coarse = (await client.get("/v1/ops/history", params={"span": "24h"})).json()
        assert (coarse["every_s"], len(coarse["at"]) >= 1) == (60.0, True)
        assert (await client.get("/v1/ops/history", params={"span": "1y"})).status_code == 400


async def test_who_asks(gateway_server: GatewayServer, tenant_key: str) -> None:
    """A page learns what its key may do, and a tenant's one nothing of the server."""
    async with gateway_server.client() as client:
        about = (await client.get("/v1/ops/about")).json()
    assert set(about["scopes"]) == {scope.value for scope in Scope}
    async with gateway_server.client(tenant_key) as client:
        own = (await client.get("/v1/ops/about")).json()
    assert (own["tenant"], own["scopes"], own["queue"]) == ("acme", ["ops.read", "ops.write"], "")


async def running(client: httpx.AsyncClient, ids: set[str]) -> list[Any]:
    """The running tasks among these, once all are."""
    tasks = (await client.get("/v1/ops/running")).json()["tasks"]
    found = [task for task in tasks if task["id"] in ids]
    return found if len(found) == len(ids) else []


async def letters_of(client: httpx.AsyncClient, task_id: str) -> list[Any]:
    """The dead letters of a task."""
    return list((await client.get("/v1/ops/dead", params={"text": task_id})).json()["letters"])


async def eventually(look: Any) -> Any:
    """What `look` finds, as soon as it is something."""
    async with asyncio.timeout(WITHIN_S):
        while not (found := await look()):
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def feed(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The feed's parts, one after the other."""
    async with client.stream("GET", "/v1/ops/events") as response:
        assert response.status_code == 200
        yield _parts(response)


async def _parts(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def parts_until(events: AsyncIterator[tuple[str, Any]], wanted: set[str]) -> dict[str, Any]:
    """Parts as they come, until all that are wanted have."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(WITHIN_S):
        async for name, value in events:
            found[name] = value
            if wanted <= set(found):
                return found
    raise AssertionError(f"the feed ended; it had {sorted(found)}")


def usage_record(task_id: str, *, at: float, agent: str, tenant: str, cost_usd: float | None) -> UsageRecord:
    """A completed call."""
    return UsageRecord(
        id=f"{task_id}:0:0",
        task_id=task_id,
        provider="scripted",
        model="mock",
        usage=TokenUsage(input_tokens=10, output_tokens=5),
        outcome=CallOutcome.COMPLETED,
        started_at=at,
        duration_ms=100,
        cost_usd=cost_usd,
        agent=agent,
        tenant=tenant,
    )


def await_append(server: GatewayServer, records: list[UsageRecord]) -> None:
    """Write usage as workers do."""
    ledger = UsageLedger(keep_s=10 * 365 * 86_400.0)

    async def append(gateway: Gateway) -> int:
        return await gateway.backend.state.append_once([ledger.log_record(record) for record in records])

    server.do(append)
