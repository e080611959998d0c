"""The live settings that providers of OpenAI's protocols declare."""

from __future__ import annotations

from providers.interfaces import ConfigParam

MODEL = ConfigParam(key="model", description="model of agents that name none")
EMBEDDING_MODEL = ConfigParam(
    key="embedding_model", description="model for embeddings; else AGENT_EMBEDDING_MODEL, or text-embedding-3-small"
)
OPENAI = (
    ConfigParam(key="api_key", description="key; else OPENAI_API_KEY; required at OpenAI itself", secret=True),
    ConfigParam(key="base_url", description="address; else OPENAI_BASE_URL, or https://api.openai.com/v1"),
    MODEL,
    EMBEDDING_MODEL,
    ConfigParam(key="organization", description="organization that pays; at OpenAI else OPENAI_ORG_ID"),
    ConfigParam(key="project", description="project that pays; at OpenAI else OPENAI_PROJECT_ID"),
)
