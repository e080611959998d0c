"""Peers that lie, hang, break off and flood: whatever one does, the others and the engine go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from providers import AgentConfig, Message, ProviderError, StreamBroken, TextDelta, TurnEvent, TurnRequest, Unavailable
from providers.remote import Dialect, RemoteInstance, RemoteProvider, Source
from providers.remote.wire import PROVIDER
from queue_backends import Backend
from tests.remote.conftest import Engines, until
from tests.remote.go_peer import DROP, GoServer, Refusal, frame
from tests.remote.python_peer import PLUGIN_SERVICE
from tests.remote.test_remote_engine import ACME, go, go_provider, registration
from worker.approvals import Approval, Approvals
from worker.engine import admission, options, service
from worker.remote_providers import Registry
from worker.settings.plugins import ExternalPlugin

TOKEN = {"token": "Hel"}


@asynccontextmanager
async def raw_server(said: bytes) -> AsyncIterator[str]:
    """A server that says this to whoever connects, and then nothing until they leave; gives its address."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        try:
            while await reader.read(65_536):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def failed_turn(address: str, dialect: Dialect = Dialect.GO, **config: Any) -> tuple[list[TurnEvent], Exception]:
    """What a turn there gave before its error, and that."""
    instance = RemoteInstance(name="p", instance_id="i", address=address, dialect=dialect, plugin_type=PROVIDER)
    provider = RemoteProvider("p", lambda: [instance])
    settings = AgentConfig(**{"model": "m", "max_retries": 0, **config})
    events: list[TurnEvent] = []
    try:
        async for event in provider.stream_turn(TurnRequest(config=settings, messages=(Message.user("x"),))):
            events.append(event)  # noqa: PERF401 - those before the error are wanted
    except ProviderError as error:
        return events, error
    finally:
        await provider.aclose()
    raise AssertionError("the turn did not fail")


@pytest.mark.parametrize(
    "end",
    [[frame({"token": "lo"})[:3]], [frame({"token": "lo"})[:-4]], [b"\x01" + frame({})[1:]], [DROP], [b"\x00" * 4]],
    ids=["half a header", "half a message", "compressed", "connection lost", "less than a header"],
)
async def test_streams_that_break_off_are_broken(end: list[Any]) -> None:
    """What came is kept, and the error is one after which a turn starts over."""
    async with GoServer(PLUGIN_SERVICE, {"ChatStream": lambda _: [TOKEN, *end]}) as peer:
        events, error = await failed_turn(peer.address)
    assert [event.text for event in events if isinstance(event, TextDelta)] in (["Hel"], [])
    assert isinstance(error, StreamBroken if events else Unavailable)
    assert isinstance(error, ProviderError)
    assert error.retryable


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x04\x08" * 50])
async def test_what_is_no_plugin_at_all_is_an_error_in_time(said: bytes, dialect: Dialect) -> None:
    """Silence and garbage alike."""
    async with raw_server(said) as address:
        events, error = await failed_turn(address, dialect, first_event_timeout_s=0.5)
    assert events == []
    assert isinstance(error, ProviderError)


@pytest.mark.parametrize(
    "answer", [[b'\x00\x00\x00\x00\x08{"a":nul'], [frame({})[:6]], [], [frame("text")], [frame({"name": ["x"]})]]
)
async def test_answers_that_cannot_be_read_turn_a_plugin_down(engines: Engines, answer: list[Any]) -> None:
    """With a reason, and without a defect."""
    async with engines() as engine, go_provider() as peer:
        peer.handlers["Info"] = lambda _: answer
        told = await go(engine).call("RegisterPlugin", registration(peer))
        assert told["success"] is False
        assert "the engine cannot call back" in told["error"]
        peer.handlers["Info"] = go_provider().handlers["Info"]
        assert (await go(engine).call("RegisterPlugin", registration(peer)))["success"] is True


