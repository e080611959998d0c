"""Bedrock's provider passes the suite that third parties run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from providers.bedrock import BedrockProvider
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from tests import aws_frames


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch, aws_environment: None) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")


class TestBedrock(ProviderConformance):
    """Bedrock's provider, on recordings of its messages."""

    recordings = Path(__file__).parent / "recordings" / "bedrock"
    suffix = "eventstream"
    content_type = "application/vnd.amazon.eventstream"
    line_ends = ()
    error_body = b'{"message":"the reason"}'
    context_error = (400, b'{"message":"Input is too long for requested model."}')
    unknown_frame = aws_frames.event("fromTheFuture", {"value": [1, {"x": None}]})
    healthy_body = b'{"modelSummaries":[]}'
    known_model = "anthropic.claude-sonnet-4-5-20250929-v1:0"

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return BedrockProvider()

    def config(self, base_url: str) -> AgentConfig:
        """Bedrock's paths begin at the host."""
        options = {"embedding_model": "cohere.embed-multilingual-v3"}
        return AgentConfig(model="eu.anthropic.claude-sonnet-4-6", base_url=base_url, options=options)

    def frames(self, recording: bytes) -> tuple[bytes, ...]:
        """The messages."""
        return aws_frames.frames(recording)

    def malformed(self, frame: bytes) -> bytes:
        """A delta with broken JSON; lengths and checksums are right."""
        return aws_frames.event("contentBlockDelta", b'{"contentBlockIndex":0,"delta":{"te')

    def completion_body(self, text: str) -> bytes:
        """The answer of `converse`."""
        message = {"role": "assistant", "content": [{"text": text}]}
        usage = {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12}
        return msgspec.json.encode({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """The answer of Cohere's model."""
        return msgspec.json.encode({"id": "x", "embeddings": vectors, "response_type": "embeddings_floats"})

    def count_body(self, tokens: int) -> bytes:
        """The answer of `count-tokens`."""
        return msgspec.json.encode({"inputTokens": tokens})
