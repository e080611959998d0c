"""Values that OpenTelemetry's GenAI semantic conventions prescribe where they differ from ours."""

from __future__ import annotations

_PROVIDER_NAMES = {"gemini": "gcp.gemini", "vertex": "gcp.vertex_ai"}


def provider_name(provider: str) -> str:
    """The `gen_ai.provider.name` of a provider in our registry; one without a prescribed name keeps its own."""
    return _PROVIDER_NAMES.get(provider, provider)
