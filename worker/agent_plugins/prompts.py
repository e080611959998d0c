"""What a plugin may hand over as a prompt or as tools, and what the tool loop takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from providers import ClientTool, InvalidRequest
from providers.messages import Message, ToolSpec, conversation
from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import PluginDenied, PluginMisuse
from worker.agent_plugins.services import Prompt, Tools


def messages_of(prompt: Prompt) -> tuple[Message, ...]:
    """The conversation that a prompt is. Raises `PluginMisuse` naming what does not fit."""
    items: list[Message | Mapping[str, Any]]
    if isinstance(prompt, str):
        items = [Message.user(prompt)]
    elif isinstance(prompt, Message | Mapping):
        items = [prompt]
    elif isinstance(prompt, Sequence):
        items = [*prompt]
    else:
        raise PluginMisuse(f"the prompt is {type(prompt).__name__}: give text, a message, or a list of messages")
    if not items or (isinstance(prompt, str) and not prompt.strip()):
        raise PluginMisuse("the prompt is empty: give the model some text")
    try:
        return conversation([_plain(item) for item in items], "")
    except InvalidRequest as error:
        raise PluginMisuse(f"the prompt does not fit: {error}") from error


def _plain(item: Message | Mapping[str, Any]) -> JsonObject:
    if isinstance(item, Message):
        plain: JsonObject = msgspec.to_builtins(item)
        return plain
    if not isinstance(item, Mapping):
        raise PluginMisuse(f"a message is {type(item).__name__}: use {{'role': 'user', 'content': 'text'}}")
    return dict(item)


def history_of(messages: Sequence[Message]) -> tuple[JsonObject, ...]:
    """The same as a task's history."""
    return tuple(msgspec.to_builtins(message) for message in messages)


def client_tools_of(tools: Tools, own: Sequence[ToolSpec]) -> tuple[ClientTool, ...]:
    """The tools that the plugin calls itself. Raises `PluginMisuse`, or `PluginDenied` for a name that the agent does
    not have."""
    if tools is None or tools == "auto":
        return ()
    if isinstance(tools, str):
        raise PluginMisuse(f"tools is {tools!r}: use 'auto', a list of tools, or None")
    return tuple(_client_tool(tool, own) for tool in tools)


def _client_tool(tool: ToolSpec | Mapping[str, Any] | str, own: Sequence[ToolSpec]) -> ClientTool:
    if isinstance(tool, str):
        found = next((spec for spec in own if spec.name == tool), None)
        if found is None:
            raise PluginDenied(f"tool not allowed for this agent: {tool[:100]!r}")
        tool = found
    if isinstance(tool, ToolSpec):
        return ClientTool(name=tool.name, description=tool.description, input_schema=tool.input_schema)
    try:
        return msgspec.convert(dict(tool), ClientTool)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise PluginMisuse(
            f"a tool does not fit: {error}: use a name, a ToolSpec, or "
            "{'name': …, 'description': …, 'input_schema': …}"
        ) from error
