"""What is known of a run at one moment. It is folded from the run's events, and is never stored itself."""

from __future__ import annotations

import enum
from typing import Any

from msgspec import Struct

from queue_backends import TokenUsage


class Phase(enum.StrEnum):
    """Of a run or a step. The words are kubeswarm's; `Waiting` and `Cancelled` are ours."""

    PENDING = "Pending"
    RUNNING = "Running"
    VALIDATING = "Validating"
    WAITING = "Waiting"
    """For a person's approval."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it stays so."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.SKIPPED, Phase.CANCELLED)


class StepState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step, over all its iterations."""

    name: str
    phase: Phase = Phase.PENDING
    role: str = ""
    """Who does it: differs from the plan's where it was looked up."""
    task_id: str = ""
    """The present or last task; its chunks are the step's stream."""
    run_id: str = ""
    """If a team fulfils the step: its run."""
    approval_id: str = ""
    """The open question it waits for."""
    iteration: int = 0
    """From 1 once it has begun."""
    tries: int = 0
    """Of this iteration: repair turns and validation retries make it more than one."""
    output: str = ""
    """What later steps see, after its context policy."""
    raw_output: str = ""
    """What the agent said, where that differs."""
    data: Any = None
    """The parsed output, where it has a schema and fits it."""
    artifacts: dict[str, str] = {}
    validated: bool = False
    message: str = ""
    """Why it failed or was skipped, or what it is at."""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    started_at: float = 0.0
    """Unix seconds; 0: not yet."""
    ended_at: float = 0.0

    @property
    def tokens(self) -> int:
        """All that it used."""
        return self.usage.total_tokens


class ChildState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that a role delegated, or put into the queue for itself."""

    task_id: str
    step: str
    """The step that it belongs to."""
    parent: str
    """The task that made it."""
    role: str
    prompt: str = ""
    """Shortened."""
    depth: int = 1
    phase: Phase = Phase.RUNNING
    output: str = ""
    error: str = ""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    started_at: float = 0.0
    ended_at: float = 0.0


class RunState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run, and all its steps in the plan's order."""

    id: str
    team: str
    phase: Phase = Phase.PENDING
    steps: tuple[StepState, ...] = ()
    children: tuple[ChildState, ...] = ()
    input: dict[str, Any] = {}
    output: str = ""
    reason: str = ""
    """Why it failed, in one word: `StepFailed`, `BudgetExceeded`, `TimedOut`, `Cancelled`, `BadTemplate`."""
    message: str = ""
    """The same in a sentence."""
    usage: TokenUsage = TokenUsage()
    cost_usd: float | None = None
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    cancel_requested: bool = False

    def step(self, name: str) -> StepState:
        """The state of a step. Raises `KeyError`."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def tokens(self) -> int:
        """All that it used."""
        return self.usage.total_tokens
