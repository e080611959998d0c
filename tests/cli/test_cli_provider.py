"""`shoal provider`: against a real store and a model server of the test's own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import providers
from providers import ConfigParam, registry
from providers.live_config import Configurable
from providers.remote import Dialect
from providers.remote.instances import RemoteInstance
from providers.remote.wire import PROVIDER, READ
from queue_backends import Backend
from tests.cli.cli_harness import Shoal, WithBackend
from tests.settings.naming_server import NamingServer
from worker.remote_providers import Registry

LIMIT_S = 30.0


@pytest.fixture
def model_server() -> Iterator[NamingServer]:
    """A model server in a thread: commands run an event loop of their own."""
    server, ready, loop = NamingServer("pong"), threading.Event(), asyncio.new_event_loop()
    done: asyncio.Event | None = None

    async def serve() -> None:
        nonlocal done
        done = asyncio.Event()
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(LIMIT_S)
    yield server
    assert done is not None
    loop.call_soon_threadsafe(done.set)
    thread.join(LIMIT_S)
    loop.close()


def use(shoal: Shoal, server: NamingServer) -> None:
    """Point the provider at the server."""
    shoal("provider", "config-set", "anthropic", "base_url", server.url)
    shoal("provider", "config-set", "anthropic", "api_key", "sk-live")


def test_list_has_the_known_columns_and_tells_who_works(shoal: Shoal) -> None:
    """Name, version, permission, status, and why one does not work."""
    lines = shoal("provider", "list").out.splitlines()
    assert lines[0].split()[:4] == ["NAME", "VERSION", "PERMISSION", "STATUS"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert "unhealthy" in rows["anthropic"]
    assert "ANTHROPIC_API_KEY is not set" in rows["anthropic"]
    assert rows["scripted"].split()[2:4] == ["READ", "healthy"]
    assert sorted(rows) == list(rows)


def test_a_provider_that_crashes_is_one_line_of_the_list(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is anybody's code; the others are listed all the same."""

    def crash() -> None:
        raise RuntimeError("oops")

    monkeypatch.setitem(registry._registered, "crashing", crash)
    lines = shoal("provider", "list").out.splitlines()
    assert any(line.startswith("crashing") and "RuntimeError: oops" in line for line in lines)
    assert any(line.startswith("scripted") for line in lines)


def test_list_without_a_check_asks_nobody(shoal: Shoal, model_server: NamingServer) -> None:
    """And marks the default provider."""
    use(shoal, model_server)
    shoal("settings", "set", "llm.default_provider", "anthropic")
    listed = [json.loads(line) for line in shoal("provider", "list", "--no-check", "--json").out.splitlines()]
    assert [entry["name"] for entry in listed if entry["is_default"]] == ["anthropic"]
    assert all("status" not in entry for entry in listed)
    assert model_server.calls == []


