"""One process' mirror of the registered plugins, which follows every change well within a second."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from providers.remote.instances import RemoteInstance
from providers.remote.wire import PROVIDER
from queue_backends import StateStore
from worker.following import Following
from worker.listeners import Listeners
from worker.remote_providers.registry import HELLO, PREFIX, KnownPlugin, Registry

RESCAN_S = 60.0
"""So often everything is read anew: for what has run out by itself, of which no watch tells."""
FIRST_LOOK_S = 10.0


class RemoteDirectory:
    """Who is registered. Entered (`async with`), it holds all of it; while the store is away, what it knew last."""

    def __init__(self, state: StateStore) -> None:
        self.registry = Registry(state)
        self.revision = 0
        """Counts the changes."""
        self._by_name: dict[str, tuple[RemoteInstance, ...]] = {}
        self._known: dict[str, KnownPlugin] = {}
        self._listeners = Listeners[Callable[[], None]]()
        self._wake = asyncio.Event()
        self._following = Following(
            state, PREFIX, HELLO, what="remote providers", changed=lambda _change: self._wake.set(), keep=self._keep
        )

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
        return self._listeners.add(callback)

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
        for callback in self._listeners:
            callback()

    async def __aenter__(self) -> Self:
        """Begin to follow. A store that is away for longer than a few seconds is followed as soon as it is back."""
        self._following.start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_LOOK_S):
                    await self._following.loaded()
        except BaseException:
            await self._following.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._following.stop()

    async def loaded(self) -> None:
        """Return when the registry has been read once."""
        await self._following.loaded()

    async def _keep(self) -> None:
        """A change is merely a reason to read, so nothing can come in the wrong order."""
        while True:
            self._wake.clear()
            await self.load()
            self._following.has_read()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESCAN_S * random.uniform(0.75, 1.25)):  # noqa: S311 - not all at once
                    await self._wake.wait()
