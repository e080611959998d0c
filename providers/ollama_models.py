"""What an Ollama server says of its models. Pure.

Source: https://docs.ollama.com/api/tags and https://docs.ollama.com/api-reference/show-model-details.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from providers.interfaces import ModelInfo

_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)\s*$", re.MULTILINE)


class _Named(Struct):
    name: str = ""
    model: str = ""


class Models(Struct):
    """The models that a server has."""

    models: list[_Named] = []

    def has(self, model: str) -> bool:
        """Whether it has this one; without a tag, `latest` is meant."""
        wanted = model if ":" in model.rpartition("/")[2] else f"{model}:latest"
        return any(wanted in (known.name, known.model) for known in self.models)


class Model(Struct):
    """The facts of one model."""

    model_info: dict[str, Any] = {}
    capabilities: list[str] | None = None
    parameters: str | None = None

    def info(self, num_ctx: int | None) -> ModelInfo:
        """These facts in our words. `num_ctx` is what requests ask for; else the model's own file may say it."""
        able = None if self.capabilities is None else frozenset(self.capabilities)
        return ModelInfo(
            context_window=self._window(num_ctx),
            tools=None if able is None else "tools" in able,
            images=None if able is None else "vision" in able,
            thinking=None if able is None else "thinking" in able,
        )

    def _window(self, num_ctx: int | None) -> int | None:
        architecture = self.model_info.get("general.architecture", "")
        trained = self.model_info.get(f"{architecture}.context_length")
        own = _NUM_CTX.search(self.parameters or "")
        asked = num_ctx or (int(own[1]) if own else None)
        known = [window for window in (trained, asked) if isinstance(window, int)]
        return min(known, default=None)


def read_model(data: bytes) -> Model:
    """From the answer of `/api/show`. Raises `msgspec.DecodeError`."""
    return msgspec.json.decode(data, type=Model)
