"""A whole gateway for tests: a real HTTP server on a free port, a real backend, a worker with the scripted provider."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from providers import AgentConfig, register
from providers.scripted import ScriptedProvider
from queue_backends import open_backend, register_backend
from queue_backends.memory import open_backend as open_memory
from queue_backends.redis import open_backend as open_redis
from worker.assembly import open_worker
from worker.gateway.app import build_app
from worker.gateway.assembly import open_gateway
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.operation import Operation
from worker.gateway.server import HttpServer, serving
from worker.settings import Settings

T = TypeVar("T")

WITHIN_S = 30.0
AGENT = AgentConfig(model="mock", provider="scripted")


def gateway_settings(**changes: Any) -> Settings:
    """Settings of a gateway on a free port, whose agent answers from a script. `gateway={…}` changes that section."""
    section = {"port": 0, "auth": "required", "requests_per_minute": 0, **changes.pop("gateway", {})}
    settings = Settings(**{"agent": AGENT, "retry_base_s": 0.05, "health_port": 0, **changes})
    return msgspec.structs.replace(settings, gateway=msgspec.structs.replace(settings.gateway, **section))


class GatewayServer:
    """A gateway that runs in a thread with an event loop of its own, so that tests of any loop can share it."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        queue_url: str = "memory://",
        with_worker: bool = True,
        operations: Iterable[Operation] | None = None,
    ) -> None:
        self.settings = settings or gateway_settings()
        self.url = ""
        self.gateway: Gateway
        self.http: HttpServer
        self.admin_key = ""
        """A key with all scopes."""
        self._queue_url = queue_url
        self._with_worker = with_worker
        self._operations = operations
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def client(self, key: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client with that key; None: with one that may do everything; empty: with none."""
        chosen = self.admin_key if key is None else key
        headers = {**({"Authorization": f"Bearer {chosen}"} if chosen else {}), **options.pop("headers", {})}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=WITHIN_S, **options)

    def make_key(
        self,
        scopes: Iterable[Scope | str] = (Scope.ADMIN,),
        groups: Iterable[str] = (),
        tenant: str = "",
        app: str = "",
        expires_at: float | None = None,
        *,
        name: str = "test",
        requests_per_minute: int | None = None,
    ) -> str:
        """A new API key: what a client sends."""

        async def make(gateway: Gateway) -> str:
            _, secret = await gateway.keys.create(
                name,
                [Scope(scope) for scope in scopes],
                groups,
                tenant,
                app,
                expires_at,
                requests_per_minute=requests_per_minute,
            )
            return secret

        return self.do(make)

    def do(self, work: Callable[[Gateway], Awaitable[T]]) -> T:
        """Run something with the gateway's parts, in its own event loop."""

        async def run() -> T:
            async with asyncio.timeout(WITHIN_S):
                return await work(self.gateway)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(WITHIN_S + 5)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(WITHIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop in order; does nothing if that was done before."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WITHIN_S)
        if self._thread.is_alive():
            raise RuntimeError("the gateway did not stop")

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            else:
                raise

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        for scheme, opener in (("redis", open_redis), ("memory", open_memory)):
            register_backend(scheme, opener)
        for name in ("mock", "scripted"):
            register(name, ScriptedProvider)
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(await open_backend(self._queue_url, self.settings.backend))
            if self._with_worker:
                await stack.enter_async_context(open_worker(self.settings, backend))
            self.gateway = await stack.enter_async_context(open_gateway(self.settings, backend))
            app = build_app(self.gateway, self._operations)
            server = await stack.enter_async_context(serving(app, self.settings.gateway))
            if self.settings.gateway.auth == "required":
                _, self.admin_key = await self.gateway.keys.create("everything", [Scope.ADMIN])
            self.url, self.http = server.url, server
            self._started.set_result(None)
            await self._stop.wait()
