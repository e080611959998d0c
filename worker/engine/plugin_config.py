"""The live settings of remote plugins: seeded with their defaults, read as a whole, pushed when they change."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from providers import ConfigParam, ProviderError
from providers.live_config import REFERENCE, resolved
from providers.remote.client import PluginClient
from providers.remote.faults import CallFailed
from providers.remote.instances import RemoteInstance
from queue_backends import QueueError
from worker.errors import BadSetting
from worker.live_settings import LiveSettings

log = structlog.get_logger(__name__)


def prefix_of(plugin: str) -> str:
    """What the keys of a plugin's settings begin with."""
    return f"plugin.{plugin}."


async def seed(live: LiveSettings, instance: RemoteInstance) -> None:
    """Give each declared setting that has a default and no value its default. Raises `BackendUnavailable`.

    Not so a reference: a plugin must not choose which of the engine's variables it is told.
    """
    prefix = prefix_of(instance.name)
    for param in instance.params:
        is_value = bool(param.default) and not param.default.startswith(REFERENCE)
        if is_value and live.get(prefix + param.key) is None:
            try:
                await live.set(prefix + param.key, param.default)
            except BadSetting as error:
                log.warning(
                    "a plugin's default is no value for its own setting", plugin=instance.name, error=str(error)
                )


def values_for(
    live: LiveSettings, plugin: str, params: Sequence[ConfigParam], *, keeps_references: bool
) -> dict[str, str]:
    """The present values. A Shoal process resolves references (`env:NAME`) itself, where it runs; for others that is
    done here, and a reference to nothing is left out."""
    prefix = prefix_of(plugin)
    declared = {param.key for param in params}
    values: dict[str, str] = {}
    for key, value in live.under(prefix).items():
        name = key.removeprefix(prefix)
        if declared and name not in declared:
            continue
        try:
            values[name] = value if keeps_references else resolved(key, value)
        except ProviderError as error:
            log.warning("a setting of a plugin cannot be resolved", plugin=plugin, error=str(error))
    return values


async def push(client: PluginClient, instance: RemoteInstance, values: dict[str, str]) -> None:
    """Hand values to a process. It may not take them: Python's SDK 1.11.0 never does."""
    if not values:
        return
    try:
        refusal = await client.config_updated(values, version=int(time.time()))
    except CallFailed as failed:
        refusal = str(failed)
    if refusal:
        log.warning("a plugin did not take its settings", plugin=instance.name, address=instance.address, error=refusal)


async def seed_quietly(live: LiveSettings, instance: RemoteInstance) -> None:
    """As `seed`; a store that is away is no reason to turn a plugin down."""
    try:
        await seed(live, instance)
    except QueueError as error:
        log.warning("a plugin's defaults were not stored", plugin=instance.name, error=str(error))
