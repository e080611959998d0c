"""Facts about well-known models, from the data of genai-prices (extra `prices`): nothing is downloaded, and nothing
about a model is written down here, where it would go stale."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from providers.interfaces import ModelInfo
from providers.listed_names import listed_names

_CLOUDS = frozenset({"azure", "azure-responses", "bedrock", "vertex"})
"""They run other vendors' models, some under names that only those vendors' lists have."""


@functools.lru_cache(maxsize=1024)
def facts(provider: str, model: str) -> ModelInfo | None:
    """What is known of a provider's model without asking anybody; None if nothing is.

    The first call loads the data, which takes about 0.15 s.
    """
    provider_id, model = listed_names(provider, model)
    window = _window(provider_id, model)
    if window is None and provider in _CLOUDS:
        # Bedrock: `eu.anthropic.claude-sonnet-4-5-20250929-v1:0`; Vertex: `claude-sonnet-4-5@20250929`.
        window = _window(None, model.rpartition(".")[2] if model.count(".") > 1 else model.partition("@")[0])
    return None if window is None else ModelInfo(context_window=window)


async def known_facts(provider: str, model: str) -> ModelInfo | None:
    """The same, without keeping the event loop waiting for the data."""
    return await asyncio.to_thread(facts, provider, model)


def merged(told: ModelInfo, known: ModelInfo | None) -> ModelInfo:
    """What the vendor told, and for all that it left out what is known of the model."""
    if known is None:
        return told
    fields = {name: getattr(told, name) for name in ModelInfo.__struct_fields__}
    return ModelInfo(**{name: getattr(known, name) if value is None else value for name, value in fields.items()})


def _window(provider: str | None, model: str) -> int | None:
    snapshot = _snapshot()
    if snapshot is None:
        return None
    try:
        window = snapshot.find_provider_model(model, None, provider, None)[1].context_window
    except LookupError:
        return None
    return window if isinstance(window, int) and window > 0 else None


@functools.cache
def _snapshot() -> Any:
    try:
        from genai_prices.data_snapshot import get_snapshot  # an optional extra, and 0.15 s to import
    except ImportError:
        return None
    return get_snapshot()
