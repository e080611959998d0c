"""The smallest useful agent plugin: what a model answers, between two marks. Without a model, the message itself."""

from __future__ import annotations

import json

from providers import ProviderError
from worker.agent_plugins import AgentPlugin, AgentRequest, AgentStream, LlmAnswer, PluginDenied


class EchoAgent(AgentPlugin):
    """Behaves as AI Studio's echo agent."""

    async def handle_message(self, request: AgentRequest, stream: AgentStream) -> None:
        """`<< text >>`, and on request a second chunk that says how it came about."""
        prefix, suffix = self.config["prefix"], self.config["suffix"]
        if not request.llms:
            await stream.content(f"{prefix} {request.message} {suffix}")
            return
        try:
            answer = await self.services.call_llm(
                request.message,
                llm=self.config["default_llm"],
                model=self.config["model"],
                temperature=0.7,
                max_tokens=1000,
            )
        except (ProviderError, PluginDenied) as error:
            await stream.error(f"Failed to call LLM: {error}")
            return
        await stream.content(f"{prefix} {answer.text} {suffix}")
        if self.config["include_metadata"]:
            await stream.content(f"\n\n---\nMetadata: {json.dumps(self._metadata(request, answer))}")

    def _metadata(self, request: AgentRequest, answer: LlmAnswer) -> dict[str, object]:
        return {
            "llm": self.config["default_llm"] or request.llms[0].slug,
            "input_tokens": answer.usage.input_tokens,
            "output_tokens": answer.usage.output_tokens,
            "available_tools": len(request.tools),
            "available_datasources": len(request.datasources),
        }
