"""AI Studio's API of agents, as its clients know it: paths, bodies, events, and every error in its words."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from providers import AgentConfig
from queue_backends.messages import JsonObject
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.gateway.session_client import Events, answer, is_final, listening
from worker.agent_plugins import runner
from worker.agent_plugins.declared import FIRST_NUMBER, DeclaredPlugin
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.request import AgentRequest
from worker.agents.model import Agent, App, Group, Llm
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.studio_views import MODEL_PLUGIN
from worker.settings import Settings

BROKEN_ONCE = {"kind": "stream_broken", "after_chunks": 2, "attempts": 1}
SCRIPT = {
    "scenarios": [
        {"match": "slow", "turns": [{"text": "one two three four five six", "chunk_delay_s": 0.05}]},
        {"match": "lines", "turns": [{"text": "a\\nb"}]},
        {"match": "tool", "turns": [{"tool_calls": [{"name": "nothing"}]}, {"text": "done"}]},
        {"match": "restart", "turns": [{"text": "well well", "fault": {**BROKEN_ONCE}}]},
        {"match": "fail", "turns": [{"fault": {"kind": "invalid_request", "message": "no such thing"}}]},
        {"turns": [{"text": "echo {prompt}"}]},
    ]
}
MANIFEST = {
    "id": "com.example.echo",
    "version": "1.0.0",
    "name": "Echo",
    "capabilities": {"hooks": ["agent"], "primary_hook": "agent"},
    "permissions": {"services": ["llms.proxy"]},
}
SCHEMA = {"type": "object", "properties": {"prefix": {"type": "string"}}, "additionalProperties": False}
PLUGIN = """
from worker.agent_plugins import AgentPlugin

class Echo(AgentPlugin):
    async def handle_message(self, request, stream):
        await stream.content(f"{self.config['prefix']} {request.message} {len(request.history)}")
"""
DENIED = "You don't have access to this agent"


class Program:
    """Stands for a declared program: says what it is, and what it was initialised with."""

    problem = ""

    def __init__(self, package: PluginPackage) -> None:
        self._command = package.manifest.command

    async def initialize(self, config: JsonObject, kv: object, log: object) -> None:
        self._config = config

    async def session_ready(self, session: object) -> None: ...

    async def handle_message(self, request: AgentRequest, stream: Any, services: object) -> None:
        await stream.content(f"{self._command} {self._config} {request.message}")

    async def session_closing(self, session: object) -> None: ...

    async def shutdown(self) -> None: ...


@pytest.fixture(scope="module")
def gateway_config(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A folder with a plugin, and one with a broken one."""
    folder = tmp_path_factory.mktemp("plugins")
    for name, manifest in (("echo", MANIFEST), ("broken", {"id": "com.example.broken"})):
        (folder / name).mkdir()
        (folder / name / "plugin.manifest.json").write_text(json.dumps(manifest))
    (folder / "echo" / "config.schema.json").write_text(json.dumps(SCHEMA))
    (folder / "echo" / "plugin.py").write_text(PLUGIN)
    agent = AgentConfig(model="mock", provider="scripted", options={"script": SCRIPT})
    return gateway_settings(agent=agent, agent_plugins_dir=str(folder))


class World:
    """What was declared, by its numbers."""

    app: int
    bare_app: int
    idle_app: int
    group: int
    agent: int
    private: int
    asleep: int
    tenants: int


@pytest.fixture(scope="module")
def world(gateway_server: GatewayServer) -> World:
    """An app with a model, agents of several kinds, a group."""

    async def declare(gateway: Gateway) -> World:
        there, found = gateway.definitions, World()
        await there.llms.create(Llm(slug="m", provider="scripted", model="mock", options={"script": SCRIPT}))
        found.app = (await there.apps.create(App(slug="desk", name="Desk", llms=("m",)))).id
        found.bare_app = (await there.apps.create(App(slug="bare"))).id
        found.idle_app = (await there.apps.create(App(slug="idle", llms=("m",), is_active=False))).id
        found.group = (await there.groups.create(Group(slug="staff", name="Staff"))).id
        found.agent = (await there.agents.create(Agent(slug="helper", name="Helper", app="desk"))).id
        found.private = (await there.agents.create(Agent(slug="private", app="desk", groups=("staff",)))).id
        found.asleep = (await there.agents.create(Agent(slug="asleep", app="desk", is_active=False))).id
        found.tenants = (await there.agents.create(Agent(slug="theirs", app="desk", namespace="acme"))).id
        return found

    return gateway_server.do(declare)


