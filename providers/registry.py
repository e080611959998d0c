"""From a name to a provider, and from a model to a name."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

from providers.errors import UnknownProvider
from providers.interfaces import LLMProvider

ENTRY_POINTS = "shoal.providers"

ProviderFactory = Callable[[], LLMProvider]

_registered: dict[str, ProviderFactory] = {}

_MODEL_PREFIXES = (
    ("claude-", "anthropic"),
    ("gemini-", "gemini"),
    ("mock", "mock"),
    ("scripted", "scripted"),
    ("gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
)


def register(name: str, factory: ProviderFactory) -> None:
    """Make `name` create providers with `factory`. The last registration of a name wins."""
    _registered[name] = factory


def available() -> list[str]:
    """All names that can be created, sorted."""
    return sorted({*_registered, *(point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS))})


def detect(model: str, otherwise: str = "openai") -> str:
    """The provider that serves a model, by the model's prefix; anything unknown is `otherwise`'s, which is by default
    the one that many servers are compatible with."""
    return next((name for prefix, name in _MODEL_PREFIXES if model.startswith(prefix)), otherwise)


def create(name: str) -> LLMProvider:
    """A new provider. Raises `UnknownProvider` with all names there are."""
    factory = _registered.get(name)
    if factory is None:
        points = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
        factory = next((point.load() for point in points), None)
    if factory is None:
        raise UnknownProvider(
            f'unknown provider "{name}" — did you register it with providers.register? '
            f"registered: {', '.join(available())}"
        )
    return factory()
