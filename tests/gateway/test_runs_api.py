"""`/v1/runs` and `/v1/teams`: starting, watching and ending runs of teams, and who may."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from tests.gateway.gateway_harness import WITHIN_S, GatewayServer
from tests.gateway.team_plans import MARKUP, newsroom, quick, stored
from worker.approvals import Approvals
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.run_picture import RunPicture
from worker.teams.run_header import RunHeader
from worker.teams.run_state import Phase, RunState, StepState

FILE = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmTeam
metadata: {name: sent}
spec:
  roles: [{name: clerk, model: mock}]
  pipeline: [{name: work, role: clerk, inputs: {prompt: "say {{ .input.word }}"}}]
"""


@pytest.fixture(scope="module")
def server(gateway_server: GatewayServer) -> GatewayServer:
    """The module's gateway with three teams, one of them of the tenant `acme`."""

    async def begin(gateway: Gateway) -> None:
        for team in (stored(newsroom()), stored(quick()), stored(quick("own"), "acme")):
            await gateway.definitions.teams.create(team)

    gateway_server.do(begin)
    return gateway_server


@pytest.fixture
async def client(server: GatewayServer) -> AsyncIterator[httpx.AsyncClient]:
    """It may do everything."""
    async with server.client() as found:
        yield found


async def start(client: httpx.AsyncClient, team: str = "quick", **fields: Any) -> str:
    """Begin a run; its id."""
    answer = await client.post("/v1/runs", json={"team": team, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def events_of(client: httpx.AsyncClient, path: str, last_id: str = "") -> AsyncIterator[tuple[str, Any, str]]:
    """Name, data and id of each event."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with asyncio.timeout(WITHIN_S), client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields.get("event", ""), json.loads(fields["data"]), fields.get("id", "")
                fields = {}


async def ended(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    """The run, once its stream has ended."""
    async for _ in events_of(client, f"/v1/runs/{run_id}/events"):
        continue
    found: dict[str, Any] = (await client.get(f"/v1/runs/{run_id}")).json()
    return found


def decide(server: GatewayServer, approval_id: str) -> None:
    """Say yes."""
    server.do(lambda gateway: Approvals(gateway.backend.state).decide(approval_id, approved=True, reviewer="test"))


async def test_a_run_is_watched_from_its_start_to_its_end(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """The stream tells each change of a step, waits with the run for a person, tells the steps' chunks, and ends with
    the run; then the run is whole."""
    run_id = await start(client, "newsroom", input={"topic": "tides"}, labels={"desk": "sea"})
    phases: dict[str, list[str]] = {}
    text, graphs, last = "", 0, ""
    async for event, data, last_id in events_of(client, f"/v1/runs/{run_id}/events?chunks=true"):
        last = last_id or last
        graphs += event == "graph"
        if event == "chunk" and data["step"] == "draft":
            text += data["chunk"]["content"] if data["chunk"]["type"] == "CONTENT" else ""
        for step in data if event == "steps" else ():
            phases.setdefault(step["name"], []).append(step["phase"])
            if step["phase"] == "Waiting" and step.get("approval_id"):
                await asyncio.to_thread(decide, server, step["approval_id"])
    assert "Waiting" in phases["draft"]
    assert [phases[name][-1] for name in ("research", "draft", "translate")] == ["Succeeded", "Succeeded", "Skipped"]
    assert event == "end"
    assert graphs == 1
    assert text == f"A story of {MARKUP} facts. " * 4
    again = await client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last.partition(",")[0]})
    assert again.status_code == 204

    found = (await client.get(f"/v1/runs/{run_id}")).json()
    assert found["run"]["phase"] == "Succeeded"
    assert found["run"]["output"].startswith("A story")
    assert found["run"]["labels"] == {"desk": "sea"}
    assert found["run"]["tokens"] == sum(step.get("tokens", 0) for step in found["steps"]) > 0
    step = (await client.get(f"/v1/runs/{run_id}/steps/research")).json()
    assert step["prompt"] == "topic: tides\n"
    assert step["inputs"] == {"topic": "{{ .input.topic }}"}
    assert step["output"] == "three facts about the topic"


async def test_who_comes_back_is_told_what_it_missed(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """Whatever has happened meanwhile, up to the end."""
    run_id = await start(client, "newsroom", input={"topic": "tides"})
    place = approval_id = ""
    known: dict[str, str] = {}
    async for event, data, place in events_of(client, f"/v1/runs/{run_id}/events"):
        for step in data if event == "steps" else ():
            known[step["name"]] = step["phase"]
            approval_id = step.get("approval_id", "") or approval_id
        if place and known == {"research": "Succeeded", "draft": "Waiting", "translate": "Skipped"}:
            break
    await asyncio.to_thread(decide, server, approval_id)
    told = [(event, data) async for event, data, _ in events_of(client, f"/v1/runs/{run_id}/events", place)]
    assert told[-1][0] == "end"
    named = {step["name"] for event, data in told if event == "steps" for step in data}
    assert "draft" in named


def test_who_has_a_state_is_told_what_differs_alone() -> None:
    """Nothing of the same state, and of another one the steps and cards that have changed."""
    team = newsroom().team
    header = RunHeader(id="r", team=team.name, plan="p")
    before = RunState(id="r", team=team.name, steps=tuple(StepState(name=step.name) for step in team.steps))
    begun = StepState(name="research", phase=Phase.RUNNING, started_at=1.0)
    old = RunPicture(header, team, before)
    new = RunPicture(header, team, replace(before, steps=(begun, *before.steps[1:])), old.drawn)
    assert [kind for kind, _ in old.news({})] == ["run", "graph", "steps", "nodes"]
    assert list(old.news(old.parts)) == []
    told = {kind: json.loads(raw) for kind, raw in new.news(old.parts)}
    assert {kind: [each.get("name") for each in data] for kind, data in told.items()} == {
        "steps": ["research"],
        "nodes": ["research"],
    }
    assert old.digest != new.digest
    assert old.digest == RunPicture(header, team, before).digest


async def test_many_watch_one_run_over_one_subscription(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """Three watchers, one follower of the log; when all have left, none."""
    run_id = await start(client, "newsroom", input={"topic": "tides"})
    streams = [events_of(client, f"/v1/runs/{run_id}/events") for _ in range(3)]
    for stream in streams:
        assert (await anext(stream))[0] == "run"
    hub = server.gateway.run_hub
    assert [name for name in hub.watched if name == run_id] == [run_id]
    names = server.do(_task_names)
    assert names.count(f"watch of run {run_id}") == 1
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
    async with asyncio.timeout(WITHIN_S):
        while run_id in hub.watched:
            await asyncio.sleep(0.02)
    await client.post(f"/v1/runs/{run_id}/cancel", json={})


async def _task_names(_: Gateway) -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_runs_are_listed_by_team_and_phase_page_by_page(client: httpx.AsyncClient) -> None:
    """The newest first; a cursor goes on where the page before ended."""
    ids = [await start(client) for _ in range(3)]
    for run_id in ids:
        await ended(client, run_id)
    first = (await client.get("/v1/runs", params={"team": "quick", "limit": 2})).json()
    second = (await client.get("/v1/runs", params={"team": "quick", "limit": 2, "cursor": first["next_cursor"]})).json()
    listed = [run["id"] for run in first["runs"] + second["runs"]]
    assert listed[:3] == ids[::-1]
    assert len(set(listed)) == len(listed)
    done = (await client.get("/v1/runs", params={"phase": "Succeeded", "team": "quick"})).json()["runs"]
    assert {run["phase"] for run in done} == {"Succeeded"}
    assert (await client.get("/v1/runs", params={"phase": "Failed", "team": "quick"})).json()["runs"] == []
    assert (await client.get("/v1/runs", params={"cursor": "junk"})).status_code == 400


async def test_a_run_is_cancelled_once(client: httpx.AsyncClient) -> None:
    """It ends; asked again, it has ended already."""
    run_id = await start(client, "newsroom", input={"topic": "tides"})
    assert (await client.post(f"/v1/runs/{run_id}/cancel", json={"reason": "no longer"})).status_code == 202
    assert (await ended(client, run_id))["run"]["phase"] == "Cancelled"
    again = await client.post(f"/v1/runs/{run_id}/cancel", json={})
    assert (again.status_code, again.json()["code"]) == (409, "run_ended")


async def test_an_idempotency_key_starts_one_run(client: httpx.AsyncClient) -> None:
    """Asked again, the same run; with another input, it is refused."""
    body = {"team": "quick", "input": {"a": 1}}
    headers = {"Idempotency-Key": "k1"}
    first = await client.post("/v1/runs", json=body, headers=headers)
    second = await client.post("/v1/runs", json=body, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert (first.json()["is_repeated"], second.json()["is_repeated"]) == (False, True)
    assert second.headers["Idempotent-Replayed"] == "true"
    other = await client.post("/v1/runs", json={**body, "input": {"a": 2}}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_what_cannot_be_run_is_refused_with_the_reason(client: httpx.AsyncClient) -> None:
    """No team, an unknown one, an input that does not fit."""
    for body, status, code in [
        ({}, 422, "nothing_to_run"),
        ({"team": "nobody"}, 404, "team_not_found"),
        ({"team": "newsroom"}, 422, "bad_input"),
        ({"file": "a: [b"}, 422, "bad_team_file"),
        ({"file": FILE, "team": "other"}, 404, "team_not_found"),
    ]:
        answer = await client.post("/v1/runs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await client.get("/v1/runs/none-such")).status_code == 404


async def test_a_file_runs_for_who_may_declare_agents_alone(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """With the scope `admin` it runs; with `tasks.write` it is refused."""
    answer = await client.post("/v1/runs", json={"file": FILE, "input": {"word": "yes"}})
    assert answer.status_code == 202, answer.text
    run = await ended(client, answer.json()["id"])
    assert run["run"]["phase"] == "Succeeded"
    async with server.client(key=server.make_key([Scope.TASKS_WRITE])) as other:
        refused = await other.post("/v1/runs", json={"file": FILE})
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")


@pytest.mark.parametrize(
    ("tools", "code"),
    [
        ("{mcp: [{name: sh, transport: stdio, command: /bin/sh}]}", "not_from_outside"),
        ("{mcp: [{name: m, url: 'https://example.com', tokenEnvVar: SECRET_OF_SERVER}]}", "not_from_outside"),
        ("{mcp: [{name: m, url: 'https://example.com', headers: [{name: X, value: y}]}]}", "not_from_outside"),
        ("{mcp: [{name: m, url: 'http://169.254.169.254/latest'}]}", "address_refused"),
        ("{webhooks: [{name: w, url: 'http://127.0.0.1:1/'}]}", "address_refused"),
        (
            "{webhooks: [{name: w, url: 'https://a.com', headers: [{name: X, secretKeyRef: {name: s, key: k}}]}]}",
            "not_from_outside",
        ),
    ],
)
async def test_a_file_reaches_nothing_of_the_servers(client: httpx.AsyncClient, tools: str, code: str) -> None:
    """Commands, variables of the workers, and addresses within the network are refused, before anything is stored."""
    text = FILE.replace("{name: clerk, model: mock}", f"{{name: clerk, model: mock, tools: {tools}}}")
    answer = await client.post("/v1/runs", json={"file": text, "input": {"word": "yes"}})
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text


async def test_a_file_sees_no_secret_of_the_server(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is to be taken from a secret is not looked up in the server's environment."""
    monkeypatch.setenv("hidden", "swordfish")
    text = """
apiVersion: kubeswarm.io/v1alpha1
kind: SwarmAgent
metadata: {name: clerk}
spec: {model: mock, prompt: {from: {secretKeyRef: {name: any, key: hidden}}}}
---
""" + FILE.replace("{name: clerk, model: mock}", "{name: clerk, swarmAgent: clerk}")
    answer = await client.post("/v1/runs", json={"file": text, "input": {"word": "yes"}})
    assert "swordfish" not in answer.text
    if answer.status_code == 202:
        run = await client.get(f"/v1/runs/{answer.json()['id']}/steps/work")
        assert "swordfish" not in run.text


async def test_a_tenant_sends_no_files(server: GatewayServer) -> None:
    """A role with a configuration of its own would be open to every tool and model of the workers."""
    key = server.make_key([Scope.ADMIN], tenant="acme")
    async with server.client(key=key) as ours:
        answer = await ours.post("/v1/runs", json={"file": FILE, "input": {"word": "yes"}})
    assert (answer.status_code, answer.json()["code"]) == (403, "access_denied"), answer.text


async def test_tenants_see_and_run_their_own(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """Runs and teams of others do not exist for them, for whom they start is given, and an app's key has none."""
    acme = server.make_key([Scope.TASKS_READ, Scope.TASKS_WRITE], tenant="acme")
    app = server.make_key([Scope.TASKS_READ, Scope.TASKS_WRITE], app="some-app")
    async with server.client(key=acme) as ours, server.client(key=app) as apps:
        mine, other = await start(ours, "own"), await start(client, "quick")
        assert [run["id"] for run in (await ours.get("/v1/runs")).json()["runs"]] == [mine]
        assert {team["slug"] for team in (await ours.get("/v1/teams")).json()["teams"]} == {"newsroom", "own", "quick"}
        for path in (f"/v1/runs/{other}", f"/v1/runs/{other}/events", f"/v1/runs/{other}/graph.svg"):
            assert (await ours.get(path)).status_code == 404
        assert (await ours.post(f"/v1/runs/{other}/cancel", json={})).status_code == 404
        assert (await ours.post("/v1/runs", json={"team": "own", "tenant": "globex"})).status_code == 403
        assert (await apps.get("/v1/runs")).json()["runs"] == []
        assert (await apps.get(f"/v1/runs/{mine}")).status_code == 404
        assert (await apps.post("/v1/runs", json={"team": "quick"})).status_code == 403
    assert (await client.post("/v1/runs", json={"team": "own"})).status_code == 404


async def test_a_tenant_sees_the_tasks_of_its_run_after_their_end(server: GatewayServer) -> None:
    """Those of a step that it was shown; another tenant sees them neither before nor after."""
    acme, globex = (server.make_key([Scope.TASKS_READ, Scope.TASKS_WRITE], tenant=name) for name in ("acme", "globex"))
    async with server.client(key=acme) as ours, server.client(key=globex) as others:
        run_id = await start(ours, "own")
        [step] = (await ended(ours, run_id))["steps"]
        path = f"/v1/tasks/{step['task_id']}"
        assert (await others.get(f"/v1/runs/{run_id}/steps/{step['name']}")).status_code == 404
        assert (await ours.get(f"/v1/runs/{run_id}/steps/{step['name']}")).status_code == 200
        assert (await ours.get(path)).status_code == 200
        assert (await others.get(path)).status_code == 404


async def test_a_file_forgets_no_runs_of_the_fleets_teams(server: GatewayServer, client: httpx.AsyncClient) -> None:
    """Its team may have the name of one of the fleet and say how few runs are kept; whatever came over HTTP is marked,
    so that workers look at each of its connections."""
    before = [await start(client, "quick") for _ in range(2)]
    for run_id in before:
        await ended(client, run_id)
    text = FILE.replace("name: sent", "name: quick").replace("spec:", "spec:\n  successfulRunsHistoryLimit: 1")
    answer = await client.post("/v1/runs", json={"file": text, "input": {"word": "yes"}})
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["id"]
    assert (await ended(client, run_id))["run"]["phase"] == "Succeeded"
    run = server.do(lambda gateway: gateway.runs.read(run_id))
    assert [(team.is_foreign, team.successful_runs_kept) for team in run.plan.teams] == [(True, 0)]
    for run_id in before:
        assert (await client.get(f"/v1/runs/{run_id}")).status_code == 200


async def test_pictures_of_runs_and_teams(client: httpx.AsyncClient) -> None:
    """SVG that stands by itself and may load nothing; a team's picture as data too."""
    run_id = await start(client)
    await ended(client, run_id)
    for path in (f"/v1/runs/{run_id}/graph.svg", "/v1/teams/newsroom/graph.svg"):
        answer = await client.get(path)
        assert answer.headers["content-type"].startswith("image/svg+xml")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert ET.fromstring(answer.text).tag == "{http://www.w3.org/2000/svg}svg"
    graph = (await client.get("/v1/teams/newsroom/graph")).json()
    assert [node["id"] for node in graph["nodes"]] == ["research", "draft", "translate"]
    assert {(edge["source"], edge["target"]) for edge in graph["edges"]} == {
        ("research", "draft"),
        ("research", "translate"),
    }
