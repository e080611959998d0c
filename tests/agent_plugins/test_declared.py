"""Plugins that were declared over an API: a program, what it is started with, and what it may not be replaced by."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from queue_backends import Backend
from queue_backends.messages import JsonObject
from tests.agent_plugins.asking import answered
from tests.agent_plugins.conftest import PluginFleet
from worker.agent_plugins import runner
from worker.agent_plugins.declared import DeclaredPlugin
from worker.agent_plugins.errors import BadPlugin
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.registry import AgentPlugins
from worker.agent_plugins.request import AgentRequest
from worker.definitions import Definitions
from worker.objects import BadObject


class Saying:
    """Runs nothing, and says what it would have been started with."""

    problem = ""

    def __init__(self, package: PluginPackage) -> None:
        self.command = package.manifest.command

    async def initialize(self, config: JsonObject, kv: object, log: object) -> None:
        self.config = config

    async def session_ready(self, session: object) -> None: ...

    async def handle_message(self, request: AgentRequest, stream: Any, services: object) -> None:
        await stream.content(f"{self.command} {self.config} {request.config}")

    async def session_closing(self, session: object) -> None: ...

    async def shutdown(self) -> None: ...


@pytest.fixture(autouse=True)
def saying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are run by `Saying`."""
    monkeypatch.setitem(runner._registered, "go-plugin", Saying)


async def test_a_declared_program_answers_with_its_config(
    backend: Backend, plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given a declared program with a checksum and a config, then its agents run on it, their own config on top; when
    the program is another one than was declared, or it is switched off, they fail and the error says why."""
    (plugins_dir / "bin").mkdir()
    (program := plugins_dir / "bin" / "agent").write_bytes(b"#!/bin/true\n")
    checksum = hashlib.sha256(program.read_bytes()).hexdigest()
    async with Definitions(backend.state) as declared:
        plugin = DeclaredPlugin(slug="pear", command="bin/agent", checksum=checksum, config={"a": 1, "b": 1})
        await declared.plugins.create(plugin)
        settings = {"max_retries": 0}
        async with plugin_fleet(agent={"plugin": "pear", "config": {"b": 2}}, settings=settings) as fleet:
            good, _ = await answered(fleet)
            await declared.plugins.update(replace(plugin, checksum="0" * 64))
            other, _ = await answered(fleet)
            while "SHA-256" not in other.error:  # the worker hears of the change by the state store's watch
                other, _ = await answered(fleet)
    assert good.output == "bin/agent {'a': 1, 'b': 2} {'a': 1, 'b': 2}"
    assert f"has the SHA-256 {checksum}, declared was 0000" in other.error


async def test_a_declared_plugin_that_is_switched_off(backend: Backend) -> None:
    """It is no plugin that an agent may be configured for."""
    async with Definitions(backend.state) as declared:
        await declared.plugins.create(DeclaredPlugin(slug="pear", command="agent", is_active=False))
        plugins = AgentPlugins(declared=declared.plugins)
        with pytest.raises(BadPlugin, match="plugin is not active"):
            plugins.check_config("pear", {})
        assert list(plugins.all()) == []


@pytest.mark.parametrize("command", ["", "/bin/sh", "../sh", "a/../../sh", "a\nb"])
async def test_programs_outside_of_the_folder_are_refused(backend: Backend, command: str) -> None:
    """Whoever may declare plugins may not run what else is on the workers' machines."""
    async with Definitions(backend.state) as declared:
        with pytest.raises(BadObject, match="within the folder"):
            await declared.plugins.create(DeclaredPlugin(slug="pear", command=command))
