"""OpenAI's chat provider passes the suite that third parties run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from providers.openai_chat import OpenAIChatProvider
from tests.providers import openai_answers


class TestOpenAI(ProviderConformance):
    """On recordings of its chunk format; reasoning is that of servers compatible with it."""

    recordings = Path(__file__).parent / "recordings" / "openai"
    error_body = openai_answers.ERROR
    context_error = (400, openai_answers.CONTEXT_ERROR)
    unknown_frame = b'data: {"object":"from.the.future","value":[1,{"x":null}]}\n\n'
    known_model = "gpt-4.1-mini"

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return OpenAIChatProvider()

    def config(self, base_url: str) -> AgentConfig:
        """OpenAI's paths begin at `/v1`."""
        return AgentConfig(model="gpt-4.1-mini", base_url=base_url + "/v1")

    def completion_body(self, text: str) -> bytes:
        """A chat completion."""
        return json.dumps(openai_answers.completion(text)).encode()

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """A list of vectors."""
        return json.dumps(openai_answers.embeddings(vectors)).encode()

    def count_body(self, tokens: int) -> bytes:
        """Nobody is asked."""
        return b"{}"

    def model_body(self, context_window: int) -> bytes:
        """A list of models as compatible servers give it."""
        return json.dumps({"data": [{"id": "gpt-4.1-mini", "context_length": context_window}]}).encode()
