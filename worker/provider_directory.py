"""Every provider that a fleet could use: what it is, whether it works, and with which settings."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

import providers
from providers import AgentConfig, ConfigParam, Health, HealthCheck, ProviderError
from providers.live_config import REFERENCE
from providers.registry import ENTRY_POINTS
from providers.remote.instances import RemoteInstance
from providers.remote.wire import PERMISSIONS
from queue_backends import StateStore
from worker.live_settings import LiveSettings
from worker.provider_params import known_providers, params_of
from worker.providers_in_use import ProvidersInUse, own_provider
from worker.remote_providers import RemoteDirectory, RemoteProviders
from worker.setting_keys import DEFAULT_PROVIDER, PLUGIN
from worker.settings import Settings
from worker.version import version

HEALTH_LIMIT_S = 6.0
"""A little more than the five seconds that a provider has for its check."""
PERMISSION = "READ"
"""What an in-process provider may do: it answers, and changes nothing by itself."""

_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


class ProviderEntry(Struct, frozen=True, kw_only=True):
    """One provider."""

    name: str
    kind: str = "built-in"
    """`built-in`, `package` (another one's entry point), `python` (registered in this process) or `remote`."""
    version: str = ""
    permission: str = PERMISSION
    is_default: bool = False
    """Whether `llm.default_provider` names it."""
    details: dict[str, str] = {}


class HealthReport(Struct, frozen=True, kw_only=True):
    """What a check found, and how long it took."""

    name: str
    healthy: bool
    message: str = ""
    took_ms: int = 0
    details: dict[str, str] = {}


class ConfigValue(Struct, frozen=True, kw_only=True):
    """One setting of a provider with its present value."""

    param: ConfigParam
    value: str = ""
    source: str = ""
    """`live`, `environment (NAME)`, `default`, or empty if it has no value."""
    problem: str = ""


class ProviderDirectory:
    """What is known of providers, by the settings of this process, the live ones of the fleet, and the registry of
    remote ones, each as it was when it was read."""

    def __init__(self, settings: Settings, live: LiveSettings, state: StateStore, remote: RemoteProviders) -> None:
        self._settings = settings
        self._live = live
        self._state = state
        self._remote = remote

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, settings: Settings, live: LiveSettings, state: StateStore
    ) -> AsyncIterator[ProviderDirectory]:
        """One for the length of a block. Raises `BackendUnavailable`."""
        registered = RemoteDirectory(state)
        await registered.load()
        remote = RemoteProviders(registered, settings.plugins.channel_options(), settings.plugins.shadow)
        try:
            yield cls(settings, live, state, remote)
        finally:
            await remote.aclose()

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[ProvidersInUse]:
        """The providers as a worker would have them, for the length of a block."""
        used = ProvidersInUse(self._live, create=self._remote.create)
        try:
            yield used
        finally:
            await used.close()

    async def names(self) -> list[str]:
        """All of them, sorted."""
        return await known_providers(self._state)

    async def entry(self, name: str) -> ProviderEntry:
        """One of them. Raises `UnknownProvider`."""
        is_default = self._live.get(DEFAULT_PROVIDER) == name
        directory = self._remote.directory
        if directory.is_provider(name) and (directory.instances(name) or name not in providers.available()):
            details = self._details(name) | _places(directory.instances(name))
            return _remote_entry(name, directory.instances(name), is_default=is_default, details=details)
        if name not in providers.available():
            raise await self._unknown(name)
        kind, its_version = _origin(name)
        return ProviderEntry(
            name=name,
            kind=kind,
            version=its_version,
            is_default=is_default,
            details=self._details(name),
        )

    def config_for(self, name: str, model: str = "") -> AgentConfig:
        """The configuration to call a provider with: that of an agent which uses it, else a bare one."""
        agents = [self._settings.agent, *self._settings.agents.values()]
        config = next(
            (agent for agent in agents if agent.model and self._provider_of(agent) == name),
            AgentConfig(model=self._live.get(f"{PLUGIN}{name}.model") or "", provider=name),
        )
        return replace(config, provider=name, model=model or config.model)

    async def health(self, name: str) -> HealthReport:
        """Ask a provider whether it works, for real. Raises `UnknownProvider`; all else is an answer."""
        if name not in await self.names():
            raise await self._unknown(name)
        started_at = time.monotonic()
        try:
            async with asyncio.timeout(HEALTH_LIMIT_S), self.in_use() as used:
                found = await _checked(used, self.config_for(name))
        except TimeoutError:
            found = Health(healthy=False, message=f"no answer within {HEALTH_LIMIT_S:g} s")
        except (ProviderError, ImportError) as error:
            found = Health(healthy=False, message=str(error))
        except Exception as error:  # noqa: BLE001 - it is anybody's code, and one of many in a list
            found = Health(healthy=False, message=f"{type(error).__name__}: {error}")
        took_ms = round((time.monotonic() - started_at) * 1000)
        return HealthReport(
            name=name, healthy=found.healthy, message=found.message, took_ms=took_ms, details=found.details
        )

    async def config(self, name: str, environ: Mapping[str, str] = os.environ) -> list[ConfigValue]:
        """The settings of a provider and their values in the fleet, secrets as they are. Raises `UnknownProvider`.

        Values of the environment are those of this process, which need not be the workers'.
        """
        params = await params_of(self._state, name)
        if params is None:
            raise await self._unknown(name)
        return [self._value(name, param, environ) for param in params]

    def _value(self, name: str, param: ConfigParam, environ: Mapping[str, str]) -> ConfigValue:
        key = f"{PLUGIN}{name}.{param.key}"
        if problem := self._live.unreadable.get(key):
            return ConfigValue(param=param, value="?", source="live", problem=problem)
        if live := self._live.get(key):
            variable = live.removeprefix(REFERENCE)
            is_missing = live.startswith(REFERENCE) and not environ.get(variable)
            problem = f"{variable} is not set in this process" if is_missing else ""
            return ConfigValue(param=param, value=live, source="live", problem=problem)
        for variable in variables_of(param):
            if value := environ.get(variable, "").strip():
                return ConfigValue(param=param, value=value, source=f"environment ({variable})")
        if param.default:
            return ConfigValue(param=param, value=param.default, source="default")
        return ConfigValue(param=param, problem="is required" if param.required else "")

    def _details(self, name: str) -> dict[str, str]:
        default = {"(default)": self._settings.agent} if self._settings.agent.model else {}
        agents = {**default, **self._settings.agents}
        users = [agent for agent, config in agents.items() if self._provider_of(config) == name]
        return {"agents": ", ".join(users)} if users else {}

    def _provider_of(self, config: AgentConfig) -> str:
        return own_provider(config, self._live.get(DEFAULT_PROVIDER) or "")

    async def _unknown(self, name: str) -> ProviderError:
        return providers.UnknownProvider(
            f"no provider {name!r} is registered; there are: {', '.join(await self.names())}"
        )


