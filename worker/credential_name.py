"""The name of the key that a call uses: what budgets and rate limits of a key go by. It tells nothing of the key."""

from __future__ import annotations

from urllib.parse import urlsplit

from providers import AgentConfig


def credential_name(provider: str, config: AgentConfig) -> str:
    """Such as `anthropic`, `openai:TEAM_B_KEY` or `openai:TEAM_B_KEY@llm.example.com`: the provider, the variable if
    the agent names one, and the host if the agent names an address."""
    name = f"{provider}:{config.api_key_env}" if config.api_key_env else provider
    host = _host(config.base_url) if config.base_url else ""
    return f"{name}@{host}" if host else name


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    return f"{parts.hostname}:{port}" if port else parts.hostname or ""
