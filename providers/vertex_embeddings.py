"""Texts for Vertex AI's embedding models, in batches that they take. Pure.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/get-text-embeddings: the Gemini models take one
text a request, others 250 of 20,000 tokens together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from providers.messages import AgentConfig
from queue_backends.messages import JsonObject

_MOST_TEXTS = 250
_MOST_CHARS = 40_000


def batches(model: str, texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, as many at once as the model takes."""
    most = 1 if model.startswith("gemini-embedding") else _MOST_TEXTS
    start, chars = 0, 0
    for index, text in enumerate(texts):
        chars += len(text)
        if index > start and (index - start == most or chars > _MOST_CHARS):
            yield texts[start:index]
            start, chars = index, len(text)
    if texts:
        yield texts[start:]


def embedding_body(config: AgentConfig, texts: Sequence[str]) -> bytes:
    """The body of `:predict`. `options.dimensions` and `options.embedding_task` are passed on."""
    task = config.options.get("embedding_task")
    instances = [{"content": text} | ({"task_type": task} if task else {}) for text in texts]
    body: JsonObject = {"instances": instances}
    if "dimensions" in config.options:
        body["parameters"] = {"outputDimensionality": config.options["dimensions"]}
    return msgspec.json.encode(body)
