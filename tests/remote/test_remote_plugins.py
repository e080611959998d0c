"""A remote provider calls plugins of both SDKs, as their facts say: on bare HTTP/2 for Go, on grpcio for Python."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest

from providers import (
    AgentConfig,
    AuthenticationFailed,
    ChatProvider,
    InvalidRequest,
    Message,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StopReason,
    StreamBroken,
    TextDelta,
    ThinkingDelta,
    ToolSpec,
    TurnEnd,
    TurnEvent,
    TurnRequest,
    Unavailable,
)
from providers.remote import Dialect, RemoteInstance, RemoteProvider, connect, tenant_id
from providers.remote.wire import PROVIDER
from providers.scripted import ScriptedProvider
from queue_backends import TokenUsage
from tests.remote.conftest import Served
from tests.remote.go_peer import GoServer, Refusal, b64, unb64
from tests.remote.python_peer import PLUGIN_SERVICE, FaultyPlugin, MendedPlugin

OUTPUT = {"content": "Hi", "finish_reason": "stop", "model": "m9"}
TOOL = ToolSpec(name="get_time", input_schema={"type": "object"})
CALLS = '[{"id":"call_1","type":"function","function":{"name":"get_time","arguments":"{\\"tz\\":\\"UTC\\"}"}}]'


def at(address: str, dialect: Dialect = Dialect.GO, **fields: Any) -> RemoteInstance:
    """A registered process at an address."""
    known = {"name": "p", "instance_id": address, "plugin_type": PROVIDER, **fields}
    return RemoteInstance(address=address, dialect=dialect, **known)


def ask(text: str = "Say hi", *, tools: tuple[ToolSpec, ...] = (), tenant: str = "", **config: Any) -> TurnRequest:
    """A turn."""
    settings = AgentConfig(**{"model": "m1", "max_retries": 0, **config})
    return TurnRequest(
        config=settings, messages=(Message.user(text),), tools=tools, tenant=tenant, task_id="t1", turn=2, attempt=1
    )


async def turn(provider: ChatProvider, request: TurnRequest) -> list[TurnEvent]:
    """All events of a turn."""
    return [event async for event in provider.stream_turn(request)]


async def one_turn(instances: Sequence[RemoteInstance], request: TurnRequest) -> list[TurnEvent]:
    """All events of a turn by a provider with those processes."""
    provider = RemoteProvider("p", lambda: instances)
    try:
        return await turn(provider, request)
    finally:
        await provider.aclose()


def executed(output: dict[str, str]) -> dict[str, Any]:
    """A Go plugin's answer."""
    return {"success": True, "result_json": b64(output), "error": "", "duration_ms": 41}


async def test_go_plugin_executes_a_turn_with_tools() -> None:
    """The request is what the Go SDK reads, byte for byte in its fields; the answer's calls and usage come back."""
    output = {**OUTPUT, "finish_reason": "tool_calls", "tool_calls": CALLS, "input_tokens": "12", "output_tokens": "3"}
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(output)}) as peer:
        events = await one_turn([at(peer.address)], ask(tools=(TOOL,), tenant="acme", temperature=0.2))
    [seen] = peer.seen
    assert seen.headers["content-type"] == "application/grpc+json"
    assert seen.headers["te"] == "trailers"
    assert list(seen.json) == ["execution_id", "step_id", "params_json", "execution_mode", "context", "tenant_id"]
    assert seen.json["execution_mode"] == 3
    assert seen.json["tenant_id"] == tenant_id("acme")
    params = unb64(seen.json["params_json"])
    assert json.loads(params["messages"]) == [{"role": "user", "content": "Say hi"}]
    assert all(isinstance(value, str) for value in params.values())
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert [(call.id, call.name, call.arguments) for call in end.message.tool_calls] == [
        ("call_1", "get_time", '{"tz":"UTC"}')
    ]
    assert end.stop_reason is StopReason.TOOL_USE
    assert end.usage == TokenUsage(input_tokens=12, output_tokens=3)
    assert end.model == "m9"


