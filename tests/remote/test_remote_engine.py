"""The engine takes in plugins of both SDKs, looks after them, and answers what they ask, each in its own dialect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from providers import AgentConfig, Message, TextDelta, ToolCall, TurnRequest, UnknownProvider, register
from providers.remote import Dialect, RemoteProvider, Source, tenant_id
from providers.remote.wire import ENGINE_SERVICE
from providers.scripted import ScriptedProvider
from queue_backends import Backend, open_backend
from tests.certificates import self_signed
from tests.remote.conftest import LIMIT_S, Engines, Served, until
from tests.remote.go_peer import GoClient, GoServer, Refusal, b64, unb64
from tests.remote.python_peer import PLUGIN_SERVICE, FaultyPlugin, MendedPlugin, PythonClient
from tests.servers import Server
from worker.approvals import Approvals
from worker.background import BackgroundWork
from worker.engine import Engine, engine_running
from worker.errors import ApprovalDecided, BadSetting
from worker.remote_providers import RemoteActions, RemoteDirectory, RemoteProviders
from worker.settings.plugins import ExternalPlugin, PluginSettings
from worker.teams.notify.outbox import Happening, Outbox
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import ToolContext

ACME, OTHER = tenant_id("acme"), tenant_id("other")
INPUTS = [
    {"name": "city", "type": "string", "required": True, "description": "Where"},
    {"name": "days", "type": "number", "required": False, "description": ""},
]


def go_provider(name: str = "my_llm", **fields: Any) -> GoServer:
    """A provider of the Go SDK."""
    info = {
        "name": name,
        "version": "1.0.0",
        "description": "A provider",
        "type": 2,
        "permission": 1,
        "devops_stages": [8],
        "default_intents": None,
        "config_schema": [
            {"key": "endpoint", "type": "string", "required": True, "default": "http://localhost", "is_secret": False},
            {"key": "api_key", "type": "string", "required": True, "default": "", "is_secret": True},
        ],
        "metadata": None,
        "instance_id": "",
        **fields,
    }
    output = {"content": "Hi", "finish_reason": "stop", "model": "m9"}
    schema = {"params_json_schema": b64([]), "result_json_schema": b64([]), "actions": None}
    handlers: dict[str, Any] = {
        "Info": lambda _: info,
        "GetSchema": lambda _: schema,
        "HealthCheck": lambda _: {"healthy": True, "message": "", "details": None},
        "ConfigUpdated": lambda _: {"acknowledged": True, "error": ""},
        "Execute": lambda _: {"success": True, "result_json": b64(output), "error": "", "duration_ms": 1},
    }
    return GoServer(PLUGIN_SERVICE, handlers)


def go_agent(execute: Callable[[dict[str, Any]], Any], name: str = "weather") -> GoServer:
    """An agent of the Go SDK with one action."""
    action = {
        "id": "fore.cast",
        "description": "Tells the weather",
        "permission": 1,
        "stages": [8],
        "intents": None,
        "input_params": b64(INPUTS),
        "output_params": None,
    }
    peer = go_provider(name, type=1, config_schema=None, actions=[action])
    peer.handlers["Execute"] = execute
    return peer


def registration(peer: Any, name: str = "my_llm", **fields: Any) -> dict[str, Any]:
    """What a plugin sends first."""
    return {
        "name": name,
        "version": "1.0.0",
        "grpc_addr": peer.address,
        "plugin_type": 2,
        "instance_id": f"id-{name}",
        "tenant_id": ACME,
        **fields,
    }


def go(engine: Engine, plugin: str = "my_llm") -> GoClient:
    """How a plugin of the Go SDK calls an engine."""
    return GoClient(engine.address, ENGINE_SERVICE, plugin)


def python(engine: Engine) -> PythonClient:
    """How a plugin of the Python SDK calls an engine."""
    return PythonClient(engine.address, ENGINE_SERVICE)


@asynccontextmanager
async def remote_of(engine: Engine) -> AsyncIterator[RemoteProviders]:
    """A worker's view of what is registered."""
    remote = RemoteProviders(engine.directory)
    try:
        yield remote
    finally:
        await remote.aclose()


