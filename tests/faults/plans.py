"""What a task of the workload shall do: its prompt says it, the fake provider obeys it, the checker expects it.

A plan is the task's prompt, as JSON. The provider answers turn `n` of the conversation as the plan's turn `n` says. All
that it speaks carries the task's key, the turn and the number of the model call, so that wherever a piece of text turns
up, it tells which call it came from.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

IDEMPOTENT_TOOLS = frozenset({"look", "count"})
ONCE_ONLY_TOOLS = frozenset({"pay", "note"})
"""A second effect of one of these for the same step is a defect."""

_SPOKEN = re.compile(r"\[([\w.-]+)/(\d+)/(\d+)\]")


class Trouble(enum.StrEnum):
    """What the provider does instead of answering, once for each time that a turn's list names it."""

    RATE_LIMITED = "429"
    FAILING = "500"
    OVERLOADED = "503"
    BROKEN = "break"
    """Half of the answer, then the connection is reset."""
    ERROR_EVENT = "error event"
    """Half of the answer, then an error inside the stream."""
    SILENT = "silence"
    """Half of the answer, then nothing until the worker gives up."""
    REFUSED = "400"
    """The request is wrong and will always be."""


class ToolUse(Struct, frozen=True, array_like=True):
    """One tool call of a turn; `hold_s` is how long the tool takes, its effect happens in the middle."""

    tool: str
    hold_s: float


class Turn(Struct, frozen=True, omit_defaults=True):
    """One answer of the model: `pieces` of text `pause_s` apart, then the tool calls."""

    pieces: int
    pause_s: float = 0.0
    tools: tuple[ToolUse, ...] = ()
    trouble: tuple[Trouble, ...] = ()
    padding: int = 0
    """Further characters in each piece."""


class Plan(Struct, frozen=True):
    """One task. `key` is the engine's own name for it, unique in a soak."""

    key: str
    turns: tuple[Turn, ...]

    @property
    def prompt(self) -> str:
        """The plan as the task's prompt."""
        return msgspec.json.encode(self).decode()

    @property
    def least_s(self) -> float:
        """How long it takes if nothing holds it up."""
        return sum(
            turn.pieces * turn.pause_s + max((use.hold_s for use in turn.tools), default=0.0) for turn in self.turns
        )

    @property
    def fails(self) -> bool:
        """Whether the provider refuses the task for good."""
        return any(Trouble.REFUSED in turn.trouble for turn in self.turns)


def plan_of(prompt: str) -> Plan:
    """The plan that a prompt holds. Raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
    return msgspec.json.decode(prompt, type=Plan)


def pieces_of(plan: Plan, turn: int, call: int) -> list[str]:
    """The text of an answer, piece by piece."""
    said = plan.turns[turn]
    pieces = [f"[{plan.key}/{turn}/{call}]"]
    pieces += [f" {number}{'.' * said.padding}" for number in range(1, said.pieces)]
    return pieces


def text_of(plan: Plan, turn: int, call: int) -> str:
    """The whole text of an answer."""
    return "".join(pieces_of(plan, turn, call))


def speaker_of(text: str) -> tuple[str, int, int] | None:
    """Task key, turn and number of the model call that a text began with; None if it is none of ours."""
    found = _SPOKEN.match(text)
    return (found[1], int(found[2]), int(found[3])) if found else None


def call_id(call: int, index: int) -> str:
    """The provider's id of a tool call: another one whenever the model is asked again, as in life."""
    return f"call_{call}_{index}"


def step_of(turn: int, index: int) -> str:
    """The name of a tool call's place in the plan, whichever model call asked for it."""
    return f"{turn}.{index}"


def steps_of(plan: Plan) -> Sequence[tuple[str, ToolUse]]:
    """All tool calls of a plan."""
    return [(step_of(turn, index), use) for turn, said in enumerate(plan.turns) for index, use in enumerate(said.tools)]


def done_text(key: str, step: str) -> str:
    """What every tool answers."""
    return f"done {key} {step}"