def test_show_tells_who_uses_it(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One provider's facts, with the agents that would call it."""
    monkeypatch.setenv("AGENT_MODEL", "claude-any")
    shown = shoal("provider", "show", "anthropic", "--json")
    facts = json.loads(shown.out)
    assert (facts["kind"], facts["permission"], facts["status"]) == ("built-in", "READ", "unhealthy")
    assert facts["details"]["agents"] == "(default)"
    assert "built-in" in shoal("provider", "show", "anthropic").out


def test_get_is_another_name_of_show(shoal: Shoal) -> None:
    """For who is used to it elsewhere; with the same options and the same errors."""
    shown, got = (json.loads(shoal("provider", name, "scripted", "--json").out) for name in ("show", "get"))
    assert got == shown
    assert shoal("provider", "get", "nobody")[::2] == shoal("provider", "show", "nobody")[::2]
    assert got["name"] == "scripted"


def test_config_says_where_each_value_comes_from(shoal: Shoal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live before environment before default; secrets are masked in each of them."""

    class Full(Configurable):
        name = "full"
        params = (
            ConfigParam(key="api_key", description="key; else FULL_API_KEY", secret=True, required=True),
            ConfigParam(key="base_url", description="address"),
            ConfigParam(key="retries", type="int", default="3"),
            ConfigParam(key="account", required=True),
        )

    providers.register("full", Full)  # type: ignore[arg-type]  # it need not speak
    monkeypatch.setenv("FULL_API_KEY", "sk-environment")
    shoal("provider", "config-set", "full", "base_url", "http://a")
    rows = {row["key"]: row for row in map(json.loads, shoal("provider", "config", "full", "--json").out.splitlines())}
    assert (rows["api_key"]["value"], rows["api_key"]["source"]) == ("****", "environment (FULL_API_KEY)")
    assert (rows["base_url"]["value"], rows["base_url"]["source"]) == ("http://a", "live")
    assert (rows["retries"]["value"], rows["retries"]["source"]) == ("3", "default")
    assert (rows["account"]["value"], rows["account"]["problem"]) == ("", "is required")
    shoal("provider", "config-set", "full", "api_key", "env:NOWHERE")
    outcome = shoal("provider", "config", "full")
    assert "sk-environment" not in outcome.out
    assert "NOWHERE is not set in this process" in outcome.out
    assert outcome.out.splitlines()[0].split()[:6] == ["KEY", "TYPE", "REQUIRED", "SECRET", "VALUE", "SOURCE"]


def test_config_set_refuses_what_the_provider_does_not_know(shoal: Shoal) -> None:
    """Exit code 2 and the names that there are; an unknown provider likewise."""
    outcome = shoal("provider", "config-set", "anthropic", "colour", "red")
    assert outcome.code == 2
    assert "it has: api_key, base_url" in outcome.err
    assert shoal("provider", "config-set", "nobody", "colour", "red").code == 2
    for command in ("config", "show", "health", "test"):
        unknown = shoal("provider", command, "nobody")
        assert unknown.code != 0
        assert "no provider 'nobody' is registered; there are: " in unknown.err


def test_health_makes_a_real_call(shoal: Shoal, model_server: NamingServer) -> None:
    """With the live address and key; exit code 1 if it fails."""
    assert shoal("provider", "health", "anthropic").code == 1
    use(shoal, model_server)
    outcome = shoal("provider", "health", "anthropic")
    assert model_server.keys == ["sk-live"]
    assert "sk-live" not in outcome.out + outcome.err


def test_doctor_asks_with_the_live_settings(
    shoal: Shoal, model_server: NamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker would: with the live key and address, and the default provider."""
    monkeypatch.setenv("AGENT_MODEL", "some-model")
    monkeypatch.setenv("AGENT_SYSTEM_PROMPT", "Be brief.")
    shoal("settings", "set", "llm.default_provider", "anthropic")
    assert "ANTHROPIC_API_KEY is not set" in shoal("doctor").out
    use(shoal, model_server)
    shoal("doctor")
    assert set(model_server.keys) == {"sk-live"}


def test_test_sends_one_prompt_and_shows_what_it_used(shoal: Shoal, model_server: NamingServer) -> None:
    """Text, tokens and time; in JSON too."""
    use(shoal, model_server)
    assert "give --model" in shoal("provider", "test", "anthropic").err
    outcome = shoal("provider", "test", "anthropic", "--model", "claude-any")
    assert outcome.code == 0
    assert outcome.out.startswith("pong\n")
    assert "claude-any: 3 in, 2 out" in outcome.out
    shoal("provider", "config-set", "anthropic", "model", "claude-other")
    plain = json.loads(shoal("provider", "test", "anthropic", "--json").out)
    assert (plain["ok"], plain["output"], plain["model"]) == (True, "pong", "claude-other")
    assert plain["usage"] == {"input_tokens": 3, "output_tokens": 2}
    assert [call["model"] for call in model_server.calls] == ["claude-any", "claude-other"]


def test_a_failing_test_says_why(shoal: Shoal) -> None:
    """Exit code 1."""
    outcome = shoal("provider", "test", "anthropic", "--model", "claude-any")
    assert outcome.code == 1
    assert "ANTHROPIC_API_KEY is not set" in outcome.err


@pytest.fixture
def remote_provider(with_backend: WithBackend) -> Iterator[subprocess.Popen[str]]:
    """A provider in a process of its own, registered as `my_llm`."""
    code = "import providers.remote; from providers.scripted import ScriptedProvider; "
    code += "providers.remote.serve(ScriptedProvider(), name='my_llm', version='2.1.0')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        try:
            assert program.stdout is not None
            port = program.stdout.readline().strip().partition("=")[2]
            instance = RemoteInstance(
                name="my_llm",
                instance_id="i1",
                address=f"127.0.0.1:{port}",
                dialect=Dialect.PYTHON,
                plugin_type=PROVIDER,
                version="2.1.0",
                permission=READ,
                is_shoal=True,
                params=(ConfigParam(key="colour"),),
            )

            async def register(backend: Backend) -> None:
                await Registry(backend.state).add(instance)

            with_backend(register)
            yield program
        finally:
            program.kill()


def test_remote_providers_are_providers_like_others(
    shoal: Shoal, remote_provider: subprocess.Popen[str], with_backend: WithBackend
) -> None:
    """Listed, shown, checked, configured and tried, wherever they run; one that has gone is known all the same."""
    rows = {line.split()[0]: line.split() for line in shoal("provider", "list").out.splitlines()}
    assert rows["my_llm"][1:5] == ["2.1.0", "READ", "healthy", "remote"]
    assert "127.0.0.1:" in shoal("provider", "show", "my_llm").out
    assert shoal("settings", "set", "llm.default_provider", "my_llm").code == 0
    assert shoal("provider", "config-set", "my_llm", "colour", "red").code == 0
    assert json.loads(shoal("provider", "config", "my_llm", "--json").out)["value"] == "red"
    assert shoal("provider", "health", "my_llm").code == 0
    tried = shoal("provider", "test", "my_llm", "--model", "m")
    assert (tried.code, tried.out.splitlines()[0]) == (0, "mock response")
    remote_provider.kill()
    remote_provider.wait(LIMIT_S)
    assert shoal("provider", "health", "my_llm").code == 1

    async def forget(backend: Backend) -> None:
        assert await Registry(backend.state).remove("my_llm", "i1")

    with_backend(forget)
    assert "none is registered at present" in shoal("provider", "show", "my_llm").out
