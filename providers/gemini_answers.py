"""What Gemini's plain answers say: completions, vectors, counts, models. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from providers.decoding import decoded
from providers.errors import BadResponse, Refused
from providers.gemini_events import STOP_REASONS
from providers.gemini_wire import Candidate, Chunk, Feedback
from providers.interfaces import ModelInfo
from providers.messages import StopReason


class _Values(Struct):
    values: list[float]


class _Vectors(Struct):
    embeddings: list[_Values] = []


class _Prediction(Struct):
    embeddings: _Values


class _Predictions(Struct):
    predictions: list[_Prediction] = []


class _Count(Struct, rename="camel"):
    total_tokens: int = 0  # left out when it is zero


class _Model(Struct, rename="camel"):
    input_token_limit: int | None = None
    output_token_limit: int | None = None
    thinking: bool | None = None


_completion_decoder = msgspec.json.Decoder(Chunk)
_vectors_decoder = msgspec.json.Decoder(_Vectors)
_predictions_decoder = msgspec.json.Decoder(_Predictions)
_count_decoder = msgspec.json.Decoder(_Count)
_model_decoder = msgspec.json.Decoder(_Model)


def completion_text(provider: str, answer: bytes) -> str:
    """The text of a `:generateContent` answer, without thoughts. Raises `Refused` or `BadResponse` if there is none."""
    chunk = decoded(_completion_decoder, answer, provider)
    first = chunk.candidates[0] if chunk.candidates else Candidate()
    parts = (first.content.parts if first.content else None) or ()
    text = "".join(part.text for part in parts if part.text and not part.thought)
    if text:
        return text
    feedback = chunk.prompt_feedback or Feedback()
    if feedback.block_reason:
        raise Refused(f"{provider}: the prompt was blocked: {feedback.reason}", provider=provider)
    if STOP_REASONS.get(first.finish_reason or "") is StopReason.REFUSAL:
        raise Refused(f"{provider}: the model declined to answer: {first.reason}", provider=provider)
    said = f"{provider}: the answer is empty ({first.reason or 'no candidates'})"
    raise BadResponse(said, provider=provider)


def vectors(provider: str, answer: bytes, expected: int) -> list[list[float]]:
    """The vectors of a `:batchEmbedContents` answer. Raises `BadResponse` unless there are as many as expected."""
    found = [vector.values for vector in decoded(_vectors_decoder, answer, provider).embeddings]
    return _as_many(provider, found, expected)


def predicted_vectors(provider: str, answer: bytes, expected: int) -> list[list[float]]:
    """The vectors of Vertex AI's `:predict` answer, likewise."""
    found = [one.embeddings.values for one in decoded(_predictions_decoder, answer, provider).predictions]
    return _as_many(provider, found, expected)


def token_count(provider: str, answer: bytes) -> int:
    """What a `:countTokens` answer says. Raises `BadResponse`."""
    return decoded(_count_decoder, answer, provider).total_tokens


def model_facts(provider: str, answer: bytes) -> ModelInfo:
    """What `GET models/{model}` says. Raises `BadResponse`.

    Input and output have limits of their own here; the input's is what Google calls the context window.
    """
    model = decoded(_model_decoder, answer, provider)
    return ModelInfo(
        context_window=model.input_token_limit,
        max_output_tokens=model.output_token_limit,
        thinking=model.thinking,
    )


def _as_many(provider: str, found: Sequence[list[float]], expected: int) -> list[list[float]]:
    if len(found) != expected:
        raise BadResponse(f"{provider} embed: {len(found)} vectors came back for {expected} texts", provider=provider)
    return list(found)
