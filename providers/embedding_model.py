"""Which model turns an agent's texts into vectors."""

from __future__ import annotations

import os
from collections.abc import Callable

from providers.messages import AgentConfig

_VARIABLES = ("AGENT_EMBEDDING_MODEL", "AGENT_EMBED_MODEL")


def embedding_model(config: AgentConfig, live: Callable[[str], str], default: str) -> str:
    """The agent's `options.embedding_model`, the live setting `embedding_model`, the environment's, or the default.

    `live` gives a live setting's value, or an empty text.
    """
    named = (os.environ.get(variable, "").strip() for variable in _VARIABLES)
    chosen = config.options.get("embedding_model") or live("embedding_model") or next(filter(None, named), default)
    return str(chosen)