async def said(engine: Engine, name: str = "my_llm") -> str:
    """What a registered provider answers."""
    provider = RemoteProvider(name, lambda: engine.directory.instances(name))
    request = TurnRequest(config=AgentConfig(model="m", max_retries=0), messages=(Message.user("x"),))
    try:
        events = [event async for event in provider.stream_turn(request)]
    finally:
        await provider.aclose()
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def test_go_provider_registers_is_configured_called_and_leaves(engines: Engines) -> None:
    """Called back for info and schema, seeded, given its settings, checked, called, and gone after its goodbye."""
    async with engines() as engine, go_provider() as peer:
        answer = await go(engine).call("RegisterPlugin", registration(peer))
        assert answer["success"] is True
        assert answer["plugin_id"]
        await until(lambda: engine.directory.instances("my_llm"), engine)
        [instance] = engine.directory.instances("my_llm")
        assert (instance.dialect, instance.plugin_type, instance.tenant_id) == (Dialect.GO, 2, ACME)
        assert [param.secret for param in instance.params] == [False, True]
        await peer.wait_for(lambda: bool(peer.calls("ConfigUpdated")) and bool(peer.calls("HealthCheck")))
        assert peer.calls("ConfigUpdated")[0].json["config"] == {"endpoint": "http://localhost"}
        assert engine.live.get("plugin.my_llm.endpoint") == "http://localhost"
        assert await said(engine) == "Hi"
        assert await go(engine).call("DeregisterPlugin", {"name": "my_llm", "instance_id": "id-my_llm"}) == {
            "acknowledged": True
        }
        await until(lambda: not engine.directory.instances("my_llm"), engine)
    assert {seen.method for seen in peer.seen} >= {"Info", "GetSchema"}
    assert all(seen.json == {} for seen in peer.seen if seen.method in {"Info", "GetSchema", "HealthCheck"})


async def test_python_sdk_as_shipped_registers_and_stays(engines: Engines) -> None:
    """Its GetSchema and ConfigUpdated always fail: that is no reason to turn it down, or to call it ill."""
    async with engines(health_check_interval="200ms") as engine, FaultyPlugin("old") as peer:
        answer = await python(engine).call("RegisterPlugin", registration(peer, "old", plugin_type=1))
        assert answer["success"] is True
        await until(lambda: engine.directory.instances("old"), engine)
        [instance] = engine.directory.instances("old")
        assert instance.dialect is Dialect.PYTHON
        assert [action.tool.name for action in instance.actions] == ["old__look"]
        beat = await python(engine).call("Heartbeat", {"name": "old", "instance_id": "id-old"})
        assert beat["acknowledged"] is True
        assert "re_register_required" not in {name for name, value in beat.items() if value is True}
        peer.healthy = False
        await until(lambda: not engine.directory.instances("old")[0].healthy, engine)
        assert engine.directory.instances("old")[0].health_message == "feels ill"
        peer.healthy = True
        await until(lambda: engine.directory.instances("old")[0].healthy, engine)


async def test_plugin_that_cannot_say_who_it_is_is_taken_in(engines: Engines) -> None:
    """Python 1.11.0 cannot serialise actions with parameters: what it registered as counts."""

    class Mute(FaultyPlugin):
        def info(self, request: Any) -> Any:
            return self.get_schema(request)

    async with engines() as engine, Mute("mute") as peer:
        answer = await python(engine).call("RegisterPlugin", registration(peer, "mute", plugin_type=1))
        assert answer["success"] is True
        await until(lambda: engine.directory.instances("mute"), engine)
        assert engine.directory.instances("mute")[0].actions == ()


