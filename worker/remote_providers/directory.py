"""One process' mirror of the registered plugins, which follows every change well within a second."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, cast

import structlog

from providers.remote.instances import RemoteInstance
from providers.remote.wire import PROVIDER
from queue_backends import QueueError, StateChange, StateStore
from worker.remote_providers.registry import HELLO, PREFIX, KnownPlugin, Registry

RESCAN_S = 60.0
"""So often everything is read anew: for what has run out by itself, of which no watch tells."""
FIRST_LOOK_S = 10.0
_RETRY_S = 0.5
_HELLO_TTL_S = 60.0
_HELLO_AGAIN_S = (0.05, 0.2, 0.5, 1.0)

log = structlog.get_logger(__name__)


class RemoteDirectory:
    """Who is registered. Entered (`async with`), it holds all of it; while the store is away, what it knew last."""

    def __init__(self, state: StateStore) -> None:
        self.registry = Registry(state)
        self.revision = 0
        """Counts the changes."""
        self._state = state
        self._by_name: dict[str, tuple[RemoteInstance, ...]] = {}
        self._known: dict[str, KnownPlugin] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._loaded = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._has_complained = False

    def instances(self, name: str) -> Sequence[RemoteInstance]:
        """The processes of one plugin, the oldest first; the same object until something changes."""
        return self._by_name.get(name, ())

    def all(self) -> list[RemoteInstance]:
        """The processes of all plugins, by name and age."""
        return [instance for instances in self._by_name.values() for instance in instances]

    def is_provider(self, name: str) -> bool:
        """Whether a provider of that name is or was registered."""
        known = self._known.get(name)
        return known is not None and known.plugin_type == PROVIDER

    def known(self) -> dict[str, KnownPlugin]:
        """All plugins that are or were registered, by name."""
        return dict(self._known)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change; call what is returned to stop that."""
        self._callbacks.append(callback)

        def forget() -> None:
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)

        return forget

    async def load(self) -> None:
        """Read everything anew. Raises `BackendUnavailable`."""
        known, instances = await self.registry.known(), await self.registry.instances()
        by_name: dict[str, tuple[RemoteInstance, ...]] = {}
        for instance in instances:
            by_name[instance.name] = (*by_name.get(instance.name, ()), instance)
        if by_name == self._by_name and known == self._known:
            return
        # Who has not changed keeps its object: readers compare by identity.
        self._by_name = {
            name: self._by_name[name] if self._by_name.get(name) == found else found for name, found in by_name.items()
        }
        self._known = known
        self.revision += 1
        for callback in tuple(self._callbacks):
            callback()

    async def __aenter__(self) -> Self:
        """Begin to follow. A store that is away for longer than a few seconds is followed as soon as it is back."""
        self._follower = asyncio.create_task(self._follow(), name="remote providers")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_S):
                    await self._loaded.wait()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def loaded(self) -> None:
        """Return when the registry has been read once."""
        await self._loaded.wait()

    async def _stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
            self._follower = None

    async def _follow(self) -> None:
        while True:
            try:
                await self._follow_one_watch()
            except* QueueError as errors:
                if not self._has_complained:
                    self._has_complained = True
                    log.warning(
                        "the remote providers cannot be followed, trying again", error=str(errors.exceptions[0])
                    )
            except* Exception:  # whatever it is, what is known stays and the next try may do better
                log.exception("the remote providers cannot be followed, trying again")
            await asyncio.sleep(_RETRY_S)

    async def _follow_one_watch(self) -> None:
        """Watch first and read then; a change is merely a reason to read, so nothing can come in the wrong order."""
        heard = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._listen(heard), name="remote providers' watch")
            keeping = tasks.create_task(self._keep(heard), name="remote providers' readings")
            await asyncio.wait([listening, keeping], return_when=asyncio.FIRST_COMPLETED)
            listening.cancel()
            keeping.cancel()

    async def _listen(self, heard: asyncio.Event) -> None:
        # Every store's watch is an async generator, which has to be closed by whoever leaves it early.
        changes = cast("AsyncGenerator[StateChange, None]", self._state.watch(PREFIX))
        async with aclosing(changes):
            async for change in changes:
                heard.set()
                if change.key != HELLO:
                    self._wake.set()

    async def _keep(self, heard: asyncio.Event) -> None:
        await self._until(heard)
        while True:
            self._wake.clear()
            await self.load()
            self._loaded.set()
            self._has_complained = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESCAN_S * random.uniform(0.75, 1.25)):  # noqa: S311 - not all at once
                    await self._wake.wait()

    async def _until(self, heard: asyncio.Event) -> None:
        """Return once the watch has begun, which only a change that arrives can tell."""
        tries = 0
        while not heard.is_set():
            await self._state.set(HELLO, secrets.token_hex(4).encode(), ttl_s=_HELLO_TTL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HELLO_AGAIN_S[min(tries, len(_HELLO_AGAIN_S) - 1)]):
                    await heard.wait()
            tries += 1
