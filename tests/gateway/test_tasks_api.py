"""The tasks API as its callers use it: one real gateway, one real worker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from providers import AgentConfig
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from worker.gateway.caller import Scope
from worker.settings import Settings

SCRIPT = {
    "responses": {"weather": "It is sunny."},
    "scenarios": [
        {"match": "fail", "turns": [{"fault": {"kind": "refused", "attempts": 1}, "text": "at last"}]},
        {"match": "think", "turns": [{"thinking": "Let me see.", "text": "Done thinking."}]},
    ],
}


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A gateway whose agent answers from a script, and fails where it is told to."""
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    return gateway_settings(agent=agent)


@pytest.fixture(scope="module")
def idle_server() -> Iterator[GatewayServer]:
    """A gateway without any worker: what is submitted stays where it is."""
    with GatewayServer(with_worker=False) as server:
        yield server


async def _submitted(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/tasks", json=body)
    assert response.status_code == 202, response.text
    found: dict[str, Any] = response.json()
    return found


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


async def test_a_task_is_submitted_and_waited_for(gateway_server: GatewayServer) -> None:
    """With `Prefer: wait`, or `wait_s`, the answer has the result; without, it says where the task can be found."""
    async with gateway_server.client() as client:
        preferred = await client.post("/v1/tasks", json={"prompt": "the weather"}, headers={"Prefer": "wait=20"})
        waited = await client.post("/v1/tasks?wait_s=20", json={"prompt": "think"})
        at_once = await client.post("/v1/tasks", json={"prompt": "the weather"})
        later = await client.get(f"{at_once.headers['Location']}/result?wait_s=20")

    assert preferred.status_code == 200
    assert preferred.headers["Preference-Applied"] == "wait=20"
    assert preferred.json()["state"] == "succeeded"
    assert preferred.json()["result"]["output"] == "It is sunny."
    assert waited.json()["result"]["output"] == "Done thinking."
    assert later.status_code == 200
    assert later.json()["output"] == "It is sunny."


async def test_a_task_tells_its_story(gateway_server: GatewayServer) -> None:
    """Its chunks, messages, timeline and usage can be read once it has ended."""
    async with gateway_server.client() as client:
        task = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "think", "meta": {"for": "a test"}})).json()
        address = f"/v1/tasks/{task['id']}"
        stream = await client.get(f"{address}/stream")
        messages = (await client.get(f"{address}/messages")).json()["messages"]
        timeline = (await client.get(f"{address}/timeline")).json()["entries"]
        usage = (await client.get(f"{address}/usage")).json()

    assert [event["type"] for event in _events(stream.text)] == ["THINKING", "CONTENT", "DONE"]
    assert messages[-1]["role"] == "assistant"
    assert [entry["kind"] for entry in timeline] == ["model_call"]
    assert usage["usage"] == task["result"]["usage"]
    assert len(usage["records"]) == 1


async def test_a_stream_is_resumed_after_the_last_event(gateway_server: GatewayServer) -> None:
    """`Last-Event-ID` and `after_seq` skip what the client has had; 204 tells a browser that there is no more."""
    async with gateway_server.client() as client:
        task = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "think"})).json()
        address = f"/v1/tasks/{task['id']}/stream"
        resumed = await client.get(address, headers={"Last-Event-ID": "0"})
        by_query = await client.get(f"{address}?after_seq=1")
        over = await client.get(address, headers={"Last-Event-ID": "2"})
        wrong = await client.get(address, headers={"Last-Event-ID": "two"})

    assert [event["seq"] for event in _events(resumed.text)] == [1, 2]
    assert [event["seq"] for event in _events(by_query.text)] == [2]
    assert over.status_code == 204
    assert wrong.status_code == 400


