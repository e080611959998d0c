"""The clients of one provider's instances: made when first used, closed when their instance is gone and idle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from providers.errors import Unavailable
from providers.remote.addresses import parse_address
from providers.remote.channel import ChannelOptions
from providers.remote.client import PluginClient
from providers.remote.dialect import Dialect
from providers.remote.instances import RemoteInstance
from providers.remote.tenants import may_meet

Instances = Callable[[], Sequence[RemoteInstance]]
"""The instances that are registered at this moment."""


_Key = tuple[str, str, Dialect]


def _key(instance: RemoteInstance) -> _Key:
    return instance.instance_id, instance.address, instance.dialect


class _Line:
    """A client, and how many calls it has."""

    __slots__ = ("calls", "client", "is_gone")

    def __init__(self, client: PluginClient) -> None:
        self.client = client
        self.calls = 0
        self.is_gone = False


class InstanceClients:
    """Chooses among the instances of `name`, and keeps a connection to each that is used."""

    def __init__(self, name: str, instances: Instances, options: ChannelOptions | None = None) -> None:
        self._name = name
        self._instances = instances
        self._options = options
        self._lines: dict[_Key, _Line] = {}
        self._turn = 0

    def all(self) -> Sequence[RemoteInstance]:
        """All instances, the unhealthy ones included."""
        return self._instances()

    def pick(self, tenant_id: str, avoid: Collection[str] = ()) -> RemoteInstance:
        """The healthy instance with the fewest calls from here, rather none of `avoid`.

        Raises `Unavailable` that says why there is none.
        """
        found = self._found(tenant_id)
        healthy = [each for each in found if each.healthy]
        if not healthy:
            raise Unavailable(self._why_none(found), provider=self._name)
        fresh = [each for each in healthy if each.instance_id not in avoid] or healthy
        self._turn += 1
        return min(
            (fresh[(self._turn + offset) % len(fresh)] for offset in range(len(fresh))), key=self._calls_of
        )  # the first of several equals: they take turns

    def why_away(self, tenant_id: str) -> str:
        """Why no instance can be picked, if that may pass; empty if one can, or if all are other tenants' alone."""
        found = self._found(tenant_id)
        if any(each.healthy for each in found) or (self._instances() and not found):
            return ""
        return self._why_none(found)

    def _found(self, tenant_id: str) -> Sequence[RemoteInstance]:
        return [each for each in self._instances() if may_meet(each.tenant_id, tenant_id)]

    def _why_none(self, found: Sequence[RemoteInstance]) -> str:
        if not found:
            whose = " for this tenant" if self._instances() else ""
            return f"{self._name}: no process of this remote provider is registered{whose} at present"
        said = next((each.health_message for each in found if each.health_message), "")
        return f"{self._name}: unhealthy" + (f": {said}" if said else "")

    def _calls_of(self, instance: RemoteInstance) -> int:
        line = self._lines.get(_key(instance))
        return line.calls if line else 0

    @asynccontextmanager
    async def to(self, instance: RemoteInstance) -> AsyncIterator[PluginClient]:
        """A client of the instance, for one call."""
        await self._drop_gone()
        key = _key(instance)
        line = self._lines.get(key)
        if line is None:
            address = parse_address(instance.address)
            line = self._lines[key] = _Line(PluginClient(address, instance.dialect, self._options))
        line.calls += 1
        try:
            yield line.client
        finally:
            line.calls -= 1
            if line.is_gone and not line.calls:
                await line.client.aclose()

    async def _drop_gone(self) -> None:
        present = {_key(each) for each in self._instances()}
        for key in [key for key in self._lines if key not in present]:
            line = self._lines.pop(key)
            line.is_gone = True
            if not line.calls:
                await line.client.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        lines, self._lines = self._lines, {}
        for line in lines.values():
            await line.client.aclose()
