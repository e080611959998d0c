"""The embedding models of Bedrock, which have a form each. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and
model-parameters-embed.html there.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from providers.bedrock_messages import PROVIDER
from providers.bedrock_models import foundation_model
from providers.decoding import UNREADABLE, unreadable
from providers.errors import InvalidRequest
from queue_backends.messages import JsonObject

DEFAULT_MODEL = "amazon.titan-embed-text-v2:0"

_COHERE_TEXTS = 96
"""At most so many texts in one request."""


class _Titan(Struct):
    embedding: list[float]


class _ByType(Struct, rename={"floats": "float"}):
    floats: list[list[float]] | None = None


class _Cohere(Struct):
    embeddings: list[list[float]] | _ByType


_titan_decoder = msgspec.json.Decoder(_Titan)
_cohere_decoder = msgspec.json.Decoder(_Cohere)


def batches(model: str, texts: Sequence[str]) -> list[Sequence[str]]:
    """The texts, as many at once as the model takes. Raises `InvalidRequest` if it is none that is known."""
    size = 1 if _is_titan(model) else _COHERE_TEXTS
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def embedding_body(model: str, texts: Sequence[str], options: JsonObject) -> bytes:
    """The body of `POST /model/{modelId}/invoke`; `options` may have `dimensions` and, for Cohere, `input_type`."""
    dimensions = options.get("dimensions")
    if _is_titan(model):
        body: JsonObject = {"inputText": texts[0]}
        if dimensions:
            body["dimensions"] = dimensions
        return msgspec.json.encode(body)
    body = {"texts": list(texts), "input_type": options.get("input_type", "search_document")}
    if dimensions:
        body["output_dimension"] = dimensions
    return msgspec.json.encode(body)


def vectors(model: str, answer: bytes) -> list[list[float]]:
    """The vectors of one answer. Raises `BadResponse`."""
    try:
        if _is_titan(model):
            return [_titan_decoder.decode(answer).embedding]
        found = _cohere_decoder.decode(answer).embeddings
    except UNREADABLE as error:
        raise unreadable(error, PROVIDER, "the vectors") from error
    return found if isinstance(found, list) else found.floats or []


def _is_titan(model: str) -> bool:
    name = foundation_model(model)
    if name.startswith("amazon.titan-embed-text"):
        return True
    if name.startswith("cohere.embed"):
        return False
    raise InvalidRequest(
        f"{PROVIDER}: {model!r} is no embedding model that is known here: use amazon.titan-embed-text-v2:0, or one of "
        "cohere.embed-*",
        provider=PROVIDER,
    )
