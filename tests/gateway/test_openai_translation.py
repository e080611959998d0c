"""Conversations survive the way in: what a vendor's client sends, sent on to that vendor, is the same again.

The way out is the providers' own code, which is written for the vendors and knows nothing of the gateway.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from providers import AgentConfig, ClientTool, Message, TurnRequest
from providers.anthropic_request import request_body as anthropic_body
from providers.openai_request import messages as openai_messages
from worker.gateway.anthropic_api import translation as anthropic_translation
from worker.gateway.anthropic_api.request import MessageParam
from worker.gateway.ingress.ask import Ask
from worker.gateway.openai_api import chat_translation
from worker.gateway.openai_api.chat_request import ChatMessage
from worker.gateway.openai_api.input_items import input_of, items_of

TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
NAMES = st.sampled_from(["get_weather", "get_time"])
ARGUMENTS = st.dictionaries(st.sampled_from("abc"), st.integers(-5, 5) | TEXTS, max_size=3)
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@st.composite
def exchanges(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """Turns: what the user says (and shows), what the assistant says and calls, and what the calls gave."""
    found: list[tuple[str, Any]] = []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        found.append(("user", (draw(TEXTS), draw(st.booleans()))))
        for _ in range(draw(st.integers(0, 2))):
            calls = []
            for _ in range(draw(st.integers(1, 3))):
                number += 1
                calls.append((f"call_{number}", draw(NAMES), draw(ARGUMENTS)))
            found.append(("calls", (draw(st.none() | TEXTS), calls)))
            found.append(("results", [(identifier, draw(TEXTS)) for identifier, _, _ in calls]))
        found.append(("assistant", draw(TEXTS)))
    found.append(("user", (draw(TEXTS), False)))
    return found


def as_json(value: Any) -> str:
    """JSON text as our own encoder writes it."""
    return msgspec.json.encode(value).decode()


def chat_form(turns: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The conversation for Chat Completions."""
    built: list[dict[str, Any]] = []
    for kind, said in turns:
        match kind:
            case "user":
                text, shows = said
                image = {"type": "image_url", "image_url": {"url": PICTURE}}
                content: Any = [{"type": "text", "text": text}, image] if shows else text
                built.append({"role": "user", "content": content})
            case "calls":
                text, calls = said
                made = [
                    {"id": identifier, "type": "function", "function": {"name": name, "arguments": as_json(arguments)}}
                    for identifier, name, arguments in calls
                ]
                built.append({"role": "assistant", "content": text, "tool_calls": made})
            case "results":
                built += [{"role": "tool", "tool_call_id": key, "content": text} for key, text in said]
            case _:
                built.append({"role": "assistant", "content": said})
    return built


def messages_form(turns: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The conversation for Anthropic."""
    built: list[dict[str, Any]] = []
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    for kind, said in turns:
        match kind:
            case "user":
                text, shows = said
                image = [{"type": "image", "source": source}] if shows else []
                built.append({"role": "user", "content": [{"type": "text", "text": text}, *image]})
            case "calls":
                text, calls = said
                blocks = [
                    {"type": "tool_use", "id": identifier, "name": name, "input": arguments}
                    for identifier, name, arguments in calls
                ]
                before = [{"type": "text", "text": text}] if text else []
                built.append({"role": "assistant", "content": [*before, *blocks]})
            case "results":
                results = [{"type": "tool_result", "tool_use_id": key, "content": text} for key, text in said]
                built.append({"role": "user", "content": results})
            case _:
                built.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
    return built


def items_form(turns: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """The conversation as items for Responses."""
    built: list[dict[str, Any]] = []
    for kind, said in turns:
        match kind:
            case "user":
                text, shows = said
                image = [{"type": "input_image", "image_url": PICTURE}] if shows else []
                built.append({"role": "user", "content": [{"type": "input_text", "text": text}, *image]})
            case "calls":
                text, calls = said
                if text:
                    built.append({"role": "assistant", "content": text})
                built += [
                    {"type": "function_call", "call_id": identifier, "name": name, "arguments": as_json(arguments)}
                    for identifier, name, arguments in calls
                ]
            case "results":
                built += [{"type": "function_call_output", "call_id": key, "output": text} for key, text in said]
            case _:
                built.append({"role": "assistant", "content": [{"type": "output_text", "text": said}]})
    return built


def through_a_task(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """As a worker has it: through the task's history and prompt, as JSON."""
    from providers import conversation

    task = Ask(agent="a", messages=messages).task()
    history = msgspec.json.decode(msgspec.json.encode(task.history))
    return conversation(history, task.prompt)


@given(exchanges())
def test_chat_conversations_survive(turns: list[tuple[str, Any]]) -> None:
    """Chat Completions, there and back."""
    sent = chat_form(turns)
    taken = chat_translation.conversation_of(msgspec.convert(sent, list[ChatMessage]))
    assert openai_messages("", through_a_task(taken), "") == sent


@given(exchanges())
def test_anthropic_conversations_survive(turns: list[tuple[str, Any]]) -> None:
    """Messages, there and back."""
    sent = messages_form(turns)
    taken = anthropic_translation.conversation_of(msgspec.convert(sent, list[MessageParam]))
    request = TurnRequest(config=AgentConfig(model="m"), messages=through_a_task(taken))
    assert msgspec.json.decode(anthropic_body(request))["messages"] == sent


@given(exchanges())
def test_items_are_the_same_conversation(turns: list[tuple[str, Any]]) -> None:
    """Responses' items and Chat Completions' messages of one conversation are the same to an agent."""
    items = input_of(items_of(items_form(turns)), {}).messages
    chat = chat_translation.conversation_of(msgspec.convert(chat_form(turns), list[ChatMessage]))
    assert openai_messages("", through_a_task(items), "") == openai_messages("", chat, "")


def test_a_named_tool_is_the_only_one_of_its_run() -> None:
    """Vendors have no word for it that all of them know: the model has this tool alone, and has to call one."""
    tools = (ClientTool(name="one"), ClientTool(name="two"))
    asked = Ask(agent="any", messages=(Message.user("hello"),), client_tools=tools, only_tool="one").overrides()
    assert asked["tools"] == []
    assert [tool["name"] for tool in asked["client_tools"]] == ["one"]
    assert asked["tool_choice"] == "required"