def error(response: httpx.Response) -> tuple[int, str, str]:
    """Status, title and detail of an error in Studio's form."""
    [told] = response.json()["errors"]
    assert set(told) == {"title", "detail"}
    return response.status_code, told["title"], told["detail"]


async def opened(events: Events) -> str:
    """The session that a stream begins with."""
    [first] = await events.until(lambda event: True)
    assert first.name == "session"
    return str(first.data["session_id"])


async def tell(client: httpx.AsyncClient, agent: int, session: str, message: str, **body: Any) -> httpx.Response:
    """Post a message."""
    path = f"/common/agents/{agent}/message"
    return await client.post(path, params={"session_id": session}, json={"message": message, **body})


# Talking


async def test_stream_and_message(gateway_server: GatewayServer, world: World) -> None:
    """The session comes first, then the answer's typed events in Studio's form; the stream stays open for more."""
    async with gateway_server.client() as client, listening(client, f"/common/agents/{world.agent}/stream") as events:
        [first] = await events.until(lambda event: True)
        session = first.data["session_id"]
        sent = await tell(client, world.agent, session, "hello")
        heard = await events.until(is_final)
        await tell(client, world.agent, session, "again")
        more = await events.until(is_final)
    assert events.response.headers["content-type"].startswith("text/event-stream")
    assert events.response.headers["cache-control"] == "no-cache, no-transform"
    assert events.response.headers["x-accel-buffering"] == "no"
    assert list(first.data) == sorted(first.data)
    assert first.data == {
        "agent_id": world.agent,
        "agent_name": "Helper",
        "available_datasources": 0,
        "available_llms": 1,
        "available_tools": 0,
        "session_id": session,
    }
    assert sent.json() == {"message": "Message sent successfully", "session_id": session}
    assert {event.name for event in heard[:-1]} == {"content"}
    assert list(heard[0].data) == ["type", "content", "is_final"]
    assert answer(heard) == "echo hello"
    assert heard[-1].name == "done"
    assert (heard[-1].data["type"], heard[-1].data["content"], heard[-1].data["is_final"]) == (
        "DONE",
        "completed",
        True,
    )
    assert answer(more) == "echo again"


async def test_frames_are_single_lines(gateway_server: GatewayServer, world: World) -> None:
    """Each frame is an id, an event and one line of data, whatever the text; nothing else stands between."""
    path = f"/common/agents/{world.agent}/stream"
    async with gateway_server.client() as client, client.stream("GET", path) as response:
        lines = response.aiter_lines()
        first = [await anext(lines) for _ in range(4)]
        session = json.loads(first[2].removeprefix("data: "))["session_id"]
        await tell(client, world.agent, session, "lines")
        second = [await anext(lines) for _ in range(4)]
    assert first[0].startswith(f"id: {session}:")
    assert (first[1], first[3]) == ("event: session", "")
    assert second[1:3] == ["event: content", 'data: {"type":"CONTENT","content":"a\\\\nb","is_final":false}']


async def test_tool_events_and_errors(gateway_server: GatewayServer, world: World) -> None:
    """Tool calls and results have events and metadata of their own; a failure is one final error event."""
    async with gateway_server.client() as client, listening(client, f"/api/agents/{world.agent}/stream") as events:
        session = await opened(events)
        path = f"/api/agents/{world.agent}/message?session_id={session}"
        assert (await client.post(path, json={"message": "use a tool"})).status_code == 200
        heard = await events.until(is_final)
        await client.post(path, json={"message": "please fail"})
        [failed] = await events.until(is_final)
    assert [event.name for event in heard] == ["tool_call", "tool_result", "content", "done"]
    assert heard[0].data["metadata"]["tool_name"] == "nothing"
    assert (failed.name, failed.data["type"], failed.data["is_final"]) == ("error", "ERROR", True)
    assert "no such thing" in failed.data["content"]