async def test_go_plugin_streams_a_turn_without_tools() -> None:
    """Tokens as they come; the final message ends it."""
    pieces: list[dict[str, Any]] = [{"token": "He"}, {"token": "llo"}, {"is_final": True}]
    async with GoServer(PLUGIN_SERVICE, {"ChatStream": lambda _: pieces}) as peer:
        *deltas, end = await one_turn([at(peer.address)], ask())
    assert deltas == [TextDelta("He"), TextDelta("llo")]
    assert isinstance(end, TurnEnd)
    assert end.message.text == "Hello"
    assert end.usage == TokenUsage()
    assert unb64(peer.seen[0].json["params_json"])["max_tokens"] == "8000"


async def test_plugin_without_stream_is_executed_instead() -> None:
    """UNIMPLEMENTED is remembered: the stream is not asked for again."""
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(OUTPUT)}) as peer:
        provider = RemoteProvider("p", lambda: [at(peer.address)])
        for _ in range(2):
            events = await turn(provider, ask())
            assert events[0] == TextDelta("Hi")
        await provider.aclose()
    assert [seen.method for seen in peer.seen] == ["ChatStream", "Execute", "Execute"]


async def test_stream_false_asks_for_whole_answers() -> None:
    """Other makers tell the usage in no other way."""
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed({**OUTPUT, "output_tokens": "7"})}) as peer:
        events = await one_turn([at(peer.address)], ask(options={"stream": False}))
    assert cast("TurnEnd", events[-1]).usage.output_tokens == 7
    assert [seen.method for seen in peer.seen] == ["Execute"]


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([{"token": "He"}, {"error": "AI backend returned HTTP 429"}], StreamBroken),
        ([{"error": "AI backend returned HTTP 429", "is_final": True}], RateLimited),
        ([{"token": "He"}], StreamBroken),
        ([{"error": "provider not configured: endpoint is empty"}], AuthenticationFailed),
    ],
)
async def test_stream_errors_end_the_turn(pieces: list[dict[str, Any]], kind: type[ProviderError]) -> None:
    """An error is terminal with or without `is_final`; a stream that just ends is broken."""
    async with GoServer(PLUGIN_SERVICE, {"ChatStream": lambda _: pieces}) as peer:
        with pytest.raises(kind):
            await one_turn([at(peer.address)], ask())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"success": False, "error": "provider not configured: endpoint is empty"}, AuthenticationFailed),
        ({"success": False, "error": "invalid params JSON: x", "result_json": None}, InvalidRequest),
        ({"success": False, "error": ""}, Unavailable),
        ({"success": True, "result_json": b64({"content": "x", "tool_calls": "nonsense"})}, ProviderError),
    ],
)
async def test_failed_answers_are_errors(answer: dict[str, Any], kind: type[ProviderError]) -> None:
    """gRPC's status is OK all the same."""
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: answer}) as peer:
        with pytest.raises(kind):
            await one_turn([at(peer.address)], ask(tools=(TOOL,)))


async def test_closing_the_turn_cancels_the_call() -> None:
    """The peer hears of it: spending stops."""
    going_on = asyncio.Event()

    async def forever(_: Any) -> Any:
        await going_on.wait()

    async with GoServer(PLUGIN_SERVICE, {"ChatStream": forever}) as peer:
        provider = RemoteProvider("p", lambda: [at(peer.address)])
        running = asyncio.create_task(turn(provider, ask()))
        await peer.wait_for(lambda: bool(peer.seen))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await peer.wait_for(lambda: peer.cancelled == ["ChatStream"])
        await provider.aclose()


async def test_silence_has_a_limit() -> None:
    """`first_event_timeout_s` counts for plugins, too."""
    never = asyncio.Event()

    async def forever(_: Any) -> Any:
        await never.wait()

    async with GoServer(PLUGIN_SERVICE, {"ChatStream": forever}) as peer:
        with pytest.raises(ProviderTimeout, match=r"0\.2 s"):
            await one_turn([at(peer.address)], ask(first_event_timeout_s=0.2))


async def test_another_process_takes_over() -> None:
    """Nobody listens at the first address: the turn is answered by the other one, whatever the order."""
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(OUTPUT)}) as peer:
        dead = GoServer(PLUGIN_SERVICE, {})
        await dead.start()
        await dead.stop()
        instances = [at(f"127.0.0.1:{dead.port}"), at(peer.address)]
        provider = RemoteProvider("p", lambda: instances)
        for _ in range(4):
            events = await turn(provider, ask(tools=(TOOL,), max_retries=1))
            assert events[0] == TextDelta("Hi")
        await provider.aclose()