async def test_the_same_idempotency_key_gives_the_same_task(gateway_server: GatewayServer) -> None:
    """As a header or in the body; another content under the same key is refused."""
    async with gateway_server.client() as client:
        key = {"Idempotency-Key": f"order-{time.time()}"}
        first = await client.post("/v1/tasks?wait_s=20", json={"prompt": "the weather"}, headers=key)
        again = await client.post("/v1/tasks", json={"prompt": "the weather"}, headers=key)
        in_body = await client.post(
            "/v1/tasks", json={"prompt": "the weather", "idempotency_key": key["Idempotency-Key"]}
        )
        other = await client.post("/v1/tasks", json={"prompt": "something else"}, headers=key)

    assert again.json()["id"] == in_body.json()["id"] == first.json()["id"]
    assert again.json()["is_repeated"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"


async def test_a_batch_is_taken_whole_or_not_at_all(gateway_server: GatewayServer) -> None:
    """Each task that cannot be taken is named with its reason, and then none is."""
    async with gateway_server.client() as client:
        good = await client.post("/v1/tasks/batch", json={"tasks": [{"prompt": f"weather {n}"} for n in range(120)]})
        bad = await client.post(
            "/v1/tasks/batch",
            json={"tasks": [{"prompt": "weather"}, {"prompt": ""}, {"prompt": "weather", "agent": "nobody"}]},
        )
        results = [await client.get(f"/v1/tasks/{each['id']}/result?wait_s=20") for each in good.json()["tasks"][::40]]

    assert good.status_code == 202
    assert len({each["id"] for each in good.json()["tasks"]}) == 120
    assert [result.json()["output"] for result in results] == ["It is sunny."] * 3
    assert bad.status_code == 422
    assert [(error["index"], error["code"]) for error in bad.json()["errors"]] == [
        (1, "invalid_task"),
        (2, "agent_not_found"),
    ]


async def test_a_failed_task_is_run_again(gateway_server: GatewayServer) -> None:
    """Under the same id, with a new stream; one that has not failed is not."""
    async with gateway_server.client() as client:
        failed = (await client.post("/v1/tasks?wait_s=20", json={"prompt": "fail"})).json()
        again = await client.post(f"/v1/tasks/{failed['id']}/retry")
        result = await client.get(f"/v1/tasks/{failed['id']}/result?wait_s=20")
        succeeded = await client.post(f"/v1/tasks/{failed['id']}/retry")

    assert failed["state"] == "failed"
    assert failed["result"]["error"]
    assert again.status_code == 202
    assert result.json()["output"] == "at last"
    assert succeeded.status_code == 409


async def test_waiting_tasks_are_listed_shown_and_cancelled(idle_server: GatewayServer) -> None:
    """Page by page, filtered; a cancelled one has ended, and its stream says so."""
    async with idle_server.client() as client:
        ids = [(await _submitted(client, prompt=f"wait {n}", session_id=f"s{n % 2}"))["id"] for n in range(7)]
        later = await _submitted(client, prompt="tomorrow", delay_s=86_400)
        pages: list[list[str]] = []
        cursor = ""
        while len(pages) < 10:
            answer = (await client.get(f"/v1/tasks?limit=3&state=ready&cursor={cursor}")).json()
            pages.append([task["id"] for task in answer["tasks"]])
            if not (cursor := answer["next_cursor"]):
                break
        odd = (await client.get("/v1/tasks?session_id=s1")).json()["tasks"]
        shown = (await client.get(f"/v1/tasks/{ids[0]}")).json()
        cancelled = (await client.post(f"/v1/tasks/{ids[0]}/cancel")).json()
        twice = (await client.post(f"/v1/tasks/{ids[0]}/cancel")).json()
        stream = await client.get(f"/v1/tasks/{ids[0]}/stream")
        retried = await client.post(f"/v1/tasks/{ids[0]}/retry")
        not_yet = await client.get(f"/v1/tasks/{ids[1]}/result")
        too_long = await client.get(f"/v1/tasks/{ids[1]}/result?wait_s=0.05")

    assert sorted(task_id for page in pages for task_id in page) == sorted(ids)
    assert max(map(len, pages)) == 3
    assert {task["id"] for task in odd} == {ids[1], ids[3], ids[5]}
    assert (shown["state"], shown["prompt"]) == ("ready", "wait 0")
    assert later["state"] == "delayed"
    assert later["due_at"] > time.time() + 80_000
    assert (cancelled["outcome"], twice["outcome"]) == ("cancelled", "finished")
    assert _events(stream.text)[-1]["content"] == "run cancelled"
    assert retried.status_code == 409
    assert not_yet.status_code == too_long.status_code == 202
    assert not_yet.json()["state"] == "ready"


async def test_a_list_goes_on_where_it_was(idle_server: GatewayServer) -> None:
    """Also when the last task of a page, and some that were on it, have gone before the next one is asked for."""
    async with idle_server.client() as client:
        ids = {(await _submitted(client, prompt=f"wait {n}", priority="low"))["id"] for n in range(6)}
        rest = ids | {task["id"] for task in (await client.get("/v1/tasks?state=ready&limit=500")).json()["tasks"]}
        first = (await client.get("/v1/tasks?state=ready&limit=4")).json()
        seen = [task["id"] for task in first["tasks"]]
        for gone in (seen[0], seen[3]):
            await client.post(f"/v1/tasks/{gone}/cancel")
        after = (await client.get(f"/v1/tasks?state=ready&limit=500&cursor={first['next_cursor']}")).json()
        wrong = await client.get("/v1/tasks?cursor=nonsense")

    found = [task["id"] for task in after["tasks"]]
    assert after["next_cursor"] is None
    assert sorted(seen + found) == sorted(rest)
    assert wrong.status_code == 400


async def test_a_tenant_sees_its_own_tasks_alone(gateway_server: GatewayServer) -> None:
    """Others' tasks are not there for it, whatever it asks for; its own are its own without its saying so."""
    scopes = [Scope.TASKS_READ, Scope.TASKS_WRITE]
    mine, theirs = (gateway_server.make_key(scopes, tenant=tenant) for tenant in ("north", "south"))
    async with gateway_server.client(mine) as client, gateway_server.client(theirs) as other:
        body = {"prompt": "the weather", "idempotency_key": "the same for both"}
        task = (await client.post("/v1/tasks?wait_s=20", json=body)).json()
        foreign = (await other.post("/v1/tasks?wait_s=20", json=body)).json()
        address = f"/v1/tasks/{task['id']}"
        reads = ["", "/result", "/stream", "/messages", "/timeline", "/usage"]
        denied = [(await other.get(address + path)).status_code for path in reads]
        denied += [(await other.post(address + path)).status_code for path in ("/cancel", "/retry")]
        allowed = [(await client.get(address + path)).status_code for path in reads]
        listed = (await client.get("/v1/tasks")).json()["tasks"]
        asked = (await client.get("/v1/tasks?tenant=south")).json()["tasks"]
        claimed = await client.post("/v1/tasks", json={"prompt": "hi", "tenant": "south"})

    assert task["tenant"] == "north"
    assert foreign["id"] != task["id"]
    assert denied == [404] * 8
    assert allowed == [200] * 6
    assert [each["id"] for each in listed] == [task["id"]]
    assert asked == []
    assert claimed.status_code == 403


async def test_scopes_are_asked_for(gateway_server: GatewayServer) -> None:
    """Who may read may not write."""
    async with gateway_server.client(gateway_server.make_key([Scope.TASKS_READ])) as reader:
        assert (await reader.post("/v1/tasks", json={"prompt": "hi"})).status_code == 403
        assert (await reader.get("/v1/tasks")).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "hi", "unknown": 1}, 400),
        ({"prompt": ""}, 422),
        ({"prompt": "hi", "agent": "nobody"}, 404),
        ({"prompt": "hi", "delay_s": 1, "run_at": 2}, 422),
        ({"prompt": "hi", "delay_s": -1}, 400),
        ({"prompt": "hi", "run_at": "2026-11-21T17:00:00"}, 422),
        ({"prompt": "hi", "meta": {"prompt": "x"}}, 422),
        ({"prompt": "hi", "meta": {"summary_of": "somebody's conversation"}}, 422),
        ({"prompt": "hi", "priority": "urgent"}, 400),
        ({"prompt": "hi", "callback": {"url": "http://169.254.169.254/"}}, 422),
        ({"prompt": "hi", "callback": {"url": "https://example.com/", "secret": "short"}}, 422),
    ],
)
async def test_what_cannot_be_a_task_is_refused(idle_server: GatewayServer, body: dict[str, Any], status: int) -> None:
    """With a problem that says what is wrong; nothing is submitted."""
    async with idle_server.client() as client:
        before = len((await client.get("/v1/tasks?limit=500")).json()["tasks"])
        response = await client.post("/v1/tasks", json=body)
        after = len((await client.get("/v1/tasks?limit=500")).json()["tasks"])

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"]
    assert after == before


