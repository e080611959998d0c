"""Looks after the registered plugins: is each one well, does it still beat, does it have its settings.

One engine of the fleet does so at a time (`worker.engine.lease`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import structlog
from msgspec.structs import replace

from providers.interfaces import Health
from providers.remote.addresses import parse_address
from providers.remote.client import PluginClient
from providers.remote.faults import CallFailed
from providers.remote.instances import RemoteInstance
from queue_backends import QueueError
from worker.engine.options import EngineOptions
from worker.engine.plugin_config import prefix_of, push, values_for
from worker.live_settings import LiveSettings
from worker.remote_providers.directory import RemoteDirectory
from worker.teams.notify.degradation import Degradation, OnDegraded

FAILURES_UNTIL_UNHEALTHY = 2
"""Calls that did not get through; a plugin that says itself that it is not well is believed at once."""
_SECOND_LOOK_S = 2.0
_REFRESH_S = 6 * 3600.0
_LONGEST_REASON = 1000
_TOGETHER_S = 0.05
"""Settings that change within this time are pushed together."""

log = structlog.get_logger(__name__)

_Key = tuple[str, str, str, float]


class _Care:
    """What there is to know while a process is looked after."""

    __slots__ = ("look_now", "pushing")

    def __init__(self) -> None:
        self.look_now = asyncio.Event()
        """Set when there is a reason to check it before its time."""
        self.pushing = asyncio.Lock()
        """Held while it is handed settings: what is handed later is newer."""


class Keeper:
    """Runs one task per registered process."""

    def __init__(
        self, directory: RemoteDirectory, live: LiveSettings, options: EngineOptions, on_degraded: OnDegraded
    ) -> None:
        """`on_degraded` hears of plugins that no process is well of."""
        self._on_degraded = on_degraded
        self._directory = directory
        self._live = live
        self._options = options
        self._changed: dict[str, dict[str, str]] = {}
        self._news = asyncio.Event()
        self._cares: dict[_Key, _Care] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Endless; ends by cancellation."""
        forget = [self._directory.on_change(self._wake.set), self._live.on_change(self._setting_changed)]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._push_changes(tasks), name="settings of plugins")
                tasks.create_task(self._follow(tasks), name="registered plugins")
        finally:
            for each in forget:
                each()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to look after those that are new, and stop with those that are gone or have moved."""
        cared_for: dict[_Key, asyncio.Task[None]] = {}
        while True:
            self._wake.clear()
            present = {_key(each): each for each in self._directory.all()}
            for key in [key for key in cared_for if key not in present]:
                cared_for.pop(key).cancel()
            for key, instance in present.items():
                if key not in cared_for:
                    cared_for[key] = tasks.create_task(self._look_after(instance), name=f"care of {instance.name}")
            await self._wake.wait()

    async def _look_after(self, instance: RemoteInstance) -> None:
        """Until it is taken off. Whatever goes wrong with one must not end the care of the others."""
        while True:
            try:
                await self._cared_for(instance)
            except Exception:  # it is anybody's program
                log.exception("the care of a plugin has failed and is begun anew", plugin=instance.name)
                await asyncio.sleep(max(_SECOND_LOOK_S, self._options.health_interval_s))
            else:
                return

    async def _cared_for(self, instance: RemoteInstance) -> None:
        client = PluginClient(parse_address(instance.address), instance.dialect, self._options.channel)
        care = self._cares[_key(instance)] = _Care()
        try:
            await self._push_all(client, instance, care)
            await self._watch(client, instance, care)
        finally:
            self._cares.pop(_key(instance), None)
            await client.aclose()

    async def _watch(self, client: PluginClient, instance: RemoteInstance, care: _Care) -> None:
        failures, began = 0, time.monotonic()
        refreshed = began
        was_healthy: bool | None = None
        while True:
            care.look_now.clear()
            found = await self._health_of(client)
            failures = 0 if found is not None else failures + 1
            told = None if found is None and failures < FAILURES_UNTIL_UNHEALTHY else found or _out_of_reach(client)
            now = time.monotonic()
            try:
                if told is not None:
                    await self._take_down(instance, told, refresh=now - refreshed > _REFRESH_S)
                    refreshed = now if now - refreshed > _REFRESH_S else refreshed
                if await self._is_lost(instance, now - began):
                    return
            except QueueError as error:
                log.warning("the health of a plugin could not be stored", plugin=instance.name, error=str(error))
            if told is not None:
                if told.healthy and was_healthy is False:
                    await self._push_all(client, instance, care)  # it may have been restarted on the same address
                was_healthy = told.healthy
            pause_s = self._options.health_interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause_s, _SECOND_LOOK_S) if told is None else pause_s):
                    await care.look_now.wait()

    async def _health_of(self, client: PluginClient) -> Health | None:
        """What the plugin says; None if it cannot be asked."""
        try:
            return await client.health()
        except CallFailed as failed:
            log.debug("a health check failed", address=str(client.address), error=str(failed))
            return None

    async def _take_down(self, instance: RemoteInstance, told: Health, *, refresh: bool) -> None:
        """Store a change of its health, or everything anew once in a while, so that it does not expire."""
        message = "" if told.healthy else told.message[:_LONGEST_REASON] or "its health check fails"
        known = next((each for each in self._directory.instances(instance.name) if _key(each) == _key(instance)), None)
        if known is None or (known.healthy == told.healthy and known.health_message == message and not refresh):
            return

        def change(present: RemoteInstance) -> RemoteInstance:
            return replace(present, healthy=told.healthy, health_message=message, health_at=time.time())

        await self._directory.registry.change(instance.name, instance.instance_id, change)
        if known.healthy != told.healthy:
            say = log.info if told.healthy else log.warning
            how = "a plugin is well again" if told.healthy else "a plugin is not well: it gets no calls"
            say(how, plugin=instance.name, address=instance.address, reason=message)
            if not told.healthy:
                await self._tell_of_the_last(instance, message)

    async def _tell_of_the_last(self, instance: RemoteInstance, reason: str) -> None:
        """As long as another process of the plugin is well, nobody misses this one."""
        others = [each for each in self._directory.instances(instance.name) if _key(each) != _key(instance)]
        if not any(each.healthy for each in others):
            await self._on_degraded(Degradation(agent=instance.name, cause="the plugin", reason=reason))

    async def _is_lost(self, instance: RemoteInstance, kept_for_s: float) -> bool:
        """Take it off if it has not beaten for too long; those who took over the duty give it time to do so."""
        if kept_for_s < self._options.lost_after_s:
            return False
        registry = self._directory.registry
        if await registry.beats(instance.instance_id):
            return False
        await registry.remove(instance.name, instance.instance_id)
        log.warning("a plugin has not been heard of and is taken off", plugin=instance.name, address=instance.address)
        return True

    # Settings

    def _setting_changed(self, key: str, value: str | None) -> None:
        plugin = next((name for name in self._directory.known() if key.startswith(prefix_of(name))), None)
        if plugin is not None:
            self._changed.setdefault(plugin, {})[key.removeprefix(prefix_of(plugin))] = value or ""
            self._news.set()

    async def _push_changes(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_TOGETHER_S)
            self._news.clear()
            changed, self._changed = self._changed, {}
            for plugin, values in changed.items():
                for instance in self._directory.instances(plugin):
                    tasks.create_task(self._push_changed(instance, values), name=f"settings of {plugin}")

    async def _push_changed(self, instance: RemoteInstance, changed: Mapping[str, str]) -> None:
        """Hand it what has changed, as it is now. One that is not looked after yet gets everything when that begins."""
        care = self._cares.get(_key(instance))
        if care is None:
            return
        defaults = {param.key: param.default for param in instance.params}
        client = PluginClient(parse_address(instance.address), instance.dialect, self._options.channel)
        try:
            async with care.pushing:
                present = self._values_for(instance)
                chosen = [key for key in changed if not defaults or key in defaults]
                await push(client, instance, {key: present.get(key, defaults.get(key, "")) for key in chosen})
        except Exception:  # as in `_look_after`
            log.exception("a plugin could not be handed its settings", plugin=instance.name)
        finally:
            await client.aclose()
        care.look_now.set()  # new settings are what most often makes a provider ill, or well

    async def _push_all(self, client: PluginClient, instance: RemoteInstance, care: _Care) -> None:
        async with care.pushing:
            await push(client, instance, self._values_for(instance))

    def _values_for(self, instance: RemoteInstance) -> dict[str, str]:
        return values_for(self._live, instance.name, instance.params, keeps_references=instance.is_shoal)


def _key(instance: RemoteInstance) -> _Key:
    return instance.name, instance.instance_id, instance.address, instance.registered_at


def _out_of_reach(client: PluginClient) -> Health:
    return Health(healthy=False, message=f"it cannot be reached at {client.address}")