async def test_settings_are_pushed_to_both_dialects(engines: Engines) -> None:
    """A changed value reaches every process of the plugin at once, and only that value."""
    async with engines() as engine, go_provider() as peer, MendedPlugin("py", lambda _: {}) as mended:
        await go(engine).call("RegisterPlugin", registration(peer))
        await python(engine).call("RegisterPlugin", registration(mended, "py", plugin_type=1))
        await until(lambda: engine.directory.instances("my_llm") and engine.directory.instances("py"), engine)

        def pushed() -> list[dict[str, str]]:
            return [seen.json["config"] for seen in peer.calls("ConfigUpdated")]

        await peer.wait_for(lambda: bool(pushed()))
        await engine.live.set("plugin.my_llm.endpoint", "http://elsewhere")
        await peer.wait_for(lambda: {"endpoint": "http://elsewhere"} in pushed())
        await engine.live.set("plugin.my_llm.api_key", "k-1")
        await peer.wait_for(lambda: {"api_key": "k-1"} in pushed())
        await engine.live.unset("plugin.my_llm.endpoint")
        await peer.wait_for(lambda: pushed()[-1] == {"endpoint": "http://localhost"})
        with pytest.raises(BadSetting, match="has no setting"):
            await engine.live.set("plugin.my_llm.unknown", "x")
        config = await go(engine).call("GetConfig", {"plugin_name": "my_llm", "tenant_id": ACME})
        assert config["config"] == {"api_key": "k-1"}
        assert "config_json" not in config
        told = await python(engine).call("GetConfig", {"plugin_name": "py", "tenant_id": ACME})
        assert json.loads(told["config_json"]) == {"endpoint": "http://localhost"}


async def test_secret_references_are_resolved_for_other_makers(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Go plugin cannot look into the engine's environment, so it gets the value."""
    monkeypatch.setenv("MY_KEY", "from-environment")
    async with engines() as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        await engine.live.set("plugin.my_llm.api_key", "env:MY_KEY")
        config = await go(engine).call("GetConfig", {"plugin_name": "my_llm", "tenant_id": ""})
    assert config["config"]["api_key"] == "from-environment"


async def test_unknown_instance_has_to_register_again(engines: Engines) -> None:
    """And is told how often to beat."""
    async with engines(heartbeat_interval="7s") as engine:
        answer = await go(engine).call("Heartbeat", {"name": "nobody", "instance_id": "x"})
    assert answer == {"acknowledged": True, "re_register_required": True, "heartbeat_interval_seconds": 7}


async def test_silent_plugin_is_taken_off(engines: Engines) -> None:
    """Three heartbeats missed, and it is gone, however well it looks."""
    async with engines(heartbeat_interval="1s", health_check_interval="200ms") as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        await until(lambda: engine.directory.instances("my_llm"), engine)
        await until(lambda: not engine.directory.instances("my_llm"), engine)


async def test_unreachable_plugin_gets_no_call_until_it_is_back(engines: Engines) -> None:
    """Unhealthy after two checks that do not get through; well again, with its settings, when it answers."""
    async with engines(health_check_interval="200ms") as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        await until(lambda: engine.directory.instances("my_llm"), engine)
        await peer.wait_for(lambda: bool(peer.calls("HealthCheck")))
        await peer.stop()
        await until(lambda: not engine.directory.instances("my_llm")[0].healthy, engine)
        assert "cannot be reached" in engine.directory.instances("my_llm")[0].health_message
        pushed = len(peer.calls("ConfigUpdated"))
        await peer.start()
        await until(lambda: engine.directory.instances("my_llm")[0].healthy, engine)
        await peer.wait_for(lambda: len(peer.calls("ConfigUpdated")) > pushed)
        assert await said(engine) == "Hi"


async def test_those_who_want_to_hear_of_a_plugin_that_nobody_can_call_do(engines: Engines, backend: Backend) -> None:
    """Once its last process is not well, there is something to tell: by then, and not while another one works."""
    outbox = Outbox(backend.state)
    async with engines(health_check_interval="200ms") as engine, go_provider() as first, go_provider() as second:
        for number, peer in enumerate((first, second)):
            await go(engine).call("RegisterPlugin", registration(peer, instance_id=f"number-{number}"))
        await until(lambda: len(engine.directory.instances("my_llm")) == 2, engine)
        await first.stop()
        await until(lambda: any(not each.healthy for each in engine.directory.instances("my_llm")), engine)
        assert [key async for key, _ in outbox.all()] == []
        await second.stop()
        await until(lambda: not any(each.healthy for each in engine.directory.instances("my_llm")), engine)
        async with asyncio.timeout(30):
            while not (found := [value async for _, value in outbox.all()]):
                await asyncio.sleep(0.01)
    [happening] = [msgspec.json.decode(value, type=Happening) for value in found]
    assert (happening.payload.event, happening.payload.team) == ("AgentDegraded", "my_llm")
    assert "cannot be reached" in happening.payload.reason


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"grpc_addr": "nowhere"}, "grpc_addr"),
        ({"instance_id": ""}, "instance_id"),
        ({"name": "no spaces"}, "is no name for a plugin"),
        ({"name": "scripted"}, "built-in provider"),
        ({"name": "another"}, "its Info says 'my_llm'"),
        ({"grpc_addr": "127.0.0.1:1"}, "cannot call back"),
    ],
)
async def test_bad_registrations_are_told_why(engines: Engines, fields: dict[str, str], problem: str) -> None:
    """`success` false and a text for the plugin's author; nothing is registered."""
    async with engines() as engine, go_provider() as peer:
        answer = await go(engine).call("RegisterPlugin", {**registration(peer), **fields})
        assert answer["success"] is False
        assert problem in answer["error"]
        assert await engine.directory.registry.instances() == []


