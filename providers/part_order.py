"""The order of a message's parts that vendors ask for."""

from __future__ import annotations

from collections.abc import Sequence

from providers.messages import Message, Part, Role, ToolOutcome


def outcomes_first(message: Message) -> Sequence[Part]:
    """The message's parts; in a user's message, those first that answer tool calls."""
    if message.role is Role.USER:
        return sorted(message.parts, key=lambda part: not isinstance(part, ToolOutcome))
    return message.parts