async def test_unhealthy_and_foreign_processes_get_no_call() -> None:
    """The error says why there is nobody to ask."""
    ill = at("127.0.0.1:1", healthy=False, health_message="AI backend unreachable: refused")
    acme = at("127.0.0.1:1", tenant_id=tenant_id("acme"))
    with pytest.raises(Unavailable, match="unhealthy: AI backend unreachable: refused"):
        await one_turn([ill], ask())
    with pytest.raises(Unavailable, match="for this tenant"):
        await one_turn([acme], ask(tenant="other"))
    with pytest.raises(Unavailable, match="no process"):
        await one_turn([], ask())


async def test_processes_take_turns() -> None:
    """Several instances of one name share the work."""
    async with (
        GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(OUTPUT)}) as one,
        GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(OUTPUT)}) as other,
    ):
        instances = [at(one.address), at(other.address)]
        provider = RemoteProvider("p", lambda: instances)
        for _ in range(10):
            await turn(provider, ask(tools=(TOOL,)))
        await provider.aclose()
        assert len(one.seen) == len(other.seen) == 5


async def test_python_plugin_executes_a_turn() -> None:
    """Raw texts, `mode`, no content subtype; what it has no stream for is executed."""

    def answer(params: dict[str, Any]) -> dict[str, str]:
        return {**OUTPUT, "content": json.loads(params["messages"])[-1]["content"]}

    async with MendedPlugin("p", answer) as peer:
        events = await one_turn([at(peer.address, Dialect.PYTHON)], ask("héllo", tools=(TOOL,)))
        plain = await one_turn([at(peer.address, Dialect.PYTHON)], ask("again"))
    assert events[0] == TextDelta("héllo")
    assert plain[0] == TextDelta("again")
    [metadata, *_] = [metadata for _, metadata, _ in peer.seen]
    assert "x-plugin-name" not in metadata
    assert "+" not in metadata.get("content-type", "")


async def test_python_sdk_as_shipped_is_known_and_healthy_and_cannot_execute() -> None:
    """GetSchema and ConfigUpdated fail and are tolerated; Execute's fault is told."""
    async with FaultyPlugin("p") as peer:
        client, info = await connect(peer.address, Dialect.PYTHON)
        assert info.name == "p"
        assert await client.schema() is None
        assert (await client.health()).healthy
        await client.aclose()
        with pytest.raises(ProviderError, match="has no attribute 'get'"):
            await one_turn([at(peer.address, Dialect.PYTHON)], ask(tools=(TOOL,)))
    for method, _, body in peer.seen:
        assert method == "Execute" or body == b"{}"


@pytest.mark.parametrize("likely", Dialect)
async def test_dialect_is_found_by_asking(likely: Dialect) -> None:
    """Whichever is tried first, a Go plugin is spoken to in its own way."""
    info = {"name": "p", "version": "1", "description": "d", "type": 2, "actions": None, "metadata": None}
    async with GoServer(PLUGIN_SERVICE, {"Info": lambda _: info}) as peer:
        client, found = await connect(peer.address, likely)
        assert client.dialect is Dialect.GO
        assert found.type == 2
        await client.aclose()


async def test_embeddings() -> None:
    """One vector per text; a plugin without them says so."""
    answer = {"vectors": [[0.1, 0.2], [0.3, 0.4]], "model": "e", "dimensions": 2, "error": ""}
    async with GoServer(PLUGIN_SERVICE, {"Embed": lambda _: answer}) as peer:
        provider = RemoteProvider("p", lambda: [at(peer.address)])
        assert await provider.embed(AgentConfig(model="e"), ["a", "b"]) == [[0.1, 0.2], [0.3, 0.4]]
        assert peer.seen[0].json == {"model": "e", "inputs": ["a", "b"], "tenant_id": ""}
        peer.handlers = {}
        with pytest.raises(InvalidRequest, match="no embeddings"):
            await provider.embed(AgentConfig(model="e"), ["a"])
        await provider.aclose()