async def test_bad_plugins_are_told_why(engines: Engines) -> None:
    """An unknown type, and an action that is declared twice."""
    action = {"id": "a", "description": "d", "permission": 1, "stages": [8], "intents": []}
    async with engines() as engine, go_provider(type=9) as odd, go_provider(type=1, actions=[action, action]) as twice:
        assert "type 9" in (await go(engine).call("RegisterPlugin", registration(odd)))["error"]
        assert "declared twice" in (await go(engine).call("RegisterPlugin", registration(twice)))["error"]


async def test_built_in_name_may_be_taken_if_the_settings_say_so(engines: Engines) -> None:
    """Then the name means the remote one, whether it has a process or not; for everybody else it stays the built-in."""
    register("scripted", ScriptedProvider)
    async with engines(shadow=("scripted",)) as engine, go_provider("scripted") as peer, remote_of(engine) as others:
        shadowing = RemoteProviders(engine.directory, shadow=("scripted",))
        assert not shadowing.is_healthy("scripted")
        answer = await go(engine).call("RegisterPlugin", registration(peer, "scripted"))
        assert answer["success"] is True
        await until(lambda: engine.directory.instances("scripted"), engine)
        assert isinstance(shadowing.create("scripted"), RemoteProvider)
        assert shadowing.is_healthy("scripted")
        assert isinstance(others.create("scripted"), ScriptedProvider)
        with pytest.raises(UnknownProvider):
            others.create("nobody")


async def test_address_that_only_the_plugin_knows_is_found(engines: Engines) -> None:
    """A host's name that means nothing here: the engine calls back where the call came from."""
    async with engines() as engine, go_provider() as peer:
        request = registration(peer, grpc_addr=f"no-such-host.invalid:{peer.port}")
        assert (await go(engine).call("RegisterPlugin", request))["success"] is True
        [instance] = await engine.directory.registry.instances()
        assert instance.address == peer.address


async def test_cache_is_shared_and_tenants_have_their_own(engines: Engines) -> None:
    """Base64 for Go, raw text for Python, the same bytes; a batch in the order asked."""
    async with engines() as engine:
        assert await go(engine).call(
            "CacheSet", {"key": "k", "value": b64({"a": 1}), "ttl_seconds": 0, "tenant_id": ACME}
        ) == {"success": True}
        await python(engine).call("CacheSet", {"key": "t", "value": "plain", "ttl_seconds": 60, "tenant_id": ACME})
        raw = await python(engine).call("CacheGet", {"key": "k", "tenant_id": ACME})
        assert raw == {"value": '{"a":1}', "found": True}
        assert (await go(engine).call("CacheGet", {"key": "k", "tenant_id": OTHER}))["found"] is False
        batch = await go(engine).call("CacheGetBatch", {"keys": ["x", "t", "k"], "tenant_id": ACME})
        assert [(entry["key"], entry["found"]) for entry in batch["entries"]] == [
            ("x", False),
            ("t", True),
            ("k", True),
        ]
        assert batch["entries"][1]["value"] == "cGxhaW4="
        with pytest.raises(Refusal) as refused:
            await go(engine).call("CacheSet", {"key": "k", "value": "not base64!", "tenant_id": ACME})
        assert refused.value.status == 3