async def test_a_browser_that_connects_again_goes_on(gateway_server: GatewayServer, world: World) -> None:
    """With `Last-Event-ID` alone, as browsers send it, the same session goes on without a gap or a repetition."""
    path = f"/common/agents/{world.agent}/stream"
    async with gateway_server.client() as client:
        async with listening(client, path) as events:
            session = await opened(events)
            await tell(client, world.agent, session, "slow please")
            before = await events.until(lambda event: event.data.get("content") == "two")
        async with listening(client, path, last_id=before[-1].id) as events:
            same = await opened(events)
            after = await events.until(is_final)
        async with listening(client, path, last_id=events.seen[0].id) as idle:
            again = await opened(idle)
        async with listening(client, path, last_id="nonsense") as idle:
            other = await opened(idle)
    assert session == same == again != other
    assert answer([*before, *after]) == "one two three four five six"


async def test_another_device_attaches(gateway_server: GatewayServer, world: World) -> None:
    """`?session_id=` goes on with a session of one's own: a running answer is heard from its beginning, and both hear
    what follows. Names that are no session's, as Studio's clients may send, open a new one."""
    path = f"/common/agents/{world.agent}/stream"
    async with gateway_server.client() as client, listening(client, path) as events:
        session = await opened(events)
        await tell(client, world.agent, session, "slow please")
        await events.until(lambda event: event.data.get("content") == "two")
        async with listening(client, path, session_id=session) as second:
            assert await opened(second) == session
            theirs = await second.until(is_final)
            await events.until(is_final)
            await tell(client, world.agent, session, "both")
            assert answer(await second.until(is_final)) == answer(await events.until(is_final)) == "echo both"
        async with listening(client, path, session_id="agent-1-7") as third:
            assert await opened(third) != session
    assert answer(theirs) == "one two three four five six"


async def test_messages_keep_their_order(gateway_server: GatewayServer, world: World) -> None:
    """Overlapping messages do not mix: the second is answered after the first."""
    async with gateway_server.client() as client, listening(client, f"/common/agents/{world.agent}/stream") as events:
        session = await opened(events)
        for text in ("slow one", "second"):
            assert (await tell(client, world.agent, session, text)).status_code == 200
        first, second = await events.until(is_final), await events.until(is_final)
    assert answer(first) == "one two three four five six"
    assert answer(second) == "echo second"


async def test_what_was_said_is_there_in_our_own_api(gateway_server: GatewayServer, world: World) -> None:
    """A session of Studio's API is one of ours: its messages are kept; a client's own history is not kept twice."""
    async with gateway_server.client() as client, listening(client, f"/common/agents/{world.agent}/stream") as events:
        session = await opened(events)
        for text, history in (("one", []), ("two", [{"role": "system", "content": "x"}])):
            await tell(client, world.agent, session, text, history=history)
            await events.until(is_final)
        whole = (await client.get(f"/v1/sessions/{session}")).json()
        conversation = whole["conversations"][0]["id"]
        page = (await client.get(f"/v1/sessions/{session}/conversations/{conversation}/messages")).json()
    assert whole["session"]["agent"] == "helper"
    assert [each["content"] for each in page["messages"]] == ["one", "two"]


async def test_the_stream_refuses(gateway_server: GatewayServer, world: World) -> None:
    """Everything that a stream checks before it begins, in Studio's words."""
    plain = gateway_server.make_key([Scope.AGENTS_USE])
    theirs = gateway_server.make_key([Scope.AGENTS_USE], tenant="other")
    async with gateway_server.client(plain) as client, gateway_server.client(theirs) as tenant:
        nobody = await client.get(f"/common/agents/{world.agent}/stream", headers={"Authorization": "Bearer nope"})
        found = {
            "word": error(await client.get("/common/agents/abc/stream")),
            "unknown": error(await client.get("/common/agents/999/stream")),
            "private": error(await client.get(f"/common/agents/{world.private}/stream")),
            "asleep": error(await client.get(f"/common/agents/{world.asleep}/stream")),
            "theirs": error(await tenant.get(f"/common/agents/{world.tenants}/stream")),
            "session": error(
                await client.get(f"/common/agents/{world.agent}/stream?session_id=0b8c0a0e-5f3c-4b0a-9a55-6a0f3a9f7d11")
            ),
        }
    assert (nobody.status_code, nobody.json()) == (401, {"error": "Unauthorized"})
    assert found == {
        "word": (400, "Invalid agent ID", "Agent ID must be a valid number"),
        "unknown": (404, "Agent not found", "No agent found with the provided ID"),
        "private": (403, "Access denied", DENIED),
        "asleep": (403, "Agent inactive", "This agent is not currently active"),
        "theirs": (404, "Agent not found", "No agent found with the provided ID"),
        "session": (
            404,
            "Session not found",
            "No active session found. Please establish an SSE connection first.",
        ),
    }


