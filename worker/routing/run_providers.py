"""The provider instances of one run whose calls go to several: taken when first needed, given back at its end."""

from __future__ import annotations

from providers import AgentConfig, LLMProvider
from worker.providers_in_use import ProvidersInUse


class RunProviders:
    """A run keeps the instances that it began with, whatever changes meanwhile."""

    __slots__ = ("_in_use", "_taken")

    def __init__(self, in_use: ProvidersInUse) -> None:
        self._in_use = in_use
        self._taken: dict[str, LLMProvider] = {}

    async def take(self, config: AgentConfig) -> LLMProvider:
        """The instance of a configuration's provider. Raises a `ProviderError` if there is none, or it does not take
        its live settings."""
        name = self._in_use.name_of(config)
        found = self._taken.get(name)
        if found is None:
            if self._in_use.unsettled:
                await self._in_use.settle(config)
            found = self._taken.get(name)  # somebody else may have taken it meanwhile
            if found is None:
                found = self._taken[name] = self._in_use.take(config)
        return found

    def give_back(self) -> None:
        """The run has ended."""
        taken, self._taken = self._taken, {}
        for instance in taken.values():
            self._in_use.give_back(instance)