async def test_plugins_call_each_other_within_their_tenant(engines: Engines) -> None:
    """Parameters and result are written anew in each one's dialect; another tenant is refused."""

    def execute(request: dict[str, Any]) -> Any:
        assert request["action_id"] == "fore.cast"
        result = {"sky": "blue over " + unb64(request["params_json"])["city"]}
        return {"success": True, "result_json": b64(result), "error": "", "duration_ms": 2}

    async with engines() as engine, go_agent(execute) as peer:
        await go(engine).call("RegisterPlugin", registration(peer, "weather", plugin_type=1))
        await until(lambda: engine.directory.instances("weather"), engine)
        call = {"caller_plugin": "my_llm", "target_plugin": "weather", "action_id": "fore.cast", "tenant_id": ACME}
        answer = await python(engine).call("CallPlugin", {**call, "params_json": '{"city": "Ulm"}'})
        assert answer["success"] is True
        assert json.loads(answer["result_json"]) == {"sky": "blue over Ulm"}
        answer = await go(engine).call("CallPlugin", {**call, "params_json": b64({"city": "Ulm"})})
        assert unb64(answer["result_json"]) == {"sky": "blue over Ulm"}
        with pytest.raises(Refusal) as refused:
            await go(engine).call("CallPlugin", {**call, "tenant_id": OTHER, "params_json": b64({})})
        assert refused.value.status == 7
        missing = await go(engine).call("CallPlugin", {**call, "target_plugin": "weather:x", "params_json": b64({})})
        assert missing["success"] is False
        assert "not registered" in missing["error"]


async def test_engine_of_one_tenant_refuses_others(engines: Engines) -> None:
    """PERMISSION_DENIED for another one; who names none is taken for its own."""
    async with engines(tenant="acme") as engine, go_provider() as peer:
        with pytest.raises(Refusal) as refused:
            await go(engine).call("RegisterPlugin", registration(peer, tenant_id=OTHER))
        assert refused.value.status == 7
        assert (await go(engine).call("RegisterPlugin", registration(peer, tenant_id="")))["success"] is True


async def test_tenant_called_default_is_everybodys(engines: Engines) -> None:
    """The SDKs do not start without a tenant; who is given this one serves all of them."""
    async with engines() as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer, tenant_id=tenant_id("default")))
        [instance] = await engine.directory.registry.instances()
        assert instance.tenant_id == ""


async def test_process_at_the_same_address_takes_the_others_place(engines: Engines) -> None:
    """A plugin that was killed and is back on its port is one process, not two."""
    async with engines() as engine, go_provider() as peer:
        for instance_id in ("first", "second"):
            await go(engine).call("RegisterPlugin", registration(peer, instance_id=instance_id))
        assert [each.instance_id for each in await engine.directory.registry.instances()] == ["second"]


async def test_engine_outlives_its_store(durable_server: Server, stream: str) -> None:
    """While the store is away, plugins are told to come again; afterwards they are known as before."""
    async with (
        await open_backend(durable_server.url(stream)) as backend,
        engine_running(PluginSettings(grpc_addr="127.0.0.1:0"), backend.state, environ={}) as engine,
        go_provider() as peer,
    ):
        await go(engine).call("RegisterPlugin", registration(peer))
        beat = {"name": "my_llm", "instance_id": "id-my_llm"}
        await asyncio.to_thread(durable_server.kill)
        with pytest.raises(Refusal) as refused:
            await go(engine).call("Heartbeat", beat)
        assert refused.value.status == 14
        await asyncio.to_thread(durable_server.start)
        assert (await go(engine).call("Heartbeat", beat))["re_register_required"] is False
        assert await said(engine) == "Hi"


async def test_its_keeper_ends_before_its_plugins(engines: Engines, backend: Backend, tmp_path: Path) -> None:
    """Otherwise the keeper would find those ill that are being ended, and tell people of it at each deploy."""
    given_back: list[str] = []
    held, both_held = set[str](), asyncio.Event()

    async def note() -> None:
        async for change in backend.state.watch("engine/"):
            if change.value is None:
                given_back.append(change.key)
            else:
                held.add(change.key)
            if len(held) == 2:
                both_held.set()

    async with BackgroundWork(note, name="duties"), asyncio.timeout(LIMIT_S):
        async with engines(dir=str(tmp_path)):
            await both_held.wait()
        while len(given_back) < 2:
            await asyncio.sleep(0.01)  # the watch has no end to wait for
    assert [key.partition("/")[2].partition("/")[0] for key in given_back] == ["keeper", "plugins-dir"]


