"""Both vendor providers pass the suite that third parties run."""

from __future__ import annotations

from pathlib import Path

from providers.anthropic import AnthropicProvider
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from providers.openai_chat import OpenAIChatProvider

_RECORDINGS = Path(__file__).parent / "recordings"


class TestAnthropic(ProviderConformance):
    """Anthropic's provider, on recordings of its event format."""

    recordings = _RECORDINGS / "anthropic"
    error_body = b'{"type":"error","error":{"type":"some_error","message":"the reason"},"request_id":"req_1"}'
    reports_usage_early = True

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return AnthropicProvider()

    def config(self, base_url: str) -> AgentConfig:
        """Anthropic's paths begin at the host."""
        return AgentConfig(model="claude-sonnet-4-5", base_url=base_url)


class TestOpenAI(ProviderConformance):
    """OpenAI's provider, on recordings of its chunk format."""

    recordings = _RECORDINGS / "openai"
    error_body = b'{"error":{"message":"the reason","type":"some_error","param":null,"code":null}}'
    unknown_frame = b'data: {"object":"from.the.future","value":[1,{"x":null}]}\n\n'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return OpenAIChatProvider()

    def config(self, base_url: str) -> AgentConfig:
        """OpenAI's paths begin at `/v1`."""
        return AgentConfig(model="gpt-4.1-mini", base_url=base_url + "/v1")
