"""OpenAI's Chat Completions API, and the many servers compatible with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from providers import openai_settings
from providers.capabilities import Capability
from providers.messages import AgentConfig
from providers.openai_completions import ChatCompletions
from providers.openai_endpoint import OpenAIEndpoint
from providers.openai_provider import OpenAIFamilyProvider, WireProtocol
from providers.transport import Transport


class OpenAIChatProvider(OpenAIFamilyProvider):
    """`OPENAI_API_KEY` (or the variable that `config.api_key_env` names) is the key, read at each call.

    The address is `config.base_url`, else `OPENAI_BASE_URL`, else OpenAI's own; with another address than that, a key
    is optional. `config.options` may have `extra_body` (object, merged into the request), `extra_headers` (object) and
    `embedding_model`.
    """

    name = "openai"
    params = openai_settings.OPENAI
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.STOP_REASON: "the vendor does not tell it from the answer's natural end",
        Capability.EARLY_USAGE: "the vendor reports usage in the last chunk only",
        Capability.VENDOR_COUNT: "the protocol has no such call; the estimate costs nothing",
    }

    def __init__(self, transport: Transport | None = None) -> None:
        super().__init__(transport)
        self.endpoint = OpenAIEndpoint(self.name, self.value)
        self._chat = ChatCompletions(self.endpoint, self._transport)

    def protocol(self, config: AgentConfig) -> WireProtocol:
        """Chat Completions, always."""
        return self._chat
