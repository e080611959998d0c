"""Vertex AI's provider passes the suite that third parties run, with Gemini and with Claude."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from providers.capabilities import Capability
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from providers.replay_server import Reply, json_error
from providers.vertex import VertexProvider
from providers.vertex_claude import CLAUDE_GAPS

_RECORDINGS = Path(__file__).parent / "recordings"


class TestVertexGemini(ProviderConformance):
    """Gemini, on recordings of its stream as Vertex AI sends it."""

    recordings = _RECORDINGS / "vertex"
    error_body = b'{"error": {"code": 0, "message": "the reason", "status": "SOME_ERROR"}}'
    context_error = (
        400,
        (
            b'{"error": {"code": 400, "message": "The input token count (1200345) exceeds the maximum number of tokens '
            b'allowed (1048576).", "status": "INVALID_ARGUMENT"}}'
        ),
    )
    unknown_frame = b'data: {"fromTheFuture": {"value": [1, null]}}\n\n'
    known_model = "gemini-2.5-flash"
    healthy_body = b'{"totalTokens": 1}'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return VertexProvider()

    def config(self, base_url: str) -> AgentConfig:
        """The version and the project follow the address."""
        return AgentConfig(model="gemini-3-pro-preview", base_url=base_url)

    def completion_body(self, text: str) -> bytes:
        """One candidate."""
        content = {"parts": [{"text": text}], "role": "model"}
        return json.dumps({"candidates": [{"content": content, "finishReason": "STOP"}]}).encode()

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """All vectors in one answer."""
        predictions = [{"embeddings": {"statistics": {"token_count": 2}, "values": vector}} for vector in vectors]
        return json.dumps({"predictions": predictions}).encode()

    def embeddings_replies(self, vectors: Sequence[Sequence[float]]) -> list[Reply]:
        """One text a request, which is what the newest models take."""
        return [json_error(200, self.embeddings_body([vector])) for vector in vectors]

    def count_body(self, tokens: int) -> bytes:
        """The sum."""
        return json.dumps({"totalTokens": tokens, "totalBillableCharacters": 4 * tokens}).encode()


class _ClaudeOnVertex(VertexProvider):
    """Said apart from Gemini, because the two families lack different things."""

    native_output_schema = False
    gaps: ClassVar[Mapping[Capability, str]] = CLAUDE_GAPS


class TestVertexClaude(ProviderConformance):
    """Claude: the events are Anthropic's own."""

    recordings = _RECORDINGS / "anthropic"
    error_body = b'{"type":"error","error":{"type":"some_error","message":"the reason"}}'
    context_error = (
        400,
        (
            b'{"type":"error","error":{"type":"invalid_request_error",'
            b'"message":"prompt is too long: 208310 tokens > 200000 maximum"}}'
        ),
    )
    unknown_frame = b'event: vertex_event\ndata: {"type": "vertex_event", "value": 1}\n\n'
    known_model = "claude-sonnet-4-5@20250929"
    healthy_body = b'{"input_tokens": 8}'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return _ClaudeOnVertex()

    def config(self, base_url: str) -> AgentConfig:
        """Models have their version behind an @."""
        return AgentConfig(model="claude-sonnet-4-5@20250929", base_url=base_url)

    def completion_body(self, text: str) -> bytes:
        """One block of text."""
        return json.dumps({"type": "message", "content": [{"type": "text", "text": text}]}).encode()

    def count_body(self, tokens: int) -> bytes:
        """The number alone."""
        return json.dumps({"input_tokens": tokens}).encode()
