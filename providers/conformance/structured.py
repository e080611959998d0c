"""Suite: answers that are JSON of a given schema."""

from __future__ import annotations

from typing import Any

import msgspec

from providers.capabilities import Capability
from providers.conformance.support import Conformance, body_of, check, has_text, keys_in, needs
from providers.messages import ToolCall, ToolOutcome
from providers.tool_loop import Run
from providers.tool_loop import run as run_loop
from queue_backends import ChunkType, Task

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "temperature_c": {"type": "number"}},
    "required": ["city", "temperature_c"],
    "additionalProperties": False,
}
"""What the recording `structured` answers to."""


class StructuredConformance(Conformance):
    """The schema reaches the model, the answer is validated, and a wrong one is repaired once."""

    @needs(Capability.NATIVE_SCHEMA)
    async def test_schema_is_sent(self) -> None:
        """The vendor is given the schema in a form of its own: as JSON, not as a text."""
        body = body_of(await self.sent(tools=(), output_schema=SCHEMA))
        check("temperature_c" in set(keys_in(body)), f"the request does not have the schema: {body}")

    @needs(Capability.STRUCTURED_OUTPUT)
    async def test_structured_output(self) -> None:
        """The answer's value is the run's (recording `structured`); the prompt asks if the vendor cannot be told."""
        ran, (body,) = await self._run("structured")
        check(
            ran.structured == msgspec.json.decode(self.expected("structured").message.text), f"it is {ran.structured}"
        )
        asked = has_text(body, "Respond with valid JSON matching this schema")
        check(b"temperature_c" in msgspec.json.encode(body), f"the request does not have the schema: {body}")
        native = Capability.NATIVE_SCHEMA not in self.provider().gaps
        check(native == self.provider().native_output_schema, "`native_output_schema` and `gaps` disagree")
        check(native != asked, f"the schema is {'also' if asked else 'not'} in the prompt")

    @needs(Capability.STRUCTURED_OUTPUT)
    async def test_repair(self) -> None:
        """An answer that does not fit is asked for once more, with what was wrong with it."""
        ran, bodies = await self._run("text", "structured")
        check(len(bodies) == 2, f"{len(bodies)} requests were made")
        wrong = self.expected("text").message.text
        check(has_text(bodies[1], wrong[:20]), "the second request does not have the first answer")
        check(has_text(bodies[1], "JSON"), f"the second request does not say what was wrong: {bodies[1]}")
        check(
            ran.structured == msgspec.json.decode(self.expected("structured").message.text), f"it is {ran.structured}"
        )

    async def _run(self, *names: str) -> tuple[Run, list[Any]]:
        async with self.serving(*(self.whole(name) for name in names)) as (server, provider, config):
            config = msgspec.structs.replace(config, output_schema=SCHEMA, max_retries=0)
            task = Task(id="task-1", prompt="What is the weather in Lisbon?")
            ran = await run_loop(provider, config, task, (), _no_tool, _no_chunk)
            return ran, [body_of(request) for request in server.requests]


async def _no_tool(call: ToolCall) -> ToolOutcome:
    return ToolOutcome(call_id=call.id, name=call.name, content="there is no tool", is_error=True)


async def _no_chunk(kind: ChunkType, content: str, metadata: object = None, /) -> None:
    return
