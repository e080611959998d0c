"""What a compiled plugin says to a model, as providers take it."""

from __future__ import annotations

from typing import cast

import pytest

from providers.messages import Message, TextPart, ToolCall, ToolOutcome
from worker.agent_plugins.go_plugin.messages import LLMMessage
from worker.agent_plugins.go_plugin.scope import MessageScope
from worker.agent_plugins.go_plugin.translation import prompt_of
from worker.agent_plugins.request import AgentRequest, RequestContext
from worker.agent_plugins.services import PluginServices

Q = LLMMessage(role="user", content="q")
EMPTY = LLMMessage(role="assistant")


def outcome(call_id: str = "") -> LLMMessage:
    """What a tool answered."""
    return LLMMessage(role="tool", content="r", tool_call_id=call_id)


def shape(messages: list[Message]) -> list[str]:
    """Each message in short: `a:t` is a call of an assistant, `u:=t` its outcome."""
    return [f"{message.role.value[0]}:{' '.join(_short(part) for part in message.parts)}" for message in messages]


def _short(part: object) -> str:
    match part:
        case TextPart(text=text):
            return repr(text)
        case ToolCall(id=call_id):
            return call_id
        case ToolOutcome(call_id=call_id):
            return f"={call_id}"
    raise AssertionError(part)


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ([Q, EMPTY, outcome("x"), EMPTY, outcome("y")], ["u:'q'", "a:x", "u:=x", "a:y", "u:=y"]),
        ([Q, EMPTY, outcome("x"), outcome("y")], ["u:'q'", "a:x y", "u:=x =y"]),
        ([Q, LLMMessage(role="assistant", content="hm"), outcome("x")], ["u:'q'", "a:'hm' x", "u:=x"]),
        ([Q, outcome("x"), Q, outcome("y")], ["u:'q'", "a:x", "u:=x 'q'", "a:y", "u:=y"]),
        ([Q, outcome(), outcome()], ["u:'q'", "a:call-1 call-2", "u:=call-1 =call-2"]),
    ],
)
def test_tool_calls_stand_before_their_outcomes(said: list[LLMMessage], sent: list[str]) -> None:
    """Given a conversation without the calls, which the protocol has no place for, then each turn has its own again,
    and each outcome a call."""
    _, prompt = prompt_of(said, {})
    assert shape(prompt) == sent


def test_system_messages_are_the_system_prompt() -> None:
    """Given system messages anywhere, then they are the prompt, and no part of the conversation."""
    system, prompt = prompt_of(
        [LLMMessage(role="system", content="be"), Q, LLMMessage(role="system", content="so")], {}
    )
    assert (system, shape(prompt)) == ("be\n\nso", ["u:'q'"])


def scope() -> MessageScope:
    """Of a message; nothing is asked of its services."""
    request = AgentRequest(message="hello", context=RequestContext(task_id="t", agent="bot"))
    return MessageScope(request, cast("PluginServices", None))


def test_ids_of_calls_are_told_apart() -> None:
    """Given a model that counts its calls anew in each answer, then the plugin has another id for each, and what it
    tells of one later is said of that one."""
    known = scope()
    (first,) = known.remembered([ToolCall(id="call_0", name="a")])
    (second,) = known.remembered([ToolCall(id="call_0", name="b")])
    assert first.id != second.id
    _, prompt = prompt_of([Q, EMPTY, outcome(first.id), EMPTY, outcome(second.id)], known.tool_calls)
    assert [part.name for message in prompt for part in message.parts if isinstance(part, ToolCall)] == ["a", "b"]
