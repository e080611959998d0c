"""A worker in this process that runs plugins out of a folder, on the memory backend and the scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from queue_backends import Backend, BackendOptions, open_backend
from worker.agents.model import Agent, App, Llm
from worker.assembly import open_worker
from worker.client import Fleet
from worker.definitions import Definitions
from worker.settings import load_settings

LEASE_S = 5.0
"""For both: a worker renews by what its settings say."""

PluginFleet = Callable[..., AbstractAsyncContextManager[Fleet]]


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A memory backend of the test's own."""
    async with await open_backend("memory://", BackendOptions(lease_s=LEASE_S)) as opened:
        yield opened


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    """Where the test's plugins are."""
    (folder := tmp_path / "plugins").mkdir()
    return folder


@pytest.fixture
def plugin_fleet(backend: Backend, plugins_dir: Path) -> PluginFleet:
    """A worker and the agent `bot`: `async with plugin_fleet(script=…, agent={…}, app={…}, settings={…}) as fleet`.

    With `app`, the agent belongs to an app of that form, whose model `main` is the scripted provider.
    """

    @asynccontextmanager
    async def start(
        *,
        script: Any = None,
        agent: dict[str, Any] | None = None,
        app: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> AsyncIterator[Fleet]:
        options = {} if script is None else {"script": script}
        given = {"plugin": "test-agent", **(agent or {})}
        overrides = {
            "agent.model": "scripted",
            "agent.provider": "scripted",
            "agent.options": options,
            "agent_plugins_dir": str(plugins_dir),
            "retry_base_s": 0.0,
            "backend.lease_s": LEASE_S,
            **(settings or {}),
        }
        async with Definitions(backend.state) as declared:
            if app is not None:
                llm = Llm(slug="main", provider="scripted", model="scripted", options=options)
                await declared.llms.create(llm)
                await declared.apps.create(App(**{"slug": "desk", "llms": ("main",), **app}))
                given["app"] = "desk"
            await declared.agents.create(Agent(slug="bot", **given))
        async with open_worker(load_settings({}, file=None, overrides=overrides), backend):
            yield Fleet(backend)

    return start