async def test_people_approve(engines: Engines, backend: Backend) -> None:
    """A question waits for its answer, or for its time to run out."""
    question = {"description": "Delete all?", "required_permission": 3, "timeout_seconds": 30, "tenant_id": ACME}
    async with engines() as engine:
        asking = asyncio.create_task(go(engine).call("RequestApproval", {**question, "context_json": b64({"n": 3})}))
        approvals = Approvals(backend.state)
        async with asyncio.timeout(LIMIT_S):
            while not (pending := await approvals.pending()):
                await asyncio.sleep(0.01)  # what a call on its way writes has no event to wait for
        assert (pending[0].message, pending[0].permission, pending[0].context) == (
            "Delete all?",
            "ADMIN",
            '{"n":3}',
        )
        await approvals.decide(pending[0].id, approved=True, reviewer="ann", comment="go on")
        expected = {"approved": True, "timed_out": False, "reviewer": "ann", "comment": "go on"}
        assert await asking == expected
        late = await python(engine).call("RequestApproval", {**question, "timeout_seconds": 0})
        assert (late["approved"], late["timed_out"]) == (False, True)
        with pytest.raises(ApprovalDecided):
            await approvals.decide(pending[0].id, approved=False)


async def test_the_rest_of_the_service(engines: Engines, backend: Backend) -> None:
    """Results are kept, events logged, and there are no KPIs."""
    async with engines() as engine:
        result = {"execution_id": "e", "step_id": "s", "result_json": b64({"ok": 1}), "success": True, "tenant_id": ""}
        assert await go(engine).call("PublishResult", result) == {"acknowledged": True}
        kept = await backend.state.get("plugin-results//e/s")
        assert kept is not None
        assert json.loads(json.loads(kept)["result_json"]) == {"ok": 1}
        event = {"plugin_name": "p", "event_type": "started", "data_json": "{}", "severity": "WARN", "tenant_id": ""}
        assert await python(engine).call("LogEvent", event) == {"acknowledged": True}
        assert await go(engine).call("ListKPIs", {"tenant_id": ACME, "kind": "", "layer": ""}) == {"kpis": []}
        assert await go(engine).call("GetKPI", {"tenant_id": ACME, "kpi_id": "k"}) == {}


async def test_actions_of_agents_are_tools(engines: Engines) -> None:
    """Declared with a schema from their parameters, called with flat texts, and gone with their agent."""
    asked: list[dict[str, Any]] = []

    def execute(request: dict[str, Any]) -> Any:
        asked.append(request)
        if unb64(request["params_json"])["city"] == "Atlantis":
            return {"success": False, "result_json": None, "error": "no such city"}
        return {"success": True, "result_json": b64({"sky": "blue"}), "error": ""}

    async with (
        engines() as engine,
        go_agent(execute) as peer,
        remote_of(engine) as remote,
        ToolCatalogue(servers=[RemoteActions(remote)]) as tools,
    ):
        assert tools.specs() == ()
        await go(engine, "weather").call("RegisterPlugin", registration(peer, "weather", plugin_type=1))
        await until(lambda: engine.directory.instances("weather"), engine)
        [spec] = tools.specs()
        assert (spec.name, spec.description, spec.kind) == ("weather__fore_cast", "Tells the weather", "plugin")
        assert spec.input_schema == {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Where"}, "days": {"type": "number"}},
            "required": ["city"],
        }
        context = ToolContext(task_id="t1", tenant="acme")
        call = ToolCall(id="c1", name=spec.name, arguments='{"city":"Ulm","days":2}')
        outcome = await tools.call(call, context)
        assert (outcome.content, outcome.is_error) == ('{"sky":"blue"}', False)
        lost = await tools.call(ToolCall(id="c2", name=spec.name, arguments='{"city":"Atlantis"}'), context)
        assert (lost.content, lost.is_error) == ("no such city", True)
        foreign = await tools.call(call, ToolContext(task_id="t1", tenant="other"))
        assert foreign.is_error
        await go(engine).call("DeregisterPlugin", {"name": "weather", "instance_id": "id-weather"})
        await until(lambda: not engine.directory.instances("weather"), engine)
        assert tools.specs() == ()
    assert unb64(asked[0]["params_json"]) == {"city": "Ulm", "days": "2"}
    assert (asked[0]["action_id"], asked[0]["execution_id"], asked[0]["tenant_id"]) == ("fore.cast", "t1", ACME)


