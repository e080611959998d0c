"""OpenAI's Responses API, and servers compatible with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from providers import openai_settings
from providers.capabilities import Capability
from providers.messages import AgentConfig, Message
from providers.openai_endpoint import OpenAIEndpoint
from providers.openai_provider import OpenAIFamilyProvider, WireProtocol
from providers.openai_responses_protocol import Responses
from providers.transport import Transport


class OpenAIResponsesProvider(OpenAIFamilyProvider):
    """Key and address as for `openai`. Reasoning goes back to the model on each turn, encrypted; nothing is stored.

    `config.options` may have `extra_body` (object, merged into the request), `extra_headers` (object),
    `embedding_model`, `reasoning_summary` (`auto`, `concise` or `detailed`; for agents with `thinking`), and `store`
    (true: the vendor stores the responses, and a turn sends only what is new since the one before).
    """

    name = "openai_responses"
    params = openai_settings.OPENAI
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.STOP: "the protocol has no stop sequences",
        Capability.STOP_REASON: "the protocol has no stop sequences",
        Capability.EARLY_USAGE: "the vendor reports usage in the last event only",
    }

    def __init__(self, transport: Transport | None = None) -> None:
        super().__init__(transport)
        self.endpoint = OpenAIEndpoint(self.name, self.value)
        self._responses = Responses(self.endpoint, self._transport)

    def protocol(self, config: AgentConfig) -> WireProtocol:
        """Responses, always."""
        return self._responses

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor; an estimate where the server
        knows no such call. Raises a `ProviderError`."""
        return await self._responses.count_tokens(self._with_model(config), messages)