async def test_complete_uses_the_prompt_mode() -> None:
    """A single question without a system prompt is a `prompt`."""
    async with GoServer(PLUGIN_SERVICE, {"Execute": lambda _: executed(OUTPUT)}) as peer:
        provider = RemoteProvider("p", lambda: [at(peer.address)])
        assert await provider.complete(AgentConfig(model="m"), "", "Say hi", 5) == "Hi"
        await provider.complete(AgentConfig(model="m"), "Be brief", "Say hi", 5)
        await provider.aclose()
    first, second = (unb64(seen.json["params_json"]) for seen in peer.seen)
    assert first == {"prompt": "Say hi", "max_tokens": "5", "model": "m"}
    assert json.loads(second["messages"])[0] == {"role": "system", "content": "Be brief"}


async def test_health_is_asked_of_every_process() -> None:
    """One that is well is enough; the details name each."""

    def ill(_: Any) -> Any:
        raise Refusal(14, "going away")

    async with (
        GoServer(PLUGIN_SERVICE, {"HealthCheck": lambda _: {"healthy": True, "message": "", "details": None}}) as well,
        GoServer(PLUGIN_SERVICE, {"HealthCheck": ill}) as other,
    ):
        provider = RemoteProvider("p", lambda: [at(other.address), at(well.address)])
        health = await provider.health_check(AgentConfig(model="m"))
        await provider.aclose()
    assert health.healthy
    assert len(health.details) == 2
    assert any("going away" in told for told in health.details.values())


async def test_settings_reach_every_process_or_the_error_says_why() -> None:
    """A refusal by the plugin is an error here."""
    answer = {"acknowledged": True, "error": ""}
    async with GoServer(PLUGIN_SERVICE, {"ConfigUpdated": lambda _: answer}) as peer:
        provider = RemoteProvider("p", lambda: [at(peer.address)])
        await provider.config_updated({"endpoint": "http://x"})
        assert peer.seen[0].json["config"] == {"endpoint": "http://x"}
        answer["error"] = "no such endpoint"
        with pytest.raises(InvalidRequest, match="no such endpoint"):
            await provider.config_updated({"endpoint": "http://y"})
        await provider.aclose()


class Slow(ChatProvider):
    """Says one word and never another; knows when it was stopped."""

    name = "slow"

    def __init__(self) -> None:
        self.stopped = asyncio.Event()

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        try:
            yield TextDelta("one")
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


async def test_shoal_to_shoal_loses_nothing(served: Served) -> None:
    """Thinking, parallel tool calls, exact stop reason and usage come through a stream."""
    turns = [
        {
            "thinking": "a clock",
            "text": "Let me see.",
            "tool_calls": [{"name": "get_time", "arguments": {"tz": "UTC"}}, {"name": "get_date"}],
            "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 4, "reasoning_tokens": 2},
        }
    ]
    config = AgentConfig(model="m", options={"script": {"scenarios": [{"turns": turns}]}})
    local = await turn(ScriptedProvider(), TurnRequest(config=config, messages=(Message.user("x"),), tools=(TOOL,)))
    async with served(ScriptedProvider(), config=config) as address:
        instance = at(address, Dialect.PYTHON, is_shoal=True)
        remote = await one_turn([instance], ask("x", tools=(TOOL,), model="m"))
    assert remote == local
    assert ThinkingDelta("clock") in remote


async def test_shoal_to_shoal_errors_keep_their_class(served: Served) -> None:
    """A rate limit in the other process is one here, with its wait."""
    fault = {"kind": "rate_limited", "message": "slow down", "retry_after_s": 7.0}
    script = {"scenarios": [{"turns": [{"text": "x", "fault": fault}]}]}
    async with served(ScriptedProvider(), config=AgentConfig(model="m", options={"script": script})) as address:
        for streamed in (True, False):
            with pytest.raises(RateLimited, match="slow down") as caught:
                await one_turn([at(address, Dialect.PYTHON, is_shoal=True)], ask(options={"stream": streamed}))
            assert caught.value.retry_after_s == 7.0


async def test_shoal_to_shoal_cancel_stops_the_provider(served: Served) -> None:
    """Closing the turn here ends the stream of the provider there."""
    slow = Slow()
    async with served(slow) as address:
        provider = RemoteProvider("p", lambda: [at(address, Dialect.PYTHON, is_shoal=True)])
        async with aclosing(cast("Any", provider.stream_turn(ask()))) as events:
            assert await anext(events) == TextDelta("one")
        async with asyncio.timeout(30):
            await slow.stopped.wait()
        await provider.aclose()
