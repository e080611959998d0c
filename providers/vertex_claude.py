"""Anthropic's models on Vertex AI: the Messages API in another envelope. Pure.

Source: https://docs.claude.com/en/docs/build-with-claude/claude-on-vertex-ai. The model is in the path instead of the
body, and the version in the body instead of a header; events are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from providers import anthropic_request as requests
from providers.capabilities import Capability
from providers.decoding import decoded
from providers.errors import BadResponse
from providers.messages import AgentConfig, Message, TurnRequest

VERSION = "vertex-2023-10-16"

COUNT_PATH = "publishers/anthropic/models/count-tokens:rawPredict"

DEFAULT_COMPLETION_TOKENS = 4000

CLAUDE_GAPS: Mapping[Capability, str] = {
    Capability.NATIVE_SCHEMA: "structured output is not part of the API there",
    Capability.EMBEDDINGS: "the vendor has no embeddings",
    Capability.VENDOR_MODEL_INFO: "the API does not tell limits",
}
"""What Claude on Vertex AI lacks."""

_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_version = msgspec.Raw(msgspec.json.encode(VERSION))


class _Block(Struct):
    type: str = ""
    text: str = ""


class _Completion(Struct):
    content: list[_Block] = []


class _Count(Struct):
    input_tokens: int


_completion_decoder = msgspec.json.Decoder(_Completion)
_count_decoder = msgspec.json.Decoder(_Count)


def request_body(request: TurnRequest, model: str) -> bytes:
    """The body of `:streamRawPredict` for one turn."""
    config = msgspec.structs.replace(request.config, model=model, output_schema=None)
    return _enveloped(requests.request_body(msgspec.structs.replace(request, config=config)))


def completion_body(config: AgentConfig, messages: Sequence[Message], max_tokens: int, model: str) -> bytes:
    """The body of `:rawPredict`, answered in one piece."""
    config = msgspec.structs.replace(config, model=model, output_schema=None)
    limit = max_tokens if max_tokens > 0 else DEFAULT_COMPLETION_TOKENS
    return _enveloped(requests.completion_body(config, messages, limit))


def count_body(config: AgentConfig, messages: Sequence[Message], model: str) -> bytes:
    """The body of a count, which does name the model."""
    config = msgspec.structs.replace(config, model=model, output_schema=None)
    fields = _fields_decoder.decode(requests.count_body(config, messages))
    return msgspec.json.encode({"anthropic_version": _version, **fields})


def completion_text(provider: str, answer: bytes) -> str:
    """The text of a `:rawPredict` answer. Raises `BadResponse` if there is none."""
    blocks = decoded(_completion_decoder, answer, provider).content
    text = "".join(block.text for block in blocks if block.type == "text")
    if not text:
        raise BadResponse(f"{provider}: the answer is empty", provider=provider)
    return text


def token_count(provider: str, answer: bytes) -> int:
    """What a count says. Raises `BadResponse`."""
    return decoded(_count_decoder, answer, provider, "the count").input_tokens


def _enveloped(body: bytes) -> bytes:
    fields = _fields_decoder.decode(body)
    del fields["model"]
    return msgspec.json.encode({"anthropic_version": _version, **fields})