async def test_a_message_is_checked_as_the_stream_is(gateway_server: GatewayServer, world: World) -> None:
    """Unlike in the original: the agent of the path, groups and the session's owner count on every message."""
    plain = gateway_server.make_key([Scope.AGENTS_USE])
    staff = gateway_server.make_key([Scope.AGENTS_USE], groups=["staff"])
    path = f"/common/agents/{world.private}/stream"
    async with (
        gateway_server.client(staff) as owner,
        gateway_server.client(plain) as other,
        listening(owner, path) as events,
    ):
        session = await opened(events)
        assert (await tell(owner, world.private, session, "hi")).status_code == 200
        await events.until(is_final)
        found = {
            "group": error(await tell(other, world.private, session, "hi")),
            "other agent": error(await tell(owner, world.agent, session, "hi")),
            "not mine": error(await tell(other, world.agent, session, "hi")),
            "no session": error(await owner.post(f"/common/agents/{world.private}/message", json={"message": "x"})),
            "unknown": error(await tell(owner, world.private, "nope", "hi")),
            "nothing": error(await tell(owner, world.private, session, "")),
            "no json": error(
                await owner.post(
                    f"/common/agents/{world.private}/message?session_id={session}",
                    content=b"{",
                    headers={"Content-Type": "application/json"},
                )
            ),
            "role": error(await tell(owner, world.private, session, "x", history=[{"role": "robot", "content": "y"}])),
            "asleep": error(await tell(owner, world.asleep, session, "hi")),
        }
    none = "No active session found. Please establish an SSE connection first."
    assert found.pop("no json")[:2] == (400, "Invalid request")
    assert found.pop("role")[:2] == (400, "Invalid request")
    assert found == {
        "group": (403, "Access denied", DENIED),
        "other agent": (404, "Session not found", none),
        "not mine": (404, "Session not found", none),
        "no session": (400, "Missing session ID", "Session ID is required"),
        "unknown": (404, "Session not found", none),
        "nothing": (400, "Invalid request", "message is required"),
        "asleep": (403, "Agent inactive", "This agent is not currently active"),
    }


async def test_a_switched_off_agent_answers_no_more(gateway_server: GatewayServer, world: World) -> None:
    """Access is looked at for every message, not at the stream's beginning alone."""
    async with gateway_server.client() as client:
        body = {"name": "Switched", "plugin_id": MODEL_PLUGIN, "app_id": world.app}
        made = (await client.post("/api/v1/agents", json=body)).json()["data"]["id"]
        async with listening(client, f"/common/agents/{made}/stream") as events:
            session = await opened(events)
            await client.post(f"/api/v1/agents/{made}/deactivate")
            refused = await tell(client, made, session, "hi")
            await client.post(f"/api/v1/agents/{made}/activate")
            allowed = await tell(client, made, session, "hi")
            await events.until(is_final)
    assert error(refused) == (403, "Agent inactive", "This agent is not currently active")
    assert allowed.status_code == 200


async def test_a_plugin_that_is_not_there(gateway_server: GatewayServer, world: World) -> None:
    """An agent whose plugin cannot be used says so."""

    async def declare(gateway: Gateway) -> int:
        return (await gateway.definitions.agents.create(Agent(slug="ghost", app="desk", plugin="com.gone"))).id

    number = gateway_server.do(declare)
    async with gateway_server.client() as client:
        refused = await client.get(f"/common/agents/{number}/stream")
    assert error(refused) == (403, "Plugin inactive", "The agent's plugin is not active")


async def test_keys_as_studio_takes_them(gateway_server: GatewayServer, world: World) -> None:
    """In the query, as browsers' event streams need it, and after any word in the header."""
    key = gateway_server.make_key([Scope.AGENTS_USE])
    path = f"/common/agents/{world.agent}"
    async with gateway_server.client("") as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, params={"token": key})).status_code == 200
        assert (await client.get(path, headers={"Authorization": f"Whatever {key}"})).status_code == 200


