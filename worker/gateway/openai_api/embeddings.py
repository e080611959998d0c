"""`POST /v1/embeddings`. The model is `provider/model`, a declared model's slug, or an agent."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

import providers
from providers import AgentConfig
from queue_backends.messages import JsonObject
from worker.agents.fence import place_of
from worker.agents.model import Llm
from worker.gateway.caller import Scope
from worker.gateway.ingress.submission import agent_as_model
from worker.gateway.openai_api.parameters import refused
from worker.gateway.operation import Call

MOST_TEXTS = 2048


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """The body. Source: https://platform.openai.com/docs/api-reference/embeddings/create"""

    model: str
    input: str | list[str | list[int] | int]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


async def create_embeddings(call: Call) -> JsonObject:
    """Turn texts into vectors."""
    request: EmbeddingRequest = call.body
    texts = _texts(request.input)
    config, agent = _config(call, request.model)
    found = await call.gateway.model_access.embed(call, config, texts, agent=agent)
    vectors = [_cut(vector, request.dimensions) for vector in found.vectors]
    as_text = request.encoding_format == "base64"
    return {
        "object": "list",
        "model": request.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if as_text else vector}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": found.input_tokens, "total_tokens": found.input_tokens},
    }


def _texts(given: str | Sequence[object]) -> list[str]:
    texts = [given] if isinstance(given, str) else list(given)
    if not texts or len(texts) > MOST_TEXTS:
        raise refused("input", f"it has {len(texts)} texts: give 1 to {MOST_TEXTS}", code="invalid_value")
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) < len(texts):
        raise refused("input", "tokens are not supported, as they mean something else to every model: give texts")
    if not all(plain):
        raise refused("input", "an empty text has no vector", code="invalid_value")
    return plain


def _config(call: Call, model: str) -> tuple[AgentConfig, str]:
    """Where the vectors come from, and the agent that it is, if it is one."""
    if (llm := _declared(call, model)) is not None:
        place = place_of(llm)
        options = {"embedding_model": llm.model, **place["options"]} if llm.model else place["options"]
        return AgentConfig(**{**place, "route": "", "options": options}), ""
    provider, slash, name = model.partition("/")
    if slash and name and _is_operator(call) and provider in providers.available():
        return AgentConfig(model=name, provider=provider, options={"embedding_model": name}), ""
    agent = agent_as_model(call, model).value
    return call.gateway.model_access.config_of(agent.slug, call.caller.tenant or agent.namespace), agent.slug


def _declared(call: Call, slug: str) -> Llm | None:
    caller, definitions = call.caller, call.gateway.definitions
    found = definitions.llms.visible(slug, caller.tenant)
    if found is None or not found.value.is_active:
        return None
    if caller.app:
        app = definitions.apps.visible(caller.app, caller.tenant)
        if app is None or not app.value.is_active or slug not in app.value.llms:
            return None
    return found.value


def _is_operator(call: Call) -> bool:
    """Whether the caller may name any provider: one that is bound to a tenant or an app may use what is declared."""
    caller = call.caller
    return not caller.app and (not caller.tenant or caller.may(Scope.ADMIN))


def _cut(vector: list[float], dimensions: int | None) -> list[float]:
    """The first numbers, brought to length 1 again: for models that are trained for it."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if not 1 <= dimensions < len(vector):
        raise refused("dimensions", f"{dimensions} is not allowed: the model gives {len(vector)}", code="invalid_value")
    kept = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in kept))
    return [number / length for number in kept] if length else kept


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
