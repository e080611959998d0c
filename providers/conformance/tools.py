"""Suite: tools, and whether the model may, must or must not call one."""

from __future__ import annotations

import msgspec

from providers.capabilities import Capability
from providers.conformance.support import TOOL, Conformance, body_of, check, collect, end_of, has_text, needs, values_in
from providers.messages import Message, Role, StopReason, ToolChoice, ToolOutcome, TurnRequest


class ToolConformance(Conformance):
    """Tools go out, calls come in, outcomes go back."""

    @needs(Capability.TOOLS)
    async def test_tool_call(self) -> None:
        """A tool call has its name and the arguments that the model wrote (recording `tool_call`)."""
        end = await self.replays("tool_call")
        check(bool(end.message.tool_calls), "the turn has no tool call")
        check(end.stop_reason is StopReason.TOOL_USE, f"the stop reason is {end.stop_reason}")

    @needs(Capability.TOOLS)
    async def test_tools_are_described(self) -> None:
        """Name, description and schema of a tool are in the request."""
        body = body_of(await self.sent())
        for text in (TOOL.name, TOOL.description):
            check(has_text(body, text), f"the request does not have {text!r}: {body}")
        check('"city"' in msgspec.json.encode(body).decode(), f"the request does not have the tool's schema: {body}")

    @needs(Capability.TOOLS)
    async def test_tool_round_trip(self) -> None:
        """The call, and what the tool answered, are part of the next request."""
        async with self.serving(self.whole("tool_call"), self.whole("text")) as (server, provider, config):
            config = msgspec.structs.replace(config, max_retries=0)
            first = TurnRequest(config=config, messages=(Message.user("What is the weather?"),), tools=(TOOL,))
            end = end_of(await collect(provider, first))
            outcome = tuple(
                ToolOutcome(call_id=call.id, name=call.name, content=f"outcome-of-{call.name}")
                for call in end.message.tool_calls
            )
            answered = (*first.messages, end.message, Message(role=Role.USER, parts=outcome))
            await collect(provider, msgspec.structs.replace(first, messages=answered, turn=1))
            second = server.requests[1].body.decode()
            for call in end.message.tool_calls:
                check(call.name in second, f"the request does not repeat the call of {call.name}")
                check(f"outcome-of-{call.name}" in second, f"the request does not have the outcome of {call.name}")
                for value in values_in(msgspec.json.decode(call.arguments)):
                    check(str(value) in second, f"the request does not repeat the argument {value!r} of {call.name}")

    @needs(Capability.TOOLS)
    async def test_failed_tool(self) -> None:
        """A tool's failure is an outcome, too: the model reads what went wrong."""
        end = await self.replays("tool_call")
        outcomes = tuple(
            ToolOutcome(call_id=call.id, name=call.name, content="no-such-city", is_error=True)
            for call in end.message.tool_calls
        )
        body = body_of(await self.sent(Message.user("Hi"), end.message, Message(role=Role.USER, parts=outcomes)))
        check(has_text(body, "no-such-city"), f"the request does not have the failure: {body}")

    @needs(Capability.PARALLEL_TOOLS)
    async def test_parallel_tools(self) -> None:
        """Several calls in one turn keep their order, and each has an id of its own (recording `parallel_tools`)."""
        calls = (await self.replays("parallel_tools")).message.tool_calls
        check(len(calls) > 1, f"the turn has {len(calls)} tool calls, several were recorded")
        check(len({call.id for call in calls}) == len(calls), "two tool calls have the same id")

    @needs(Capability.TOOL_REQUIRED)
    async def test_tool_choice_required(self) -> None:
        """A model that must call a tool is asked in another way than one that may."""
        may, must = await self.sent(), await self.sent(tool_choice=ToolChoice.REQUIRED)
        check(body_of(may) != body_of(must), "tool_choice `required` changes nothing in the request")
        check(has_text(body_of(must), TOOL.name), "with tool_choice `required`, the tool is gone")

    @needs(Capability.TOOL_NONE)
    async def test_tool_choice_none(self) -> None:
        """So is a model that must not."""
        may, must_not = await self.sent(), await self.sent(tool_choice=ToolChoice.NONE)
        check(body_of(may) != body_of(must_not), "tool_choice `none` changes nothing in the request")
