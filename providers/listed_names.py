"""What our providers and their models are called in genai-prices, whose data tell prices and context windows. Pure."""

from __future__ import annotations

from collections.abc import Mapping

_LISTED: Mapping[str, str] = {
    "azure-responses": "azure",
    "bedrock": "aws",
    "gemini": "google",
    "openai-responses": "openai",
    "openai_responses": "openai",
    "vertex": "google",
}
_WITH_PATHS = frozenset({"gemini", "vertex"})
"""Their models may be named with a path: `models/gemini-2.5-pro`, `publishers/anthropic/models/claude-…`."""


def listed_names(provider: str, model: str) -> tuple[str, str]:
    """The provider and the model as the list knows them; a provider that needs no translation keeps its name."""
    if provider in _WITH_PATHS:
        model = model.rpartition("/")[2]
    return _LISTED.get(provider, provider), model
