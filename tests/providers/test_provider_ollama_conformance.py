"""Ollama's provider passes the suite that third parties run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from providers.conformance import ProviderConformance
from providers.conformance.requests import PICTURE
from providers.conformance.support import body_of, check, has_text
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig, Message, Role, TextPart
from providers.ollama import OllamaProvider


class TestOllama(ProviderConformance):
    """Ollama's provider, on recordings of its lines."""

    recordings = Path(__file__).parent / "recordings" / "ollama"
    suffix = "ndjson"
    content_type = "application/x-ndjson"
    line_ends = (b"\r\n",)
    error_body = b'{"error":"the reason"}'
    context_error = (400, b'{"error":"prompt too long; exceeded max context length by 812 tokens"}')
    overloaded_error = (503, b'{"error":"server busy, please try again.  maximum pending requests exceeded"}')
    unknown_frame = b'{"from_the_future":[1,{"x":null}]}\n'
    healthy_body = b'{"models":[]}'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        return OllamaProvider()

    def config(self, base_url: str) -> AgentConfig:
        """Ollama's paths begin at the host."""
        return AgentConfig(model="qwen3:8b", base_url=base_url)

    def frames(self, recording: bytes) -> tuple[bytes, ...]:
        """One event a line."""
        return tuple(recording.splitlines(keepends=True))

    def malformed(self, frame: bytes) -> bytes:
        """A line that breaks off."""
        return frame.rstrip()[:-3] + b"\n"

    def completion_body(self, text: str) -> bytes:
        """The answer to a request without a stream."""
        message = {"role": "assistant", "content": text}
        return msgspec.json.encode({"model": "qwen3:8b", "message": message, "done": True, "done_reason": "stop"})

    def embeddings_body(self, vectors: Sequence[Sequence[float]]) -> bytes:
        """The answer of `/api/embed`."""
        return msgspec.json.encode({"model": "nomic-embed-text", "embeddings": vectors})

    def model_body(self, context_window: int) -> bytes:
        """The answer of `/api/show`."""
        facts = {"general.architecture": "qwen3", "qwen3.context_length": context_window}
        return msgspec.json.encode({"model_info": facts, "capabilities": ["completion", "tools"]})

    async def test_images(self) -> None:
        """A picture is sent beside its text; its kind is not, since the server finds it in the data."""
        parts = (TextPart(text="What is this?"), PICTURE)
        body = body_of(await self.sent(Message(role=Role.USER, parts=parts)))
        (message,) = body["messages"]
        check(message["images"] == [PICTURE.data], f"the request does not have the picture: {message}")
        check(has_text(message, "What is this?"), "the text beside the picture is lost")
