"""Gemini's provider passes the suite that third parties run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from providers.conformance import ProviderConformance
from providers.gemini import GeminiProvider
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig

_RECORDINGS = Path(__file__).parent / "recordings"


class TestGemini(ProviderConformance):
    """On recordings of its stream; Gemini 3 for what its forerunners lack, such as ids of calls."""

    recordings = _RECORDINGS / "gemini"
    error_body = b'{"error": {"code": 0, "message": "the reason", "status": "SOME_ERROR"}}'
    context_error = (
        400,
        (
            b'{"error": {"code": 400, "message": "The input token count (1200345) exceeds the maximum number of tokens '
            b'allowed (1048576).", "status": "INVALID_ARGUMENT"}}'
        ),
    )
    overloaded_error = (
        503,
        (
            b'{"error": {"code": 503, "message": "The model is overloaded. Please try again later.", '
            b'"status": "UNAVAILABLE"}}'
        ),
    )
    unknown_frame = (
        b'data: {"fromTheFuture": {"value": [1, null]}, "candidates": [{"content": {"parts": [{"x": 1}]}}]}\n\n'
    )
    known_model = "gemini-2.5-flash"
    healthy_body = b'{"models": [{"name": "models/gemini-2.5-flash"}]}'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return GeminiProvider()

    def config(self, base_url: str) -> AgentConfig:
        """The version follows the address."""
        return AgentConfig(model="gemini-3-pro-preview", base_url=base_url)

    def completion_body(self, text: str) -> bytes:
        """One candidate, whose first part is a thought."""
        parts = [{"text": "Hm.", "thought": True}, {"text": text}]
        content = {"parts": parts, "role": "model"}
        return json.dumps({"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}).encode()

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """All vectors in one answer."""
        return json.dumps({"embeddings": [{"values": vector} for vector in vectors]}).encode()

    def count_body(self, tokens: int) -> bytes:
        """The sum, and its parts by modality."""
        parts = [{"modality": "TEXT", "tokenCount": tokens}]
        return json.dumps({"totalTokens": tokens, "promptTokensDetails": parts}).encode()

    def model_body(self, context_window: int) -> bytes:
        """A model's description."""
        model = {"name": "models/gemini-3-pro-preview", "inputTokenLimit": context_window, "outputTokenLimit": 65536}
        return json.dumps(model | {"thinking": True, "supportedGenerationMethods": ["generateContent"]}).encode()