async def test_an_agent_plugin_answers(gateway_server: GatewayServer, world: World) -> None:
    """An agent that is code: declared with its config, it answers on the stream, and is told what was said before."""
    async with gateway_server.client() as client:
        plugins = (await client.get("/api/v1/plugins?limit=100")).json()["data"]
        number = next(each["id"] for each in plugins if each["slug"] == "com.example.echo")
        body = {"name": "Speaker", "plugin_id": number, "app_id": world.app, "config": {"prefix": ">>"}}
        agent = (await client.post("/api/v1/agents", json=body)).json()["data"]["id"]
        async with listening(client, f"/common/agents/{agent}/stream") as events:
            session = await opened(events)
            answers = []
            for text in ("one", "two"):
                await tell(client, agent, session, text)
                answers.append(answer(await events.until(is_final)))
    assert answers == [">> one 0", ">> two 2"]


async def test_a_turn_that_begins_anew_says_so(gateway_server: GatewayServer, world: World) -> None:
    """The model's stream broke: pieces of the second try carry turn and attempt, so that the first can be dropped."""
    async with gateway_server.client() as client, listening(client, f"/common/agents/{world.agent}/stream") as events:
        session = await opened(events)
        await tell(client, world.agent, session, "restart")
        heard = await events.until(is_final)
    pieces = [event.data for event in heard if event.name == "content"]
    second = [piece for piece in pieces if "metadata" in piece]
    assert "".join(piece["content"] for piece in second) == "well well"
    assert {(piece["metadata"]["turn"], piece["metadata"]["attempt"]) for piece in second} == {(0, 1)}
    assert len(pieces) > len(second)


# Agents


async def test_users_list_what_they_may_use(gateway_server: GatewayServer, world: World) -> None:
    """The newest first, inactive ones too, without those of other groups; pages and totals are what they say."""
    plain = gateway_server.make_key([Scope.AGENTS_USE])
    async with gateway_server.client(plain) as client:
        everything = (await client.get("/common/agents?limit=100")).json()
        first = (await client.get("/common/agents?page=1&limit=2")).json()
        second = (await client.get("/common/agents?page=2&limit=2")).json()
        odd = (await client.get("/common/agents?page=-1&limit=1000")).json()
        acme = (await client.get("/common/agents?limit=100&namespace=acme")).json()
        nobody = (await client.get("/common/agents?limit=100&namespace=nobody")).json()
        every = (await client.get("/common/agents?limit=100&namespace=__ALL_NAMESPACES__")).json()
        one = (await client.get(f"/common/agents/{world.agent}")).json()["data"]
        hidden = await client.get(f"/common/agents/{world.private}")
    slugs = [each["slug"] for each in everything["data"]]
    assert {"helper", "asleep", "theirs", "default"} <= set(slugs)
    assert "private" not in slugs
    assert [each["id"] for each in everything["data"]] == [each["id"] for each in (*first["data"], *second["data"])] + [
        each["id"] for each in everything["data"][4:]
    ]
    assert first["meta"] == {"page": 1, "limit": 2, "total": len(slugs)}
    assert odd["meta"] == {"page": 1, "limit": 10, "total": len(slugs)}
    assert "theirs" in [each["slug"] for each in acme["data"]]
    assert "theirs" not in [each["slug"] for each in nobody["data"]]
    assert every["meta"]["total"] == len(slugs)
    assert one["ID"] == one["id"] == world.agent
    assert one["config"] == {}
    assert (one["name"], one["app_id"], one["app"]["name"], one["plugin_id"]) == ("Helper", world.app, "Desk", 1)
    assert error(hidden) == (403, "Access denied", DENIED)


