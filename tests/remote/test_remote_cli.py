"""The commands about remote providers, and what happens without the gRPC packages."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from providers import ProviderError
from providers.remote import Dialect, RemoteInstance, connect
from providers.remote.wire import PROVIDER
from queue_backends import open_backend
from tests.remote.go_peer import GoServer
from tests.remote.python_peer import PLUGIN_SERVICE
from worker.approvals import PREFIX, Approval
from worker.cli.app import run
from worker.errors import BadSetting
from worker.remote_providers import Registry
from worker.settings import load_settings
from worker.settings.plugins import ExternalPlugin


@pytest.fixture(autouse=True)
def _own_queue(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASK_QUEUE_URL", queue_url)
    monkeypatch.setenv("NO_COLOR", "1")


def store(queue_url: str, *approvals: Approval) -> None:
    """Put questions into the store."""

    async def put() -> None:
        async with await open_backend(queue_url) as backend:
            for each in approvals:
                await backend.state.set(PREFIX + each.id, json.dumps({**_plain(each)}).encode())

    asyncio.run(put())


def _plain(approval: Approval) -> dict[str, object]:
    return {name: getattr(approval, name) for name in approval.__struct_fields__}


def test_questions_are_listed_and_answered(queue_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Open ones only; each can be answered once."""
    now = time.time()
    store(
        queue_url,
        Approval(id="a1", message="Delete all?", permission="ADMIN", asked_at=now, until=now + 600),
        Approval(id="a2", message="Too late", asked_at=now - 20, until=now - 10),
    )
    assert run(["approval", "list"]) == 0
    shown = capsys.readouterr().out
    assert "Delete all?" in shown
    assert "Too late" not in shown
    assert run(["approval", "approve", "a1", "--comment", "go"]) == 0
    assert capsys.readouterr().out == "approved: Delete all?\n"
    assert run(["approval", "reject", "a1"]) == 4
    assert run(["approval", "reject", "a2"]) == 4
    assert run(["approval", "list", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_serve_refuses_what_cannot_work(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the setting, and exit code 2."""
    for arguments, problem in (
        (["--plugins-dir", "/no/such/folder"], "plugins.dir: '/no/such/folder' is no directory"),
        (["--grpc-host", "203.0.113.7"], "plugins.grpc_addr: cannot listen on 203.0.113.7:9090"),
    ):
        assert run(["serve", *arguments]) == 2
        assert problem in capsys.readouterr().err
    monkeypatch.setenv("SHOAL_PLUGINS_TLS_CA", "/no/such/file")
    assert run(["serve"]) != 0
    assert "TLS: /no/such/file cannot be read" in capsys.readouterr().err
    monkeypatch.setenv("SHOAL_PLUGINS_HEALTH_CHECK_INTERVAL", "often")
    assert run(["serve"]) == 2
    assert "'often' is no time span" in capsys.readouterr().err


def test_provider_serve_refuses_what_cannot_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, the variable or the name that is wrong, in one line."""
    for name, value, problem in (
        ("SHOAL_PLUGIN_CA", "/no/such/file", "TLS: /no/such/file cannot be read"),
        ("MIRASTACK_ENGINE_ADDR", "here:there", "invalid MIRASTACK_ENGINE_ADDR: 'here:there' is no address"),
        ("MIRASTACK_PLUGIN_ADDR", "203.0.113.7:80", "MIRASTACK_PLUGIN_ADDR: cannot listen on 203.0.113.7:80"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, value)
            assert run(["provider", "serve", "mock"]) != 0
        assert problem in capsys.readouterr().err
    assert run(["provider", "serve", "mock", "--as", "a b"]) != 0
    assert "'a b' is no name for a plugin" in capsys.readouterr().err


def test_doctor_asks_a_remote_provider(
    queue_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that an agent names and that only the registry knows is checked, too."""
    instance = RemoteInstance(
        name="far", instance_id="i", address="127.0.0.1:1", dialect=Dialect.PYTHON, plugin_type=PROVIDER
    )

    async def put() -> None:
        async with await open_backend(queue_url) as backend:
            await Registry(backend.state).add(instance)

    asyncio.run(put())
    monkeypatch.setenv("AGENT_SYSTEM_PROMPT", "Be brief.")
    monkeypatch.setenv("AGENT_PROVIDER", "far")
    monkeypatch.setenv("AGENT_MODEL", "m")
    assert run(["doctor"]) == 1
    assert "Connection refused" in capsys.readouterr().out


def test_nothing_is_imported_before_it_is_needed() -> None:
    """A worker without remote providers does not pay for gRPC."""
    code = "import worker.assembly, providers, sys; assert not {'grpc', 'grpclib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("dialect", "missing"), [(Dialect.PYTHON, "grpc"), (Dialect.GO, "grpclib.client")])
async def test_missing_packages_are_named(dialect: Dialect, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command that installs them."""
    monkeypatch.setitem(sys.modules, missing, None)
    async with GoServer(PLUGIN_SERVICE, {}) as peer:
        with pytest.raises(ProviderError, match=r"pip install 'shoal\[grpc\]'"):
            await connect(peer.address, dialect)


def test_settings_of_plugins_in_the_file(tmp_path: Path) -> None:
    """MIRASTACK's spelling; paths are relative to the file, and what cannot work is named."""
    file = tmp_path / "shoal.yaml"
    external = "external: [{name: my_llm, addr: 'host:50051'}]"
    file.write_text(f"plugins:\n  dir: ./plugins\n  health_check_interval: 1m\n  {external}\n")
    plugins = load_settings({}, file=file).plugins
    assert Path(plugins.dir) == tmp_path / "plugins"
    assert plugins.health_check_interval_s == 60
    assert plugins.external == (ExternalPlugin(name="my_llm", addr="host:50051"),)
    for wrong, problem in (
        ("external: [{name: x, addr: nowhere}]", "'nowhere' is no address"),
        ("tls_cert: a.pem", "set both, or neither"),
        ("heartbeat_interval: never", "'never' is no time span"),
        ("grpc_addr: here", "'here' is no address to listen on"),
    ):
        file.write_text(f"plugins:\n  {wrong}\n")
        with pytest.raises(BadSetting, match=problem):
            load_settings({}, file=file)