def variables_of(param: ConfigParam) -> list[str]:
    """The environment variables that count where a setting has no live value: those that its description names."""
    return _VARIABLE.findall(param.description)


async def _checked(used: ProvidersInUse, config: AgentConfig) -> Health:
    async with used.lease(config) as provider:
        if not isinstance(provider, HealthCheck):
            return Health(healthy=True, message="it has no health check")
        return await provider.health_check(config)


def _remote_entry(
    name: str, instances: Sequence[RemoteInstance], *, is_default: bool, details: dict[str, str]
) -> ProviderEntry:
    versions = dict.fromkeys(instance.version for instance in instances if instance.version)
    permissions = dict.fromkeys(PERMISSIONS.get(instance.permission, "") for instance in instances)
    return ProviderEntry(
        name=name,
        kind="remote",
        version=", ".join(versions),
        permission=", ".join(filter(None, permissions)),
        is_default=is_default,
        details=details,
    )


def _places(instances: Sequence[RemoteInstance]) -> dict[str, str]:
    if not instances:
        return {"processes": "none is registered at present"}
    places = [
        f"{instance.address} ({'healthy' if instance.healthy else f'unhealthy: {instance.health_message}'})"
        for instance in instances
    ]
    described = {"description": instances[0].description} if instances[0].description else {}
    return described | {"processes": "\n".join(places)}


def _origin(name: str) -> tuple[str, str]:
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        if point.module.split(".")[0] == "providers":
            return "built-in", version()
        return "package", point.dist.version if point.dist else ""
    return "python", ""
