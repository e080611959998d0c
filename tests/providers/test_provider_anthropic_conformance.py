"""Anthropic's provider passes the suite that third parties run."""

from __future__ import annotations

from pathlib import Path

from msgspec.json import encode

from providers.anthropic import AnthropicProvider
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig

_RECORDINGS = Path(__file__).parent / "recordings"


class TestAnthropic(ProviderConformance):
    """Anthropic's provider, on recordings of its event format."""

    recordings = _RECORDINGS / "anthropic"
    error_body = b'{"type":"error","error":{"type":"some_error","message":"the reason"},"request_id":"req_1"}'
    context_error = (
        400,
        b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8"}}',
    )
    overloaded_error = (529, b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    healthy_body = b'{"data":[],"has_more":false,"first_id":null,"last_id":null}'
    known_model = "claude-sonnet-4-5"

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return AnthropicProvider()

    def config(self, base_url: str) -> AgentConfig:
        """Anthropic's paths begin at the host."""
        return AgentConfig(model="claude-sonnet-4-5", base_url=base_url)

    def completion_body(self, text: str) -> bytes:
        """A message that was not streamed."""
        content = [{"type": "text", "text": text}] if text else []
        usage = {"input_tokens": 9, "output_tokens": 2}
        return encode({"type": "message", "content": content, "stop_reason": "end_turn", "usage": usage})

    def count_body(self, tokens: int) -> bytes:
        """The answer of the endpoint that counts."""
        return encode({"input_tokens": tokens})

    def model_body(self, context_window: int) -> bytes:
        """The description of a model."""
        return encode({"type": "model", "id": "claude-x", "max_input_tokens": context_window, "max_tokens": 8192})
