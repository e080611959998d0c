"""Where a server that speaks one of OpenAI's protocols is, and how it knows who asks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from providers.calls import Call
from providers.credentials import api_key, base_url
from providers.messages import AgentConfig

BASE_URL = "https://api.openai.com/v1"
_HOST = "api.openai.com"


class Endpoint(Protocol):
    """What the protocols need to know of a server."""

    provider: str
    """The provider's name: in errors, and as the owner of reasoning."""

    def address(self, config: AgentConfig) -> str:
        """The address that all paths begin with. Raises a `ProviderError` if there is none."""
        ...

    def is_vendor(self, config: AgentConfig) -> bool:
        """Whether the protocol's own maker answers there, who takes all of it; others are asked, then believed."""
        ...

    async def call(self, config: AgentConfig, path: str, body: bytes = b"", *, model: str = "") -> Call:
        """A request to `path`, such as `/chat/completions`, for `config.model` or another `model`.

        Raises a `ProviderError` if address or key are missing.
        """
        ...


class OpenAIEndpoint:
    """OpenAI itself, or a compatible server. `live` gives the live setting of a name, else an empty text."""

    def __init__(self, provider: str, live: Callable[[str], str]) -> None:
        self.provider = provider
        self._live = live

    def address(self, config: AgentConfig) -> str:
        """The agent's, the live setting's, that of `OPENAI_BASE_URL`, or OpenAI's own."""
        return base_url(config, "OPENAI_BASE_URL", BASE_URL, live=self._live("base_url"))

    def is_vendor(self, config: AgentConfig) -> bool:
        """Whether this is OpenAI."""
        host = urlsplit(self.address(config)).hostname or ""
        return host == _HOST or host.endswith(f".{_HOST}")  # `eu.api.openai.com`: data stays in a region

    async def call(self, config: AgentConfig, path: str, body: bytes = b"", *, model: str = "") -> Call:
        """A request with the key as bearer token. OpenAI itself requires one, others may not."""
        is_vendor = self.is_vendor(config)
        key = api_key(config, "OPENAI_API_KEY", self.provider, required=is_vendor, live=self._live("api_key"))
        headers = {"content-type": "application/json"}
        for header, setting, variable in _ACCOUNT_HEADERS:
            # The variables are about the account at OpenAI, and nobody else's business.
            if account := self._live(setting) or (os.environ.get(variable, "").strip() if is_vendor else ""):
                headers[header] = account
        headers.update(config.options.get("extra_headers", {}))
        if key:
            headers["authorization"] = f"Bearer {key}"
        return Call(provider=self.provider, url=self.address(config) + path, headers=headers, body=body)


_ACCOUNT_HEADERS = (
    ("openai-organization", "organization", "OPENAI_ORG_ID"),
    ("openai-project", "project", "OPENAI_PROJECT_ID"),
)
