"""What tests of remote providers share: served providers, and an engine on a store of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from providers import AgentConfig, LLMProvider, register
from providers.remote import serve_async
from providers.scripted import ScriptedProvider
from queue_backends import Backend, open_backend
from worker.engine import Engine, engine_running
from worker.settings.plugins import PluginSettings

LIMIT_S = 30.0

Served = Callable[..., AbstractAsyncContextManager[str]]
Engines = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture(autouse=True)
def _names() -> None:
    """Source trees have no entry points."""
    for name in ("mock", "scripted"):
        register(name, ScriptedProvider)


@pytest.fixture
def served() -> Served:
    """`async with served(provider, name="x", engine=address) as address`: a provider served inside this process."""

    @asynccontextmanager
    async def serving(
        provider: LLMProvider, *, name: str = "", engine: str = "", environ: dict[str, str] | None = None, **more: Any
    ) -> AsyncIterator[str]:
        stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
        around = {"MIRASTACK_ENGINE_ADDR": engine, **(environ or {})}
        work = serve_async(
            provider,
            name=name,
            environ=around,
            stop=stop,
            on_port=port.set_result,
            config=more.get("config") or AgentConfig(model="m1"),
        )
        task = asyncio.create_task(work)
        try:
            async with asyncio.timeout(LIMIT_S):
                await asyncio.wait([port, task], return_when=asyncio.FIRST_COMPLETED)
                yield f"127.0.0.1:{port.result()}" if port.done() else await _failed(task)
        finally:
            stop.set()
            async with asyncio.timeout(LIMIT_S):
                await task

    return serving


async def _failed(task: asyncio.Task[None]) -> str:
    await task
    raise AssertionError("the server ended at once")


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    """A queue, streams and a state of the test's own."""
    async with await open_backend(queue_url) as opened:
        yield opened


@pytest.fixture
def engines(backend: Backend) -> Engines:
    """`async with engines(health_check_interval="1s") as engine`: an engine on that state, with those settings."""

    @asynccontextmanager
    async def running(*, environ: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[Engine]:
        plugins = PluginSettings(**{"grpc_addr": "127.0.0.1:0", **settings})
        async with engine_running(plugins, backend.state, environ=environ or {}) as engine:
            yield engine

    return running


async def until(condition: Callable[[], object], engine: Engine) -> None:
    """Return when the engine's directory has come to show it."""
    changed = asyncio.Event()
    forget = engine.directory.on_change(changed.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        forget()
