"""Plugins that the settings name instead of registering themselves (`plugins.external`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from providers.remote.addresses import parse_address
from providers.remote.dialect import Dialect
from providers.remote.instances import Source
from queue_backends import QueueError
from worker.engine.admission import Applicant, NotAdmitted, admitted
from worker.engine.options import EngineOptions
from worker.engine.plugin_config import seed_quietly
from worker.live_settings import LiveSettings
from worker.remote_providers.directory import RemoteDirectory
from worker.settings.plugins import ExternalPlugin

FIRST_DELAY_S = 2.0
LONGEST_DELAY_S = 30.0

log = structlog.get_logger(__name__)


class ExternalPlugins:
    """Keeps them registered, for as long as `run` runs, whenever nobody of that name has registered by itself."""

    def __init__(
        self,
        plugins: Sequence[ExternalPlugin],
        directory: RemoteDirectory,
        live: LiveSettings,
        options: EngineOptions,
    ) -> None:
        self._plugins = plugins
        self._directory = directory
        self._live = live
        self._options = options

    async def run(self) -> None:
        """Endless; ends by cancellation, and takes them off then."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for plugin in self._plugins:
                    tasks.create_task(self._keep(plugin), name=f"external plugin {plugin.name}")
        finally:
            await self._take_off()

    async def _keep(self, plugin: ExternalPlugin) -> None:
        changed = asyncio.Event()
        forget = self._directory.on_change(changed.set)
        delay_s = FIRST_DELAY_S
        try:
            while True:
                changed.clear()
                if await self._is_there(plugin):
                    delay_s = FIRST_DELAY_S
                    await self._change(changed, self._options.heartbeat_s)
                elif await self._try(plugin):
                    await self._change(changed, FIRST_DELAY_S)  # until the mirror shows what was just written
                else:
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        finally:
            forget()

    async def _is_there(self, plugin: ExternalPlugin) -> bool:
        """Whether it has registered by itself, or is registered by us as the settings say; then we beat for it."""
        registry = self._directory.registry
        present = self._directory.instances(plugin.name)
        with contextlib.suppress(QueueError):
            if any(each.source is Source.SELF for each in present):
                if any(each.instance_id == _id_of(plugin) for each in present):
                    await registry.remove(plugin.name, _id_of(plugin))
            elif not any(each.address == _address_of(plugin) for each in present):
                return False
            else:
                await registry.beat(_id_of(plugin), self._options.lost_after_s)
        return True

    async def _change(self, changed: asyncio.Event, most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await changed.wait()

    async def _try(self, plugin: ExternalPlugin) -> bool:
        who = Applicant(
            name=plugin.name,
            addresses=[_address_of(plugin)],
            instance_id=_id_of(plugin),
            dialect=Dialect.PYTHON,  # a Go plugin does not understand that, and is asked in its own way then
            source=Source.EXTERNAL,
        )
        try:
            instance = await admitted(who, self._options.channel, self._options.shadow)
            await self._directory.registry.add(instance, beat_ttl_s=self._options.lost_after_s)
        except (NotAdmitted, QueueError) as error:
            log.warning("an external plugin is not there yet", plugin=plugin.name, reason=str(error))
            return False
        await seed_quietly(self._live, instance)
        log.info("an external plugin is registered", plugin=plugin.name, address=instance.address)
        return True

    async def _take_off(self) -> None:
        with contextlib.suppress(QueueError, TimeoutError):
            async with asyncio.timeout(2):
                for plugin in self._plugins:
                    await self._directory.registry.remove(plugin.name, _id_of(plugin))


def _address_of(plugin: ExternalPlugin) -> str:
    return str(parse_address(plugin.addr))


def _id_of(plugin: ExternalPlugin) -> str:
    return f"external-{plugin.name}"
