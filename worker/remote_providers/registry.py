"""The registered plugins, in the `StateStore`: written by engines, read by everybody.

| key                          | value                  | written                                   | lives            |
|------------------------------|------------------------|-------------------------------------------|------------------|
| `remote/i/<name>/<instance>` | `RemoteInstance`, JSON | at registration, and as its health varies | a day, renewed   |
| `remote/n/<name>`            | `KnownPlugin`, JSON    | at registration                           | 90 days, renewed |
| `remote/~hello`              | anything               | by a mirror that begins to watch          | a minute         |
| `remote-beats/<instance>`    | empty                  | at registration, and by heartbeats        | three heartbeats |

Beats lie apart, so that they wake nobody who follows the registry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
from msgspec import Struct

from providers import ConfigParam
from providers.remote.instances import RemoteInstance
from providers.remote.wire import PROVIDER
from queue_backends import StateStore
from queue_backends.messages import encode_json

PREFIX = "remote/"
HELLO = f"{PREFIX}~hello"
_INSTANCES = f"{PREFIX}i/"
_NAMES = f"{PREFIX}n/"
_BEATS = "remote-beats/"
INSTANCE_TTL_S = 24 * 3600.0
NAME_TTL_S = 90 * 24 * 3600.0
_MOST_TRIES = 20


class KnownPlugin(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A plugin that is or was registered: its settings may be set while none of its processes is there."""

    name: str
    plugin_type: int = PROVIDER
    params: tuple[ConfigParam, ...] = ()


_instances = msgspec.json.Decoder(RemoteInstance)
_known = msgspec.json.Decoder(KnownPlugin)


class Registry:
    """Reads and writes it. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self.state = state

    async def instances(self) -> list[RemoteInstance]:
        """All registered processes, by name and age."""
        found = [instance async for instance in self._read()]
        return sorted(found, key=lambda each: (each.name, each.registered_at, each.instance_id))

    async def _read(self) -> AsyncIterator[RemoteInstance]:
        async for _, value in self.state.scan(_INSTANCES):
            if (instance := _decoded(value)) is not None:
                yield instance

    async def instance(self, name: str, instance_id: str) -> RemoteInstance | None:
        """One of them."""
        value = await self.state.get(_key(name, instance_id))
        return _decoded(value) if value else None

    async def add(self, instance: RemoteInstance, *, beat_ttl_s: float | None = None) -> None:
        """Put a process in, or in the place of its former self. With `beat_ttl_s`, it has to beat that often."""
        known = KnownPlugin(name=instance.name, plugin_type=instance.plugin_type, params=instance.params)
        await self.state.set(_NAMES + instance.name, encode_json(known), ttl_s=NAME_TTL_S)
        if beat_ttl_s is not None:
            await self.beat(instance.instance_id, beat_ttl_s)
        await self.state.set(_key(instance.name, instance.instance_id), encode_json(instance), ttl_s=INSTANCE_TTL_S)

    async def change(
        self, name: str, instance_id: str, change: Callable[[RemoteInstance], RemoteInstance]
    ) -> RemoteInstance | None:
        """Change what is known of a process, if it is still registered. Returns what is known now."""
        key = _key(name, instance_id)
        for _ in range(_MOST_TRIES):
            before = await self.state.get(key)
            instance = _decoded(before) if before else None
            if instance is None:
                return None
            after = change(instance)
            if await self.state.compare_and_set(key, before, encode_json(after), ttl_s=INSTANCE_TTL_S):
                return after
        return None

    async def remove(self, name: str, instance_id: str) -> bool:
        """Take a process off; says whether it was there."""
        await self.state.delete(_BEATS + instance_id)
        return await self.state.delete(_key(name, instance_id))

    async def beat(self, instance_id: str, ttl_s: float) -> None:
        """The process lives."""
        await self.state.set(_BEATS + instance_id, b"", ttl_s=ttl_s)

    async def beats(self, instance_id: str) -> bool:
        """Whether the process was heard of lately."""
        return await self.state.get(_BEATS + instance_id) is not None

    async def known(self) -> dict[str, KnownPlugin]:
        """All plugins that are or were registered, by name."""
        found = [_decoded_known(value) async for _, value in self.state.scan(_NAMES)]
        return {each.name: each for each in sorted((each for each in found if each), key=lambda each: each.name)}

    async def known_plugin(self, name: str) -> KnownPlugin | None:
        """One of them."""
        value = await self.state.get(_NAMES + name)
        return _decoded_known(value) if value else None


def _key(name: str, instance_id: str) -> str:
    return f"{_INSTANCES}{name}/{instance_id}"


def _decoded(value: bytes) -> RemoteInstance | None:
    """None for what another version has written in a way that we cannot read."""
    try:
        return _instances.decode(value)
    except msgspec.MsgspecError:
        return None


def _decoded_known(value: bytes) -> KnownPlugin | None:
    try:
        return _known.decode(value)
    except msgspec.MsgspecError:
        return None
