"""Where a model call goes when there is a choice: what the tool-use loop asks, and what it tells whoever chooses.

Without a `TurnRouter` there is one provider for the whole run, and nothing of this is used.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct

from providers.interfaces import ChatProvider
from providers.messages import AgentConfig, TurnRequest
from queue_backends import CallOutcome


class Switch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a call goes elsewhere than the one before, or than the route would have it by itself."""

    route: str
    target: str
    """Where it goes."""
    provider: str
    model: str
    before: str
    """The target that it does not go to any more."""
    reason: str
    """One word: `overloaded`, `rate_limited`, `timeout`, `circuit_open`, `slow`, … (docs/routing.md)."""
    error: str = ""
    """What went wrong there, cut to one line."""
    beside: int | None = None
    """The call is a hedge: the call with this attempt goes on, and whoever speaks first wins."""

    def metadata(self) -> dict[str, Any]:
        """As a chunk shows it."""
        said = {
            "name": self.route,
            "target": self.target,
            "provider": self.provider,
            "model": self.model,
            "from": self.before,
            "reason": self.reason,
        }
        return {"route": {**said, "error": self.error} if self.error else said}


class Target(Struct, frozen=True, kw_only=True):
    """Where one call goes."""

    name: str
    """As people read it, such as `openai/gpt-4o`."""
    provider: ChatProvider
    config: AgentConfig
    """The agent's, with what this target has of its own; `provider` and `model` are never empty."""
    switch: Switch | None = None


class CallEnd(Struct, frozen=True, kw_only=True):
    """How a call ended."""

    outcome: CallOutcome | None
    """None: it was not sent after all."""
    error: BaseException | None = None
    first_chunk_s: float | None = None
    """From the request to the first chunk; None if none came."""
    lasted_s: float = 0.0


class TurnRouter(Protocol):
    """Chooses for one run. What it gives is reserved until `ended` is called with it, exactly once."""

    hedge_after_s: float | None
    """When a call has said nothing for so long, `second` is asked for another target. None: never."""

    async def first(self, request: TurnRequest) -> Target:
        """Where the first call of a turn goes. Raises what the run shall end with if there is nowhere to go."""
        ...

    async def next(self, error: Exception) -> Target | None:
        """Where the turn goes on after a call failed with `error`; None if every target has had its try."""
        ...

    async def second(self, beside: int) -> Target | None:
        """Another target, to be called beside the call with attempt `beside`; None if there is none to spare."""
        ...

    def again(self, target: Target) -> Target:
        """Reserve the same target once more."""
        ...

    def ended(self, target: Target, end: CallEnd) -> None:
        """A call has ended, or was not sent."""
        ...

    async def answered(self, target: Target) -> None:
        """The run goes on with the answer of this target."""
        ...

    def passes_over(self, error: Exception) -> bool:
        """Whether a call that was kept from being sent with `error` may go elsewhere instead."""
        ...

    def exhausted(self, error: Exception) -> Exception:
        """What to raise after the last of this turn's targets has failed, with `error`."""
        ...
