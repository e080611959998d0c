"""What a client of a vendor's API asks for, in our own terms, and the task that it becomes."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from providers import ClientTool, Message, Role, TextPart, Thinking, ToolChoice
from queue_backends import Priority, Task
from queue_backends.messages import JsonObject


class Ask(Struct, frozen=True, kw_only=True):
    """A request. What is UNSET or empty stays as the agent has it."""

    agent: str
    """The model's name: an agent's slug."""
    messages: tuple[Message, ...]
    instructions: str = ""
    """The client's system prompt: it is added to the agent's own."""
    client_tools: tuple[ClientTool, ...] = ()
    tool_choice: ToolChoice | None = None
    only_tool: str = ""
    """The one tool that the model has to call."""
    parallel_calls: bool = True
    """Whether the client takes several calls at once."""
    output_schema: JsonObject | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    thinking: Thinking | UnsetType | None = UNSET
    """None: none at all."""
    priority: Priority = Priority.NORMAL
    meta: dict[str, str] = {}

    def task(self, *, deadline: float | None = None, idempotency_key: str = "") -> Task:
        """The task that answers it. A last message of plain text is its prompt, the others are its history."""
        messages, prompt = self.messages, ""
        last = messages[-1]
        if last.role is Role.USER and last.parts and all(isinstance(part, TextPart) for part in last.parts):
            messages, prompt = messages[:-1], last.text
        if not prompt.strip():
            messages, prompt = self.messages, ""
        return Task(
            prompt=prompt,
            agent=self.agent,
            history=tuple(plain(message) for message in messages),
            priority=self.priority,
            meta=self.meta,
            overrides=self.overrides(),
            deadline=deadline,
            idempotency_key=idempotency_key,
        )

    def overrides(self) -> JsonObject:
        """Where the run differs from what the agent does by itself."""
        tools = self.client_tools
        choice = self.tool_choice
        found: dict[str, Any] = {}
        if self.only_tool:
            tools = tuple(tool for tool in tools if tool.name == self.only_tool)
            choice = ToolChoice.REQUIRED
            found["tools"] = []
        if tools:
            found["client_tools"] = [msgspec.to_builtins(tool) for tool in tools]
        if choice is not None:
            found["tool_choice"] = choice.value
        if self.thinking is not UNSET:
            found["thinking"] = msgspec.to_builtins(self.thinking)
        given = {
            "instructions": self.instructions or None,
            "output_schema": self.output_schema,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": list(self.stop) or None,
        }
        return {**found, **{name: value for name, value in given.items() if value is not None}}


def addressed(messages: tuple[Message, ...], instructions: str) -> tuple[tuple[Message, ...], str]:
    """What is said, and the instructions beside it. Where there are instructions and nothing else, they are what is
    said: vendors answer those, too."""
    return (messages, instructions) if messages or not instructions else ((Message.user(instructions),), "")


def plain(message: Message) -> JsonObject:
    """A message as a task's history has it."""
    built: JsonObject = msgspec.to_builtins(message)
    return built
