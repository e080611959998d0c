"""The providers of a worker: one instance each, made when first needed, closed at the end."""

from __future__ import annotations

import inspect
from typing import Any

import providers
from providers import AgentConfig, LLMProvider


class ProvidersInUse:
    """Instances by registry name."""

    def __init__(self) -> None:
        self._instances: dict[str, LLMProvider] = {}

    def get(self, config: AgentConfig) -> LLMProvider:
        """The provider of an agent: the one it names, else the one its model's name tells.

        Raises `UnknownProvider`.
        """
        name = config.provider or providers.detect(config.model)
        instance = self._instances.get(name)
        if instance is None:
            instance = self._instances[name] = providers.create(name)
        return instance

    async def close(self) -> None:
        """Close those that have something to close."""
        instances, self._instances = self._instances, {}
        for instance in instances.values():
            close: Any = getattr(instance, "aclose", None)
            if close is not None and inspect.isawaitable(closing := close()):
                await closing
