"""Values that OpenTelemetry's GenAI semantic conventions prescribe where they differ from ours."""

from __future__ import annotations

_PROVIDER_NAMES = {
    "azure": "azure.ai.openai",
    "azure-responses": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "openai-responses": "openai",
    "openai_responses": "openai",
    "vertex": "gcp.vertex_ai",
}
"""Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/#gen-ai-provider-name."""


def provider_name(provider: str) -> str:
    """The `gen_ai.provider.name` of a provider in our registry; one without a prescribed name keeps its own."""
    return _PROVIDER_NAMES.get(provider, provider)
