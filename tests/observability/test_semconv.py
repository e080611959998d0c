"""Names that dashboards of OpenTelemetry look for."""

from __future__ import annotations

import pytest

from worker.semconv import provider_name


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("anthropic", "anthropic"),
        ("azure", "azure.ai.openai"),
        ("azure-responses", "azure.ai.openai"),
        ("bedrock", "aws.bedrock"),
        ("gemini", "gcp.gemini"),
        ("my-own", "my-own"),
        ("openai", "openai"),
        ("openai-responses", "openai"),
        ("openai_responses", "openai"),
        ("vertex", "gcp.vertex_ai"),
    ],
)
def test_provider_names(provider: str, name: str) -> None:
    """The conventions' own names for the providers that they know; others keep theirs."""
    assert provider_name(provider) == name
