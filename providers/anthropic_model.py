"""What `GET /v1/models/{model}` tells of a model. Pure. Source: https://docs.claude.com/en/api/models."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from providers.decoding import UNREADABLE
from providers.interfaces import ModelInfo


class _Support(Struct):
    supported: bool | None = None


class _Capabilities(Struct):
    image_input: _Support | None = None
    thinking: _Support | None = None


class _Model(Struct):
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: _Capabilities | None = None


_decoder = msgspec.json.Decoder(_Model)


def model_told(body: bytes) -> ModelInfo:
    """The facts in the answer; none if it cannot be read, as from a compatible server."""
    try:
        model = _decoder.decode(body)
    except UNREADABLE:
        return ModelInfo()
    can = model.capabilities or _Capabilities()
    return ModelInfo(
        context_window=model.max_input_tokens,
        max_output_tokens=model.max_tokens,
        images=can.image_input.supported if can.image_input else None,
        thinking=can.thinking.supported if can.thinking else None,
    )