async def test_external_plugins_until_they_register_themselves(engines: Engines) -> None:
    """`plugins.external` finds a plugin of either dialect; a registration of the same name takes its place."""
    async with go_provider() as named, go_provider() as itself:
        external = (ExternalPlugin(name="my_llm", addr=named.address),)
        async with engines(external=external) as engine:
            await until(lambda: engine.directory.instances("my_llm"), engine)
            [instance] = engine.directory.instances("my_llm")
            assert (instance.source, instance.dialect, instance.address) == (Source.EXTERNAL, Dialect.GO, named.address)
            await go(engine).call("RegisterPlugin", registration(itself))
            await until(
                lambda: [each.address for each in engine.directory.instances("my_llm")] == [itself.address], engine
            )
            await go(engine).call("DeregisterPlugin", {"name": "my_llm", "instance_id": "id-my_llm"})
            await until(
                lambda: [each.address for each in engine.directory.instances("my_llm")] == [named.address], engine
            )


async def test_two_engines_share_the_work(engines: Engines) -> None:
    """A plugin may beat at any engine of the fleet; when the one that looks after plugins leaves, another one does."""
    async with engines(health_check_interval="200ms") as second, go_provider() as peer:
        async with engines(health_check_interval="200ms") as first:
            await go(first).call("RegisterPlugin", registration(peer))
            await until(lambda: second.directory.instances("my_llm"), second)
            beat = await go(second).call("Heartbeat", {"name": "my_llm", "instance_id": "id-my_llm"})
            assert beat["re_register_required"] is False
        checked = len(peer.calls("HealthCheck"))
        await peer.wait_for(lambda: len(peer.calls("HealthCheck")) > checked)


async def test_shared_token(engines: Engines, served: Served) -> None:
    """An engine with a token turns others away, and a Shoal provider that knows it is in and can be called."""
    secret = {"SHOAL_PLUGIN_TOKEN": "s3cret"}
    async with engines(environ=secret) as engine:
        with pytest.raises(Refusal) as refused:
            await go(engine).call("Heartbeat", {"name": "x", "instance_id": "y"})
        assert refused.value.status == 16
        async with served(ScriptedProvider(), name="mocked", engine=engine.address, environ=secret):
            await until(lambda: engine.directory.instances("mocked"), engine)


async def test_tls(engines: Engines, served: Served, tmp_path: Path) -> None:
    """Both ways behind certificates: the address says so, and each checks the other's."""
    cert, key = await asyncio.to_thread(self_signed, tmp_path)
    around = {"SHOAL_PLUGIN_TLS_CERT": cert, "SHOAL_PLUGIN_TLS_KEY": key, "SHOAL_PLUGIN_CA": cert}
    async with (
        engines(tls_cert=cert, tls_key=key, tls_ca=cert) as engine,
        served(ScriptedProvider(), name="mocked", engine=f"grpcs://{engine.address}", environ=around),
    ):
        await until(lambda: engine.directory.instances("mocked"), engine)
        assert engine.directory.instances("mocked")[0].address.startswith("grpcs://127.0.0.1:")
        assert engine.directory.instances("mocked")[0].healthy


async def test_taken_address_is_a_clear_error(engines: Engines) -> None:
    """Two engines cannot listen at one address by accident."""
    async with engines() as engine:
        with pytest.raises(BadSetting, match="cannot listen on"):
            async with engines(grpc_addr=engine.address):
                pass


async def test_directory_outlives_a_store_that_is_away(backend: Backend) -> None:
    """A mirror that is not entered holds what it has read."""
    directory = RemoteDirectory(backend.state)
    await directory.load()
    assert directory.all() == []
    assert directory.instances("x") == ()