async def test_call_backs_are_bounded(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin that does not answer Info is turned down; one that only fails at GetSchema is taken in by its Info."""
    monkeypatch.setattr(admission, "CALL_BACK_LIMIT_S", 0.5)

    async def hang(_: Any) -> Any:
        await asyncio.Event().wait()

    async with engines() as engine, go_provider() as peer, raw_server(b"") as nobody:
        told = await go(engine).call("RegisterPlugin", registration(peer, grpc_addr=nobody))
        assert "did not answer within" in told["error"]
        peer.handlers["GetSchema"] = hang
        assert (await go(engine).call("RegisterPlugin", registration(peer)))["success"] is True


async def test_registrations_at_once_are_bounded(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes while others are being called back is told to come again."""
    monkeypatch.setattr(service, "MOST_AT_ONCE", 1)
    go_on = asyncio.Event()

    async with engines() as engine, go_provider("slow") as slow, go_provider() as peer:
        info = slow.handlers["Info"]

        async def wait(request: Any) -> Any:
            await go_on.wait()
            return info(request)

        slow.handlers["Info"] = wait
        first = asyncio.create_task(go(engine).call("RegisterPlugin", registration(slow, "slow")))
        await slow.wait_for(lambda: bool(slow.calls("Info")))
        with pytest.raises(Refusal, match="try again") as refused:
            await go(engine).call("RegisterPlugin", registration(peer))
        assert refused.value.status == 8
        go_on.set()
        assert (await first)["success"] is True
        assert (await go(engine).call("RegisterPlugin", registration(peer)))["success"] is True


@pytest.mark.parametrize("most", ["MOST_PROCESSES", "MOST_NAMES"])
async def test_nobody_fills_the_registry(engines: Engines, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    """The next one is refused; those who are in may register anew."""
    monkeypatch.setattr(service, most, 1)
    async with engines() as engine, go_provider() as peer, go_provider("other") as other:
        assert (await go(engine).call("RegisterPlugin", registration(peer)))["success"] is True
        await until(lambda: engine.directory.instances("my_llm"), engine)
        with pytest.raises(Refusal, match="registered already") as refused:
            await go(engine).call("RegisterPlugin", registration(other, "other"))
        assert refused.value.status == 8
        assert (await go(engine).call("RegisterPlugin", registration(peer)))["success"] is True


@pytest.mark.parametrize(
    ("info", "sent", "problem"),
    [
        ({}, {"instance_id": "x" * 300}, "instance_id"),
        ({}, {"instance_id": "a\nb"}, "instance_id"),
        ({}, {"name": "x" * 10_000}, "is no name for a plugin"),
        ({}, {"grpc_addr": "unix:///run/secret:1"}, "is no address"),
        ({"config_schema": [{"key": f"k{n}"} for n in range(300)]}, {}, "300 settings"),
        ({"actions": [{"id": f"a{n}"} for n in range(600)]}, {}, "600 actions"),
        ({"actions": [{"id": "a.b"}, {"id": "a_b"}]}, {}, "the same tool"),
        ({"description": "x" * 15_000}, {}, "at most 10000 are kept"),
    ],
)
async def test_excesses_are_refused(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], sent: dict[str, Any], problem: str
) -> None:
    """Nothing of it is stored."""
    monkeypatch.setattr(admission, "MOST_BYTES", 10_000)
    async with engines() as engine, go_provider(**info) as peer:
        answer = await go(engine).call("RegisterPlugin", {**registration(peer), **sent})
        assert problem in answer["error"]
        assert len(answer["error"]) < 500
        assert await engine.directory.registry.instances() == []


async def test_defaults_cannot_reach_into_the_engines_environment(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plugin that declares `env:NAME` as a default is not told what the engine has under that name."""
    monkeypatch.setenv("ENGINES_OWN_KEY", "top-secret")
    schema = [{"key": "a", "default": "env:ENGINES_OWN_KEY"}, {"key": "b", "default": "plain"}]
    async with engines() as engine, go_provider(config_schema=schema) as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        config = await go(engine).call("GetConfig", {"plugin_name": "my_llm", "tenant_id": ACME})
        await peer.wait_for(lambda: bool(peer.calls("ConfigUpdated")))
    assert config["config"] == {"b": "plain"}
    assert all(b"top-secret" not in seen.body for seen in peer.seen)


async def test_one_that_cannot_be_cared_for_does_not_end_the_care_of_others(engines: Engines, backend: Backend) -> None:
    """What somebody else has written into the registry may be anything."""
    odd = RemoteInstance(name="odd", instance_id="i", address="nowhere", dialect=Dialect.GO, plugin_type=PROVIDER)
    await Registry(backend.state).add(odd)
    async with engines() as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        await peer.wait_for(lambda: bool(peer.calls("ConfigUpdated")) and bool(peer.calls("HealthCheck")))


async def test_one_that_hangs_does_not_keep_settings_from_others(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has its own queue of settings; what it is handed last is the newest."""
    monkeypatch.setattr("providers.remote.client.CALL_LIMIT_S", 60.0)  # a busy machine must not end the call that hangs
    hangs, let_go = asyncio.Event(), asyncio.Event()

    async def hang(_: Any) -> Any:
        hangs.set()
        await let_go.wait()
        return {"acknowledged": True}

    async with engines() as engine, go_provider() as stuck, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(stuck, instance_id="stuck"))
        await stuck.wait_for(lambda: bool(stuck.calls("HealthCheck")))
        stuck.handlers["ConfigUpdated"] = hang
        await go(engine).call("RegisterPlugin", registration(peer))
        await peer.wait_for(lambda: bool(peer.calls("HealthCheck")))
        await engine.live.set("plugin.my_llm.endpoint", "http://one")
        await asyncio.wait_for(hangs.wait(), 30)
        await engine.live.set("plugin.my_llm.endpoint", "http://two")
        await peer.wait_for(lambda: peer.calls("ConfigUpdated")[-1].json["config"] == {"endpoint": "http://two"})
        assert "ConfigUpdated" not in stuck.cancelled
        let_go.set()
        await stuck.wait_for(lambda: stuck.calls("ConfigUpdated")[-1].json["config"] == {"endpoint": "http://two"})


async def test_another_plugin_at_an_address_takes_it_over(engines: Engines) -> None:
    """A port that is used again by another plugin: calls for the first one must not reach the second."""
    async with engines() as engine, go_provider() as peer:
        await go(engine).call("RegisterPlugin", registration(peer))
        peer.handlers["Info"] = go_provider("other").handlers["Info"]
        await go(engine).call("RegisterPlugin", registration(peer, "other"))
        assert [each.name for each in await engine.directory.registry.instances()] == ["other"]


def left_behind(address: str) -> RemoteInstance:
    """What an engine that was killed has left of an external plugin."""
    return RemoteInstance(
        name="my_llm",
        instance_id="external-my_llm",
        address=address,
        dialect=Dialect.GO,
        plugin_type=PROVIDER,
        source=Source.EXTERNAL,
    )


async def test_external_plugin_that_has_moved_is_found(engines: Engines, backend: Backend) -> None:
    """The settings count, whatever an engine that was killed had stored."""
    await Registry(backend.state).add(left_behind("127.0.0.1:1"))
    async with go_provider() as peer, engines(external=(ExternalPlugin(name="my_llm", addr=peer.address),)) as engine:
        await until(lambda: [each.address for each in engine.directory.instances("my_llm")] == [peer.address], engine)


async def test_external_plugin_that_nobody_names_any_more_is_taken_off(
    engines: Engines, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines beat for the external plugins that their settings name."""
    monkeypatch.setattr(options, "BEATS_UNTIL_LOST", 0.1)
    await Registry(backend.state).add(left_behind("127.0.0.1:1"))
    async with engines(heartbeat_interval="1s", health_check_interval="100ms") as engine:
        await until(lambda: not engine.directory.instances("my_llm"), engine)


async def test_question_of_somebody_who_is_gone_is_taken_back(backend: Backend) -> None:
    """Nobody shall answer into the void."""
    approvals = Approvals(backend.state)
    asking = asyncio.create_task(approvals.ask(Approval(message="Delete all?"), 60))
    async with asyncio.timeout(30):
        while not await approvals.pending():
            await asyncio.sleep(0.01)  # what is written on its way has no event to wait for
    asking.cancel()
    await asyncio.wait([asking])
    assert await approvals.pending() == []


@pytest.mark.parametrize(
    ("address", "environ", "is_said"),
    [
        ("0.0.0.0:0", {}, True),
        ("0.0.0.0:0", {"SHOAL_PLUGIN_TOKEN": "s3cret"}, False),
        ("127.0.0.1:0", {}, False),
    ],
)
async def test_open_engines_say_so(engines: Engines, address: str, environ: dict[str, str], is_said: bool) -> None:
    """An address that others reach, without a token, is worth a warning."""
    with structlog.testing.capture_logs() as logs:
        async with engines(grpc_addr=address, environ=environ):
            pass
    assert any("set a shared token" in entry["event"] for entry in logs) is is_said
