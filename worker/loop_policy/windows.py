"""How many tokens the conversation of a model may have."""

from __future__ import annotations

import asyncio
import math
import time

import structlog

from providers import AgentConfig, ModelInfoProvider, ProviderError
from providers.model_facts import known_facts
from worker.providers_in_use import ProvidersInUse

_LIMIT_S = 5.0
_ASK_AGAIN_S = 60.0
"""After a provider that did not say."""
_TABLE = (
    ("gpt-4o", 128_000),
    ("gpt-4-turbo", 128_000),
    ("o1-mini", 128_000),
    ("o1", 200_000),
    ("o3", 200_000),
    ("o4-mini", 200_000),
    ("claude-3", 200_000),
    ("claude-opus-4", 200_000),
    ("claude-sonnet-4", 200_000),
    ("claude-haiku-4", 200_000),
    ("gemini-1.5-pro", 2_000_000),
    ("gemini-1.5-flash", 1_000_000),
    ("gemini-2.0-flash", 1_000_000),
    ("gemini-2.5-pro", 1_000_000),
)
"""How a model's name begins, and its window, where nobody else knows it. The figures are ark's."""

log = structlog.get_logger(__name__)


class Windows:
    """Of the models of a worker, each looked up once; one that nobody knows is looked up again after a minute."""

    def __init__(self, providers: ProvidersInUse) -> None:
        self._providers = providers
        self._known: dict[tuple[str, str, str], tuple[int, float]] = {}
        """The window, and until when that counts, by the monotonic clock."""

    async def of(self, config: AgentConfig) -> int:
        """The window of the configuration's model: as the provider says, else a list of known models, else a table;
        0 if none of them knows."""
        key = (self._providers.name_of(config), config.model, config.base_url)
        found, until = self._known.get(key, (0, 0.0))
        if time.monotonic() < until:
            return found
        if len(self._known) >= 1000:
            self._known.clear()
        found = await self._found(key[0], config)
        self._known[key] = (found, math.inf if found else time.monotonic() + _ASK_AGAIN_S)
        return found

    async def _found(self, provider: str, config: AgentConfig) -> int:
        if told := await self._told(config):
            return told
        if (facts := await known_facts(provider, config.model)) is not None and facts.context_window:
            return facts.context_window
        return max(((len(start), size) for start, size in _TABLE if config.model.startswith(start)), default=(0, 0))[1]

    async def _told(self, config: AgentConfig) -> int | None:
        try:
            async with asyncio.timeout(_LIMIT_S), self._providers.lease(config) as provider:
                if not isinstance(provider, ModelInfoProvider):
                    return None
                return (await provider.model_info(config)).context_window
        except (ProviderError, TimeoutError) as error:
            log.debug("a model's window is not known", model=config.model, error=str(error) or "no answer")
            return None