async def test_an_agents_whole_life(gateway_server: GatewayServer, world: World) -> None:
    """Created on a plugin with a config that fits its schema, changed, switched, deleted, and then gone."""
    async with gateway_server.client() as client:
        plugins = (await client.get("/api/v1/plugins?limit=100")).json()["data"]
        echo = next(each for each in plugins if each["slug"] == "com.example.echo")
        body = {
            "name": "Echo agent",
            "description": "says it again",
            "plugin_id": echo["id"],
            "app_id": world.app,
            "config": {"prefix": "<<"},
            "group_ids": [world.group, 999],
        }
        created = await client.post("/api/v1/agents", json=body)
        agent = created.json()["data"]
        path = f"/api/v1/agents/{agent['id']}"
        changed = await client.put(path, json={**body, "name": "Other", "config": {"prefix": ">>"}, "group_ids": []})
        off = await client.post(f"{path}/deactivate")
        while_off = (await client.get(path)).json()["data"]
        on = await client.post(f"{path}/activate")
        kept = await client.put(path, json={"name": "Third", "plugin_id": echo["id"], "app_id": world.app})
        deleted = await client.delete(path)
        gone = await client.get(path)
    assert created.status_code == 201
    assert (agent["slug"], agent["config"], agent["is_active"]) == ("echo-agent", {"prefix": "<<"}, True)
    assert agent["groups"] == [{"id": world.group, "name": "Staff"}]
    assert agent["plugin"]["name"] == "Echo"
    assert changed.json()["data"]["slug"] == "echo-agent"
    assert (changed.json()["data"]["name"], changed.json()["data"]["groups"]) == ("Other", [])
    assert off.json() == {"message": "Agent config deactivated successfully"}
    assert while_off["is_active"] is False
    assert on.json() == {"message": "Agent config activated successfully"}
    assert (kept.json()["data"]["config"], kept.json()["data"]["is_active"]) == ({}, True)
    assert deleted.json() == {"message": "Agent config deleted successfully"}
    assert error(gone) == (404, "Agent not found", "No agent found with the provided ID")


async def test_what_cannot_be_declared(gateway_server: GatewayServer, world: World) -> None:
    """Each check in Studio's words; what it answers as 500 is the caller's mistake, and is told as such."""
    async with gateway_server.client() as client:
        plugins = (await client.get("/api/v1/plugins?limit=100")).json()["data"]
        numbers = {each["slug"]: each["id"] for each in plugins}
        echo = numbers["com.example.echo"]

        async def refused(**body: Any) -> tuple[int, str, str]:
            whole = {"name": "X", "plugin_id": echo, "app_id": world.app, **body}
            return error(await client.post("/api/v1/agents", json=whole))

        found = {
            "plugin": await refused(plugin_id=77),
            "broken": await refused(plugin_id=numbers["broken"]),
            "no plugin": await refused(plugin_id=0),
            "app": await refused(app_id=999),
            "no app": await refused(app_id=0),
            "idle": await refused(app_id=world.idle_app),
            "bare": await refused(app_id=world.bare_app),
            "name": await refused(name=" "),
            "type": await refused(name=5),
            "config": await refused(config={"nothing": 1}),
            "fields": await refused(plugin_id=MODEL_PLUGIN, config={"nothing": 1}),
            "groups": await refused(group_ids=[999]),
            "twice": await refused(name="helper"),
        }
        settings_agent = next(
            each for each in (await client.get("/api/v1/agents?limit=100")).json()["data"] if each["slug"] == "default"
        )
        fixed = await client.delete(f"/api/v1/agents/{settings_agent['id']}")
        moved = await client.put(
            f"/api/v1/agents/{world.agent}",
            json={"name": "H", "plugin_id": 1, "app_id": world.app, "namespace": "acme"},
        )
    assert error(fixed)[:2] == (409, "Database error")
    assert error(moved)[:2] == (400, "Invalid request")
    assert found.pop("config")[:2] == (422, "Database error")
    assert found.pop("fields")[:2] == (400, "Invalid request")
    assert found.pop("type")[:2] == (400, "Invalid request")
    assert found.pop("twice")[:2] == (409, "Database error")
    assert found.pop("groups")[:2] == (400, "Invalid request")
    assert found == {
        "plugin": (400, "Invalid plugin", "Plugin not found"),
        "broken": (422, "Database error", "plugin is not active"),
        "no plugin": (400, "Invalid request", "plugin_id is required"),
        "app": (400, "Invalid app", "App not found"),
        "no app": (400, "Invalid request", "app_id is required"),
        "idle": (422, "Database error", "app is not active"),
        "bare": (422, "Database error", "app must have at least one LLM"),
        "name": (400, "Invalid request", "agent name is required"),
    }


