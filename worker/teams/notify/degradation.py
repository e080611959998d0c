"""`Degradation`: somebody's work has come to lack something, as `AgentDegraded` tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct


class Degradation(Struct, frozen=True, kw_only=True):
    """What an agent needs is away, and for so long that it is no mere restart."""

    agent: str
    """Whose trouble it is: an agent, `<team>/<role>`, or a plugin that others call."""
    cause: str
    """What is away, such as `MCP server "search"`."""
    reason: str
    """Why, in a sentence."""
    tenant: str = ""
    policy: str = ""
    """The notification policy that its team names; empty: none."""


OnDegraded = Callable[[Degradation], Awaitable[None]]
