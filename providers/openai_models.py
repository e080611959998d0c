"""What a list of models (`GET /models`) tells of one of them. Pure.

OpenAI's own list has names only. Compatible servers add facts under names of their own: OpenRouter, Groq, Mistral and
Together (`context_length`, `context_window`, `max_context_length`), vLLM (`max_model_len`), llama.cpp (`meta`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from providers.decoding import UNREADABLE
from providers.interfaces import ModelInfo


class _Models(msgspec.Struct):
    data: list[dict[str, Any]] = []


_models_decoder = msgspec.json.Decoder(_Models)

_WINDOWS = ("context_window", "context_length", "max_model_len", "max_context_length")
_TOOL_FLAGS = ("function_calling", "tools", "tool_use")


def listed_model(body: bytes, model: str) -> ModelInfo:
    """What the list says of `model`; a server with one model serves it under any name. Unknown where it cannot be
    read."""
    try:
        models = _models_decoder.decode(body).data
    except UNREADABLE:
        return ModelInfo()
    entry = next((entry for entry in models if entry.get("id") == model), models[0] if len(models) == 1 else {})
    top = _object(entry, "top_provider")
    modalities = _object(entry, "architecture").get("input_modalities")
    parameters = entry.get("supported_parameters")
    return ModelInfo(
        context_window=_window(entry),
        max_output_tokens=_count(entry.get("max_completion_tokens")) or _count(top.get("max_completion_tokens")),
        tools="tools" in parameters if isinstance(parameters, list) else _flag(entry, _TOOL_FLAGS),
        images="image" in modalities if isinstance(modalities, list) else _flag(entry, ("vision",)),
        thinking="reasoning" in parameters if isinstance(parameters, list) else _flag(entry, ("reasoning",)),
    )


def _window(entry: dict[str, Any]) -> int | None:
    meta = _object(entry, "meta")
    counts = [*(entry.get(name) for name in _WINDOWS), meta.get("n_ctx"), meta.get("n_ctx_train")]
    return next((count for value in counts if (count := _count(value))), None)


def _flag(entry: dict[str, Any], names: tuple[str, ...]) -> bool | None:
    capabilities = _object(entry, "capabilities")
    return next((flag for name in names if isinstance(flag := capabilities.get(name), bool)), None)


def _object(entry: dict[str, Any], name: str) -> dict[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
