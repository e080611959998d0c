"""Azure's provider passes the suite that third parties run, in both of its protocols."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from providers.azure_openai import AzureOpenAIProvider, AzureResponsesProvider
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig
from tests.providers import openai_answers
from tests.providers.openai_carried import is_carried

_RECORDINGS = Path(__file__).parent / "recordings"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "test-key-azure")


class _Azure(ProviderConformance):
    error_body = b'{"error":{"code":"SomeError","message":"the reason"}}'
    context_error = (400, openai_answers.CONTEXT_ERROR)
    known_model = "gpt-5-mini"

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """A list of vectors."""
        return json.dumps(openai_answers.embeddings(vectors)).encode()

    def count_body(self, tokens: int) -> bytes:
        """Azure has no such call."""
        return b"{}"

    def model_body(self, context_window: int) -> bytes:
        """Azure's list has no sizes."""
        return json.dumps({"data": [{"id": "gpt-5-mini", "status": "succeeded"}]}).encode()


class TestAzureChat(_Azure):
    """Chat Completions, with a filter's verdict in every chunk."""

    recordings = _RECORDINGS / "azure_chat"
    unknown_frame = b'data: {"object":"from.the.future","value":[1,{"x":null}]}\n\n'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return AzureOpenAIProvider()

    def config(self, base_url: str) -> AgentConfig:
        """The endpoint of a resource is its host."""
        return AgentConfig(model="gpt-5-mini", base_url=base_url)

    def completion_body(self, text: str) -> bytes:
        """A chat completion."""
        return json.dumps(openai_answers.completion(text)).encode()


class TestAzureResponses(_Azure):
    """Responses, with the filters' verdicts at the end."""

    recordings = _RECORDINGS / "azure_responses"

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return AzureResponsesProvider()

    def config(self, base_url: str) -> AgentConfig:
        """The v1 path of the endpoint may be part of the address."""
        return AgentConfig(model="gpt-5-mini", base_url=base_url + "/openai/v1")

    def completion_body(self, text: str) -> bytes:
        """A response with one message."""
        return json.dumps(openai_answers.response(text)).encode()

    def carries(self, body: object, value: str) -> bool:
        """Reasoning goes back as an item, what else is carried as ids of the items that it belongs to."""
        return is_carried(body, value)
