"""Facts about models: from a list that comes with the package, and from the vendor itself."""

from __future__ import annotations

import json

import pytest

from providers.anthropic import AnthropicProvider
from providers.interfaces import ModelInfo, ModelInfoProvider
from providers.messages import AgentConfig
from providers.model_facts import facts, merged
from providers.pricing import cost_usd
from providers.replay_server import ReplayServer, json_error
from queue_backends import TokenUsage


@pytest.mark.parametrize(
    ("provider", "model", "window"),
    [
        ("anthropic", "claude-sonnet-4-5", 200_000),
        ("anthropic", "claude-sonnet-4-5-20250929", 200_000),
        ("openai", "gpt-4o-mini", 128_000),
        ("openai_responses", "gpt-4o", 128_000),
        ("azure", "gpt-4o", 128_000),
        ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", 200_000),
        ("vertex", "claude-sonnet-4-5@20250929", 200_000),
    ],
)
def test_windows_of_known_models(provider: str, model: str, window: int) -> None:
    """Under every name that a vendor or a cloud has for them."""
    known = facts(provider, model)
    assert known is not None
    assert known.context_window == window


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "a-model-of-my-own"), ("ollama", "llama3.2"), ("no-such-provider", "gpt-4o"), ("anthropic", "")],
)
def test_what_is_not_known(provider: str, model: str) -> None:
    """Nothing is guessed: whoever serves a model may give it another window."""
    assert facts(provider, model) is None


def test_the_vendor_counts_more() -> None:
    """What it leaves out is filled in."""
    told = ModelInfo(context_window=5, images=False)
    assert merged(told, ModelInfo(context_window=9, tools=True, images=True)) == ModelInfo(
        context_window=5, tools=True, images=False
    )
    assert merged(told, None) == told


async def test_anthropic_tells() -> None:
    """Sizes and abilities, from the model's own address."""
    answer = {
        "id": "claude-x/y",
        "max_input_tokens": 500_000,
        "max_tokens": 64_000,
        "capabilities": {"image_input": {"supported": True}, "thinking": {"supported": False, "types": {}}},
    }
    provider = AnthropicProvider()
    assert isinstance(provider, ModelInfoProvider)
    async with ReplayServer([json_error(200, json.dumps(answer).encode()), json_error(200, b"<html>")]) as server:
        config = AgentConfig(model="claude-x/y", base_url=server.url)
        told = await provider.model_info(config)
        assert told == ModelInfo(context_window=500_000, max_output_tokens=64_000, images=True, thinking=False)
        assert server.requests[0].target == "/v1/models/claude-x%2Fy"
        assert await provider.model_info(config) == ModelInfo()
        await provider.aclose()


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("gemini", "models/gemini-2.5-flash"),
        ("vertex", "publishers/google/models/gemini-2.5-flash"),
        ("vertex", "publishers/anthropic/models/claude-sonnet-4-5@20250929"),
        ("azure-responses", "gpt-4o"),
        ("openai-responses", "gpt-4o"),
    ],
)
def test_names_as_a_provider_has_them(provider: str, model: str) -> None:
    """Windows and prices are found under every name that an agent's configuration may have."""
    assert facts(provider, model) is not None
    assert cost_usd(provider, model, TokenUsage(input_tokens=1000, output_tokens=10)) is not None
