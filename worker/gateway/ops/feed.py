"""One feed of all that changes, for any number of watchers.

The state is a handful of named parts. Every tick computes them once for each audience (everybody who is bound to the
same tenant is one), and numbers those that differ from before. A watcher is sent the newest form of each part that it
has not seen: a slow one skips what was in between, and nothing is kept for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

from msgspec import Struct

from queue_backends.messages import encode_json


class FeedEvent(Struct, frozen=True):
    """The new form of one part."""

    part: str
    data: bytes
    """JSON."""
    revision: int


class _Audience:
    """Those who may see the same."""

    __slots__ = ("changed", "parts", "revision", "watchers")

    def __init__(self) -> None:
        self.parts: dict[str, tuple[int, bytes]] = {}
        self.revision = 0
        self.watchers = 0
        self.changed = asyncio.Event()

    def show(self, parts: Mapping[str, object]) -> None:
        before = self.revision
        for name, value in parts.items():
            data = encode_json(value)
            if name not in self.parts or self.parts[name][1] != data:
                self.revision = before + 1
                self.parts[name] = (self.revision, data)
        if self.revision != before:
            self.changed.set()
            self.changed = asyncio.Event()


class Feed:
    """Holds the parts and wakes the watchers. `wanted` is set while somebody watches."""

    def __init__(self) -> None:
        self._audiences: dict[str, _Audience] = {}
        self.wanted = asyncio.Event()
        self.arrived = asyncio.Event()
        """Set by each newcomer to an audience that was empty: it waits for its first parts."""

    @property
    def audiences(self) -> list[str]:
        """The tenants whose watchers are there; an empty one stands for those who are not bound."""
        return list(self._audiences)

    @property
    def watchers(self) -> int:
        """How many there are."""
        return sum(audience.watchers for audience in self._audiences.values())

    def show(self, tenant: str, parts: Mapping[str, object]) -> None:
        """Tell an audience of these parts, as far as they have changed; others stay as they are."""
        if audience := self._audiences.get(tenant):
            audience.show(parts)

    async def watch(self, tenant: str) -> AsyncGenerator[FeedEvent, None]:
        """All parts, then each that changes. Endless; close it to leave."""
        audience = self._enter(tenant)
        try:
            seen = 0
            while True:
                changed, upto = audience.changed, audience.revision
                for name, (revision, data) in list(audience.parts.items()):
                    if revision > seen:
                        yield FeedEvent(name, data, revision)
                if upto == audience.revision:
                    await changed.wait()
                seen = upto
        finally:
            self._leave(tenant, audience)

    def _enter(self, tenant: str) -> _Audience:
        audience = self._audiences.get(tenant)
        if audience is None:
            audience = self._audiences[tenant] = _Audience()
            self.arrived.set()
        audience.watchers += 1
        self.wanted.set()
        return audience

    def _leave(self, tenant: str, audience: _Audience) -> None:
        audience.watchers -= 1
        if not audience.watchers:
            del self._audiences[tenant]
        if not self._audiences:
            self.wanted.clear()
