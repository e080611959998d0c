"""States of runs as they would come one after the other, made by hand, and a screen to show them on."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from providers import AgentConfig
from queue_backends import TokenUsage
from worker.cli.screen import Screen
from worker.teams.plan import Loop, Plan, Role, Step, Team
from worker.teams.run_state import ChildState, Phase, RunState, StepState

BEGAN_AT = 1_000_000.0


class Sheet(io.StringIO):
    """Text that tells when something was written."""

    def __init__(self, news: asyncio.Event) -> None:
        super().__init__()
        self._news = news

    def write(self, text: str) -> int:
        """Write it and tell it."""
        self._news.set()
        return super().write(text)


class Paper(Screen):
    """A screen of a fixed size that remembers what was written."""

    def __init__(self, columns: int = 80, lines: int = 24, *, is_terminal: bool = False) -> None:
        self._news = asyncio.Event()
        self.paper = Sheet(self._news)
        self.notes = Sheet(self._news)
        super().__init__(out=self.paper, err=self.notes, environ={})
        self.dimensions = (columns, lines)
        self.fancy = is_terminal

    @property
    def size(self) -> tuple[int, int]:
        """As it was said."""
        return self.dimensions

    @property
    def all(self) -> str:
        """All that was written."""
        return self.paper.getvalue()

    async def written(self) -> None:
        """Return when something new is written."""
        self._news.clear()
        await self._news.wait()

    def take(self) -> str:
        """What was written since this was last asked."""
        written = self.paper.getvalue()
        self.paper.seek(0)
        self.paper.truncate()
        return written


def tokens(total: int) -> TokenUsage:
    """So many of them."""
    return TokenUsage(input_tokens=total, output_tokens=0)


def done(name: str, *, at_s: float, took_s: float, **fields: Any) -> StepState:
    """A step that has succeeded."""
    usage = tokens(fields.pop("tokens", 0))
    return StepState(
        name=name,
        phase=Phase.SUCCEEDED,
        iteration=fields.pop("iteration", 1),
        tries=fields.pop("tries", 1),
        started_at=BEGAN_AT + at_s,
        ended_at=BEGAN_AT + at_s + took_s,
        usage=usage,
        **fields,
    )


def busy(name: str, *, at_s: float = 0.0, **fields: Any) -> StepState:
    """A step that is being done."""
    return StepState(
        name=name,
        phase=fields.pop("phase", Phase.RUNNING),
        iteration=fields.pop("iteration", 1),
        tries=fields.pop("tries", 1),
        started_at=BEGAN_AT + at_s,
        **fields,
    )


def state(*steps: StepState, phase: Phase = Phase.RUNNING, **fields: Any) -> RunState:
    """A run with these steps."""
    return RunState(id="t-1", team="t", phase=phase, steps=steps, created_at=BEGAN_AT, started_at=BEGAN_AT, **fields)


def child(task_id: str, role: str, *, parent: str, **fields: Any) -> ChildState:
    """A task that somebody delegated."""
    return ChildState(task_id=task_id, step=fields.pop("step", "a"), parent=parent, role=role, **fields)


def plan(*steps: Step, **fields: Any) -> Plan:
    """A plan whose roles all have the same model."""
    roles = tuple(Role(name=step.role, config=AgentConfig(model="gpt-4o")) for step in steps)
    return Plan(name="t", teams=(Team(name="t", roles=roles, steps=steps, **fields),))


def step(name: str, *after: str, rounds: int = 0, **fields: Any) -> Step:
    """A step that its own role does."""
    loop = Loop(condition="true", max_iterations=rounds) if rounds else None
    return Step(name=name, role=fields.pop("role", name), depends_on=after, loop=loop, **fields)
