"""The providers of a worker: one instance of each, made when first needed, and made anew when its live settings change.

A run keeps the instance that it began with: what changes meanwhile is for runs that begin later. The old instance is
closed when its last run has given it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

import providers
from providers import AgentConfig, LiveConfig, LLMProvider, ProviderTimeout
from providers.vertex_address import takes_gemini
from worker.live_settings import LiveSettings
from worker.provider_params import closed
from worker.setting_keys import DEFAULT_PROVIDER, PLUGIN

FALLBACK = "openai"
SETTLE_LIMIT_S = 10.0
"""So long may a new instance take to accept its settings."""
CLOSE_LIMIT_S = 10.0
"""So long may an instance take to close."""

log = structlog.get_logger(__name__)


def own_provider(config: AgentConfig, default: str = FALLBACK) -> str:
    """The registry name of an agent's provider: what it names, else what its model's name tells, else the setting
    `llm.default_provider`, else `openai`, which many servers are compatible with. Gemini's models are Vertex AI's where
    the environment says so."""
    name = config.provider or providers.detect(config.model, default or FALLBACK)
    return "vertex" if name == "gemini" and takes_gemini() else name


class ProvidersInUse:
    """Instances by registry name. With `everywhere`, that one provider serves all agents, whatever they name."""

    __slots__ = (
        "_changes",
        "_closing",
        "_create",
        "_default",
        "_everywhere",
        "_forget",
        "_instances",
        "_live",
        "_retired",
        "_runs",
        "_settings",
        "_settling",
        "unsettled",
    )

    def __init__(
        self,
        live: LiveSettings | None = None,
        *,
        everywhere: str = "",
        create: Callable[[str], LLMProvider] = providers.create,
    ) -> None:
        self._live = live
        self._everywhere = everywhere
        self._create = create
        self._instances: dict[str, LLMProvider] = {}
        self._settings: dict[str, Mapping[str, str]] = {}
        """Name -> the live values that its present instance has."""
        self._runs: dict[int, int] = {}
        """`id` of an instance -> how many runs have it."""
        self._retired: dict[int, LLMProvider] = {}
        """Those that no new run gets, and that some still have."""
        self._closing: set[asyncio.Task[None]] = set()
        self._settling: dict[str, asyncio.Lock] = {}
        self.unsettled: dict[str, int] = {}
        """Names whose next run needs `settle` first, each with a number that tells changes apart."""
        self._changes = 0
        self._forget = live.on_change(self._changed) if live is not None else lambda: None
        for key in live.under(PLUGIN) if live is not None else ():
            self._changed(key, "")
        self._default = (live.get(DEFAULT_PROVIDER) if live is not None else None) or FALLBACK

    # Who runs an agent

    def name_of(self, config: AgentConfig) -> str:
        """The registry name of an agent's provider: the one that serves everywhere, or else its own."""
        return self._everywhere or own_provider(config, self._default)

    def routed(self, config: AgentConfig) -> bool:
        """Whether the agent's route decides. It does not where one provider serves everywhere."""
        return bool(config.route) and not self._everywhere

    def get(self, config: AgentConfig) -> LLMProvider:
        """The present instance for an agent. Raises `UnknownProvider`."""
        name = self.name_of(config)
        instance = self._instances.get(name)
        if instance is None:
            instance = self._instances[name] = self._create(name)
        return instance

    def take(self, config: AgentConfig) -> LLMProvider:
        """The present instance, which stays open until it is given back. Raises `UnknownProvider`.

        If there is anything in `unsettled`, await `settle` first.
        """
        instance = self.get(config)
        key = id(instance)
        self._runs[key] = self._runs.get(key, 0) + 1
        return instance

    def give_back(self, instance: LLMProvider) -> None:
        """One run has ended that took this instance."""
        key = id(instance)
        left = self._runs.get(key, 0) - 1
        if left > 0:
            self._runs[key] = left
            return
        self._runs.pop(key, None)
        if retired := self._retired.pop(key, None):
            self._close_soon(retired)

    @asynccontextmanager
    async def lease(self, config: AgentConfig) -> AsyncIterator[LLMProvider]:
        """The instance with the settings of now, for the length of a block. Raises `UnknownProvider`."""
        if self.unsettled:
            await self.settle(config)
        instance = self.take(config)
        try:
            yield instance
        finally:
            self.give_back(instance)

    # What changes

    def _changed(self, key: str, value: str | None) -> None:
        if key == DEFAULT_PROVIDER:
            self._default = value or FALLBACK
        elif key.startswith(PLUGIN):
            self._changes += 1
            self.unsettled[key.removeprefix(PLUGIN).partition(".")[0]] = self._changes

    async def settle(self, config: AgentConfig) -> None:
        """Let the agent's provider have its live settings, in a new instance if an old one has others.

        A provider that does not take them goes on with what it had; one that had nothing yet raises its
        `ProviderError`. Raises `UnknownProvider`.
        """
        name = self.name_of(config)
        if name not in self.unsettled:
            return
        async with self._settling.setdefault(name, asyncio.Lock()):
            while (change := self.unsettled.get(name)) is not None:
                await self._renew(name)
                if self.unsettled.get(name) == change:
                    del self.unsettled[name]

    async def _renew(self, name: str) -> None:
        values = self._values(name)
        before = self._instances.get(name)
        if before is not None and self._settings.get(name, {}) == values:
            return
        instance = self._create(name)
        try:
            await _configure(name, instance, values)
        except BaseException as error:
            await _close(instance)
            if before is None or not isinstance(error, Exception):
                raise
            log.exception("a provider does not take its settings, it goes on with the old ones", provider=name)
            return
        before = self._instances.get(name)  # somebody may have made one without waiting for its settings
        self._instances[name], self._settings[name] = instance, values
        if before is not None:
            self._retire(before)
            log.info("provider has new settings", provider=name, settings=sorted(values))

    def _values(self, name: str) -> Mapping[str, str]:
        prefix = f"{PLUGIN}{name}."
        found = self._live.under(prefix) if self._live is not None else {}
        return {key.removeprefix(prefix): value for key, value in found.items()}

    def _retire(self, instance: LLMProvider) -> None:
        if id(instance) in self._runs:
            self._retired[id(instance)] = instance
        else:
            self._close_soon(instance)

    # The end

    def _close_soon(self, instance: LLMProvider) -> None:
        closing = asyncio.create_task(_close(instance), name=f"closing provider {instance.name}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all that have something to close."""
        self._forget()
        instances = [*self._instances.values(), *self._retired.values()]
        self._instances, self._retired, self._settings = {}, {}, {}
        if self._closing:
            await asyncio.wait(self._closing)
        for instance in instances:
            await _close(instance)


async def _configure(name: str, instance: LLMProvider, values: Mapping[str, str]) -> None:
    """Raises `ProviderTimeout`, or what the provider raises. What it does not know (any more) is left out."""
    if not values:
        return
    if not isinstance(instance, LiveConfig):
        log.warning("a provider has live settings and takes none", provider=name, settings=sorted(values))
        return
    known = {param.key for param in instance.describe()}
    if unknown := sorted(set(values) - known):
        log.warning("a provider does not know all of its live settings", provider=name, settings=unknown)
    try:
        async with asyncio.timeout(SETTLE_LIMIT_S):
            await instance.config_updated({key: value for key, value in values.items() if key in known})
    except TimeoutError as error:
        raise ProviderTimeout(f"{name} did not take its settings within {SETTLE_LIMIT_S:g} s") from error


async def _close(instance: LLMProvider) -> None:
    try:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await closed(instance)
    except TimeoutError:
        log.warning("a provider did not close in time", provider=instance.name, limit_s=CLOSE_LIMIT_S)
    except Exception:  # it is anybody's code, and there is nothing left to do with it
        log.exception("a provider could not be closed", provider=instance.name)
