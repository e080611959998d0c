"""The provider of OpenAI's Responses API passes the suite that third parties run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from providers.openai_responses import OpenAIResponsesProvider
from tests.providers import openai_answers
from tests.providers.openai_carried import is_carried


class TestOpenAIResponses(ProviderConformance):
    """On recordings of the vendor's event format."""

    recordings = Path(__file__).parent / "recordings" / "openai_responses"
    error_body = openai_answers.ERROR
    context_error = (400, openai_answers.CONTEXT_ERROR)
    known_model = "gpt-5-mini"

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return OpenAIResponsesProvider()

    def config(self, base_url: str) -> AgentConfig:
        """OpenAI's paths begin at `/v1`."""
        return AgentConfig(model="gpt-5-mini", base_url=base_url + "/v1")

    def completion_body(self, text: str) -> bytes:
        """A response with one message."""
        return json.dumps(openai_answers.response(text)).encode()

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """A list of vectors."""
        return json.dumps(openai_answers.embeddings(vectors)).encode()

    def count_body(self, tokens: int) -> bytes:
        """A count of input tokens."""
        return json.dumps({"object": "response.input_tokens", "input_tokens": tokens}).encode()

    def model_body(self, context_window: int) -> bytes:
        """A list of models as compatible servers give it."""
        return json.dumps({"data": [{"id": "gpt-5-mini", "context_length": context_window}]}).encode()

    def carries(self, body: object, value: str) -> bool:
        """Reasoning goes back as an item, what else is carried as ids of the items that it belongs to."""
        return is_carried(body, value)