async def test_moments_may_be_text(idle_server: GatewayServer) -> None:
    """`run_at` and `deadline` are Unix seconds or RFC 3339."""
    async with idle_server.client() as client:
        task = await _submitted(
            client, prompt="later", run_at="2090-01-01T00:00:00+01:00", deadline="2091-01-01T00:00:00Z"
        )
    assert task["due_at"] == 3786908400.0
    assert task["deadline"] == 3818448000.0


async def test_what_is_not_there_is_404(idle_server: GatewayServer) -> None:
    """For every operation on one task."""
    async with idle_server.client() as client:
        for path in ("", "/result", "/stream", "/messages", "/timeline", "/usage"):
            assert (await client.get(f"/v1/tasks/1-1{path}")).status_code == 404
        for path in ("/cancel", "/retry"):
            assert (await client.post(f"/v1/tasks/1-1{path}")).status_code == 404


async def test_a_stream_of_a_waiting_task_begins_at_once(idle_server: GatewayServer) -> None:
    """The head comes although nothing has happened yet, and the end when it comes."""
    async with idle_server.client() as client:
        task = await _submitted(client, prompt="wait")
        async with client.stream("GET", f"/v1/tasks/{task['id']}/stream") as response:
            assert response.status_code == 200
            await client.post(f"/v1/tasks/{task['id']}/cancel")
            async with asyncio.timeout(WITHIN_S):
                text = (await response.aread()).decode()
    assert _events(text)[-1]["type"] == "ERROR"
