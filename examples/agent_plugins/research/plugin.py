"""An agent of several steps: plan, look into each part with tools, put the findings together.

Each step is recorded. If a worker dies in the third part, another one goes on with the third part: the plan and the
first two are not paid for again.
"""

from __future__ import annotations

import asyncio

from providers import ProviderError
from worker.agent_plugins import AgentPlugin, AgentRequest, AgentStream

PLAN = "You plan research. Split the question into at most {count} separate questions that together answer it."
INVESTIGATE = (
    "You look into one question. Use the tools that you have. Answer in a few sentences, with the facts found."
)
REPORT = "You write a report{language}. Use the findings only; say what is not known. Begin with the answer."
PLAN_SCHEMA = {
    "type": "object",
    "properties": {"questions": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
    "required": ["questions"],
}


class ResearchAgent(AgentPlugin):
    """Thinking shows the plan and its progress, tool chunks what is looked up, content the report."""

    async def handle_message(self, request: AgentRequest, stream: AgentStream) -> None:
        """Plan, investigate, report."""
        questions = await self._plan(request)
        await stream.thinking("Plan:\n" + "".join(f"{n}. {each}\n" for n, each in enumerate(questions, 1)))
        findings = await self._investigate(questions, stream)
        if not any(findings):
            await stream.error("none of the questions could be answered: the model or its tools are not available")
            return
        await self._report(request, questions, findings, stream)

    async def _plan(self, request: AgentRequest) -> list[str]:
        most = self.config["max_questions"]
        answer = await self.services.call_llm(
            [*request.history, {"role": "user", "content": request.message}],
            system=PLAN.format(count=most),
            output_schema=PLAN_SCHEMA,
            key="plan",
        )
        questions = [str(each).strip() for each in answer.structured["questions"] if str(each).strip()]
        return questions[:most] or [request.message]

    async def _investigate(self, questions: list[str], stream: AgentStream) -> list[str]:
        """One finding for each question; an empty one where nothing could be found out."""
        gate = asyncio.Semaphore(self.config["at_once"])

        async def one(number: int, question: str) -> str:
            async with gate:
                return await self._look_into(number, question, stream)

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(number, each)) for number, each in enumerate(questions, 1)]
        return [task.result() for task in running]

    async def _look_into(self, number: int, question: str, stream: AgentStream) -> str:
        call_id = await stream.tool_call("research", {"question": question}, call_id=f"question-{number}")
        try:
            # A key, because the parts begin in whatever order there is room for them.
            answer = await self.services.call_llm(question, system=INVESTIGATE, tools="auto", key=f"question-{number}")
        except ProviderError as error:
            self.services.log.warning("a part of the research failed", question=question, error=str(error))
            await stream.tool_result(call_id, "research", f"failed: {error}", is_error=True)
            return ""
        await stream.tool_result(call_id, "research", answer.text)
        return answer.text

    async def _report(
        self, request: AgentRequest, questions: list[str], findings: list[str], stream: AgentStream
    ) -> None:
        found = "\n\n".join(
            f"## {question}\n{finding or 'nothing could be found out'}"
            for question, finding in zip(questions, findings, strict=True)
        )
        language = f" in {self.config['language']}" if self.config["language"] else ""
        await self.services.call_llm(
            f"Question: {request.message}\n\nFindings:\n\n{found}",
            system=REPORT.format(language=language),
            stream_to=stream,
            key="report",
        )
