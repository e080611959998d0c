"""Plugins whose code does what it should not: what becomes of their tasks, and that nobody else pays for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.agent_plugins.asking import LIMIT_S, answered
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.agent_plugins import instances
from worker.agent_plugins.validation import validate
from worker.agents.model import PermissionScope
from worker.definitions import Definitions

ANSWERS = "async def handle_message(self, request, stream):\n    await stream.content('hi')\n"
EXITS = {
    "handle_message": "async def handle_message(self, request, stream):\n    raise SystemExit(3)\n",
    "initialize": f"async def initialize(self, config, services):\n    raise SystemExit(3)\n{ANSWERS}",
    "the constructor": f"def __init__(self):\n    raise SystemExit(3)\n{ANSWERS}",
    "the module": f"raise SystemExit(3)\n{ANSWERS}",
}


@pytest.mark.parametrize("where", EXITS)
async def test_a_plugin_that_exits_does_not_take_the_worker_along(
    plugins_dir: Path, plugin_fleet: PluginFleet, where: str
) -> None:
    """Given `sys.exit()` in a plugin's code, then its task fails with that, and the worker goes on."""
    write_plugin(plugins_dir, EXITS[where])
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        for _ in range(2):
            result, _ = await answered(fleet)
            assert "SystemExit: 3" in result.error


@pytest.mark.parametrize("hook", ["on_session_ready", "on_session_closing"])
async def test_a_session_hook_that_exits(plugins_dir: Path, plugin_fleet: PluginFleet, hook: str) -> None:
    """Given `sys.exit()` in what is only told of sessions, then messages are answered all the same."""
    write_plugin(plugins_dir, f"async def {hook}(self, session):\n    raise SystemExit(3)\n{ANSWERS}")
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet, session_id="s1")
    assert result.output == "hi"


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        (["self.services.execute_tool('nothing')"], "tool not allowed for this agent: 'nothing'"),
        (["fails(1)"], "agent plugin 'test-agent' failed: ValueError: 1"),
        (["fails(1)", "fails(2)"], "agent plugin 'test-agent' failed: ValueError: 1; ValueError: 2"),
    ],
)
async def test_errors_of_a_task_group_are_told(
    plugins_dir: Path, plugin_fleet: PluginFleet, steps: list[str], error: str
) -> None:
    """Given steps in a `TaskGroup`, when one fails, then the task's error is that one's, not that there was a group."""
    begun = "".join(f"            group.create_task({step})\n" for step in steps)
    write_plugin(
        plugins_dir,
        "async def handle_message(self, request, stream):\n"
        "    async def fails(number):\n"
        "        raise ValueError(number)\n"
        "    async with asyncio.TaskGroup() as group:\n"
        "        async with asyncio.TaskGroup() as group:\n" + begun,
    )
    async with plugin_fleet(settings={"max_retries": 0}) as fleet:
        result, _ = await answered(fleet)
    assert result.error == error


async def test_sessions_that_will_not_close_do_not_keep_the_worker(
    plugins_dir: Path, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given many sessions whose closing never ends, when the worker leaves, then all of them together have the time of
    one, and the plugin is shut down."""
    monkeypatch.setattr(instances, "SHUTDOWN_LIMIT_S", 0.05)
    log = plugins_dir / "log"
    write_plugin(
        plugins_dir,
        f"""
        async def on_session_closing(self, session):
            await asyncio.Event().wait()

        async def shutdown(self):
            Path({str(log)!r}).write_text("shut down")

        async def handle_message(self, request, stream):
            await stream.content("hi")
        """,
    )
    async with plugin_fleet() as fleet:
        for number in range(3):
            await answered(fleet, session_id=f"s{number}")
    assert log.read_text() == "shut down"


async def test_a_scope_that_is_taken_back_counts_outside_of_messages_too(
    plugins_dir: Path, plugin_fleet: PluginFleet
) -> None:
    """Given a plugin that keeps values in the background, when its app does not grant that any more, then the next
    message finds an instance that may not."""
    write_plugin(
        plugins_dir,
        """
        async def initialize(self, config, services):
            await super().initialize(config, services)
            try:
                await services.kv.set("at", "start")
                self.may = "yes"
            except Exception as error:
                self.may = str(error)

        async def handle_message(self, request, stream):
            await stream.content(self.may)
        """,
    )
    async with plugin_fleet(app={}) as fleet:
        assert (await answered(fleet))[0].output == "yes"
        async with Definitions(fleet.backend.state) as declared:
            await declared.apps.change("desk", lambda app: replace(app, scopes=(PermissionScope.LLMS_PROXY,)))
        said = ""
        async with asyncio.timeout(LIMIT_S):
            while not said.startswith("insufficient scope: kv.readwrite"):  # until the worker has heard of it
                said = (await answered(fleet))[0].output


def test_methods_that_are_not_async_are_found(tmp_path: Path) -> None:
    """Given a plugin whose method is a plain function, then validation says so, before a message does."""
    folder = write_plugin(tmp_path, "def handle_message(self, request, stream):\n    return None\n")
    _, remarks = validate(folder)
    assert [remark.text for remark in remarks if remark.is_error] == [
        "TestAgent.handle_message is no coroutine: write `async def handle_message`"
    ]