async def test_a_model_agent_through_studio(gateway_server: GatewayServer, world: World) -> None:
    """The plugin that stands for model agents: its config is the agent's own fields, and it answers."""
    async with gateway_server.client() as client:
        body = {
            "name": "Model one",
            "plugin_id": MODEL_PLUGIN,
            "app_id": world.app,
            "config": {"system_prompt": "be brief", "settings": {"max_tokens": 100}},
        }
        agent = (await client.post("/api/v1/agents", json=body)).json()["data"]
        async with listening(client, f"/common/agents/{agent['id']}/stream") as events:
            session = await opened(events)
            await tell(client, agent["id"], session, "hi")
            heard = await events.until(is_final)
        own = (await client.get(f"/v1/agents/{agent['slug']}")).json()
    assert agent["config"] == {"system_prompt": "be brief", "settings": {"max_tokens": 100}}
    assert agent["plugin"]["name"] == "Model agent"
    assert answer(heard) == "echo hi"
    assert own["definition"]["system_prompt"] == "be brief"


async def test_only_administrators_declare(gateway_server: GatewayServer, world: World) -> None:
    """Everybody else is refused under `/api/v1`, in Studio's words."""
    plain = gateway_server.make_key([Scope.AGENTS_USE])
    body = {"name": "X", "plugin_id": 1, "app_id": world.app}
    async with gateway_server.client(plain) as client:
        one = f"/api/v1/agents/{world.agent}"
        found = {
            "create": error(await client.post("/api/v1/agents", json=body)),
            "update": error(await client.put(one, json=body)),
            "delete": error(await client.delete(one)),
            "activate": error(await client.post(f"{one}/activate")),
            "deactivate": error(await client.post(f"{one}/deactivate")),
        }
        others = [
            (await client.get(path)).status_code
            for path in ("/api/v1/agents", one, f"{one}/stream", "/api/v1/plugins", "/api/v1/plugins/1")
        ]
        message = await client.post(f"{one}/message?session_id=x", json={"message": "hi"})
    assert found == {verb: (403, "Forbidden", f"Only administrators can {verb} agent configs") for verb in found}
    assert [*others, message.status_code] == [403] * 6


# Plugins


async def test_a_tenant_declares_no_plugin(gateway_server: GatewayServer, world: World) -> None:
    """Plugins are programs that the whole fleet's workers start: no tenant's administrator makes or changes one, or
    sees what it is started with."""
    body = {"name": "Fleet Echo", "command": "echo-agent", "hook_type": "agent", "config": {"licence": "x"}}
    bound = gateway_server.make_key([Scope.ADMIN], tenant="other")
    async with gateway_server.client() as client, gateway_server.client(bound) as tenant:
        number = (await client.post("/api/v1/plugins", json=body)).json()["data"]["id"]
        refused = [
            await tenant.post("/api/v1/plugins", json={**body, "name": "Mine"}),
            await tenant.put(f"/api/v1/plugins/{number}", json=body),
            await tenant.delete(f"/api/v1/plugins/{number}"),
        ]
        assert [each.status_code for each in refused] == [403] * 3
        seen = [(await who.get(f"/api/v1/plugins/{number}")).json()["data"]["config"] for who in (client, tenant)]
        assert seen == [{"licence": "x"}, {}]
        assert (await client.delete(f"/api/v1/plugins/{number}")).status_code == 200


