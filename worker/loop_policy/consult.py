"""`consult_<name>`: how a model asks an advisor."""

from __future__ import annotations

from typing import Any

from providers.messages import ToolSpec
from worker.errors import ToolCallFailed
from worker.loop_policy.model import Advisor
from worker.tools.interfaces import ToolContext, ToolResult

KIND = "advisor"
_SPARE_S = 5.0
"""The advisor's own time limit ends first, and says so in its own words."""


class Consult:
    """The tool of one advisor."""

    after_timeout = "nothing was changed"

    def __init__(self, advisor: Advisor) -> None:
        self._advisor = advisor
        told = " ".join(advisor.instructions.split())
        self.spec = ToolSpec(
            name=advisor.tool,
            description=told
            or (
                f"Ask {advisor.name} for advice on a specific question. It sees what was said and done in this task so "
                "far, answers once, and does none of the work."
            ),
            input_schema={
                "type": "object",
                "properties": {
                    "question": {"type": "string", "description": "What you need advice on, as precisely as you can."}
                },
                "required": ["question"],
            },
            idempotent=True,
            timeout_s=advisor.timeout_s + _SPARE_S,
            kind=KIND,
        )

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """The advice, or why there is none. Raises `ToolCallFailed`."""
        question: str = arguments["question"]
        if not question.strip():
            raise ToolCallFailed(f"{self.spec.name}: the question is empty")
        advice = None if context.policy is None else context.policy.advice
        if advice is None:
            raise ToolCallFailed(f"{self.spec.name}: there are no advisors in this run")
        return ToolResult(text=await advice.ask(self._advisor, question, context.call_id))