async def test_plugins(gateway_server: GatewayServer, world: World) -> None:
    """Installed ones are listed with their schema and cannot be changed here; programs are declared, changed, deleted;
    what lies outside the plugin folder is refused."""
    async with gateway_server.client() as client:
        body = {"name": "Compiled", "command": "file://compiled/agent", "hook_types": ["agent"], "config": {"a": 1}}
        created = await client.post("/api/v1/plugins", json=body)
        plugin = created.json()["data"]
        path = f"/api/v1/plugins/{plugin['id']}"
        read = (await client.get(path)).json()["data"]
        changed = await client.put(path, json={**body, "is_active": False})
        agent = {"name": "On it", "plugin_id": plugin["id"], "app_id": world.app}
        unusable = error(await client.post("/api/v1/agents", json=agent))
        listed = (await client.get("/api/v1/plugins?limit=100")).json()["data"]
        echo = next(each for each in listed if each["slug"] == "com.example.echo")
        found = {
            "installed": error(await client.delete(f"/api/v1/plugins/{echo['id']}"))[:2],
            "unknown": error(await client.get("/api/v1/plugins/5"))[:2],
            "word": error(await client.get("/api/v1/plugins/abc"))[:2],
            "twice": error(await client.post("/api/v1/plugins", json=body))[:2],
            "outside": error(await client.post("/api/v1/plugins", json={**body, "name": "Y", "command": "/bin/sh"}))[
                :2
            ],
            "dots": error(await client.post("/api/v1/plugins", json={**body, "name": "Y", "command": "../sh"}))[:2],
            "image": error(await client.post("/api/v1/plugins", json={**body, "name": "Y", "command": "oci://x/y"}))[
                :2
            ],
            "hook": error(
                await client.post("/api/v1/plugins", json={**body, "name": "Y", "hook_type": "auth", "hook_types": []})
            )[:2],
            "name": error(await client.post("/api/v1/plugins", json={"command": "x"}))[:2],
        }
        deleted = await client.delete(path)
        gone = await client.get(path)
    assert created.status_code == 201
    assert read == plugin
    assert unusable == (422, "Database error", "plugin is not active")
    assert (plugin["command"], plugin["is_active"], plugin["hook_type"]) == ("compiled/agent", True, "agent")
    assert changed.json()["data"]["is_active"] is False
    assert echo["config_schema"] == SCHEMA
    assert echo["service_scopes"] == ["llms.proxy"]
    assert all(0 < each["id"] < 2**32 for each in listed)
    assert found == {
        "installed": (409, "Database error"),
        "unknown": (404, "Plugin not found"),
        "word": (400, "Invalid plugin ID"),
        "twice": (409, "Database error"),
        "outside": (400, "Security Validation Failed"),
        "dots": (400, "Security Validation Failed"),
        "image": (400, "Security Validation Failed"),
        "hook": (400, "Invalid plugin type"),
        "name": (400, "Invalid request"),
    }
    assert deleted.json() == {"message": "Plugin deleted successfully"}
    assert gone.status_code == 404


async def test_agents_run_on_a_declared_plugin_while_it_is_active(
    gateway_server: GatewayServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent is made on the number that the declaration answered with, and talks; while the plugin is switched off,
    no other one can be made on it, and the one that there is does not talk."""
    monkeypatch.setitem(runner._registered, "go-plugin", Program)
    plugin = {"name": "Runs agents", "command": "agent", "config": {"a": 1}}
    async with gateway_server.client() as client:
        number = (await client.post("/api/v1/plugins", json=plugin)).json()["data"]["id"]
        agent = {"name": "On a program", "plugin_id": number, "app_id": world.app, "config": {"b": 2}}
        created = await client.post("/api/v1/agents", json=agent)
        assert created.status_code == 201, created.text
        made = created.json()["data"]
        async with listening(client, f"/common/agents/{made['id']}/stream") as events:
            session = await opened(events)
            await tell(client, made["id"], session, "hello")
            said = answer(await events.until(is_final))
            await client.put(f"/api/v1/plugins/{number}", json={**plugin, "is_active": False})
            found = {
                "agent": error(await client.post("/api/v1/agents", json={**agent, "name": "Another"})),
                "stream": error(await client.get(f"/common/agents/{made['id']}/stream")),
                "message": error(await tell(client, made["id"], session, "hello")),
            }
        await client.delete(f"/api/v1/agents/{made['id']}")
        assert (await client.delete(f"/api/v1/plugins/{number}")).status_code == 200
    assert (made["plugin_id"], made["plugin"]["slug"], made["config"]) == (number, "runs-agents", {"b": 2})
    assert said == "agent {'a': 1, 'b': 2} hello"
    assert found == {
        "agent": (422, "Database error", "plugin is not active"),
        "stream": (403, "Plugin inactive", "The agent's plugin is not active"),
        "message": (403, "Plugin inactive", "The agent's plugin is not active"),
    }


async def test_a_declared_plugin_behind_an_installed_one(gateway_server: GatewayServer, world: World) -> None:
    """No agent is made on its number: what would run is the installed one."""

    async def declare(gateway: Gateway) -> int:
        stored = await gateway.definitions.plugins.create(DeclaredPlugin(slug="com.example.echo", command="agent"))
        return FIRST_NUMBER + stored.id

    async def take_back(gateway: Gateway) -> None:
        await gateway.definitions.plugins.delete("com.example.echo")

    body = {"name": "Behind", "plugin_id": gateway_server.do(declare), "app_id": world.app}
    async with gateway_server.client() as client:
        refused = await client.post("/api/v1/agents", json=body)
    gateway_server.do(take_back)
    assert error(refused) == (422, "Database error", "plugin is not active")
