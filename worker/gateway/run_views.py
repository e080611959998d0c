"""What the API of runs and teams takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from queue_backends.messages import JsonObject
from worker.teams.plan import InputSpec, Team
from worker.teams.run_header import RunHeader, RunSummary
from worker.teams.run_state import ChildState, Phase, RunState, StepState

MOST_FILE_CHARS = 256 * 1024
MOST_RUNS = 200
MOST_LABELS = 32
PREVIEW_CHARS = 2000
"""Of an output where many are told at once."""

Name = Annotated[str, Meta(max_length=200)]
Label = Annotated[str, Meta(max_length=500)]


class RunRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is to be run: a team of the fleet, or one that a file declares."""

    team: Name = ""
    """A team of the fleet; with a `file`, which of its teams: empty means the first."""
    file: Annotated[str, Meta(max_length=MOST_FILE_CHARS)] = ""
    """A whole team file (YAML), for those who may declare agents. It starts no commands, and nothing of it is looked up
    in the server's environment."""
    input: JsonObject = {}
    labels: Annotated[dict[Name, Label], Meta(max_length=MOST_LABELS)] = {}
    idempotency_key: Name = ""
    """Starting with the same key again gives the same run. The header `Idempotency-Key` is the same."""
    tenant: Name = ""
    """For callers that are not bound to one."""


class RunsQuery(Struct, frozen=True, kw_only=True):
    """Which runs, and how many."""

    team: Name = ""
    phase: tuple[Phase, ...] = ()
    """Comma-separated."""
    tenant: Name = ""
    limit: Annotated[int, Meta(ge=1, le=MOST_RUNS)] = 50
    cursor: Annotated[str, Meta(max_length=500)] = ""
    version: Annotated[int, Meta(ge=0)] = 0
    """Of the part `runs` of the feed `/v1/ops/events`, by those who ask again because of it: they share one look."""


class RunListItem(Struct, frozen=True, kw_only=True):
    """A run in a list."""

    id: str
    team: str
    phase: Phase
    reason: str
    message: str
    tenant: str
    trigger: str
    labels: dict[str, str]
    is_local: bool
    is_interrupted: bool
    """Of a local run: its process is gone. `shoal run --resume` goes on with it."""
    steps: int
    steps_ended: int
    tokens: int
    cost_usd: float | None
    created_at: float
    """Unix seconds, as all moments here; 0: not yet."""
    started_at: float
    ended_at: float

    @classmethod
    def of(cls, summary: RunSummary) -> RunListItem:
        """Of what the store keeps for lists."""
        return cls(
            id=summary.id,
            team=summary.team,
            phase=summary.phase,
            reason=summary.reason,
            message=summary.message[:PREVIEW_CHARS],
            tenant=summary.tenant,
            trigger=summary.trigger,
            labels=summary.labels,
            is_local=summary.is_local,
            is_interrupted=summary.is_interrupted,
            steps=summary.steps,
            steps_ended=summary.steps_ended,
            tokens=summary.tokens,
            cost_usd=summary.cost_usd,
            created_at=summary.created_at,
            started_at=summary.started_at,
            ended_at=summary.ended_at,
        )


class RunPage(Struct, frozen=True, kw_only=True):
    """Runs, the newest first."""

    runs: Sequence[RunListItem]
    next_cursor: str | None = None


class RunStarted(Struct, frozen=True, kw_only=True):
    """A run that was begun, or had been with the same key."""

    id: str
    team: str
    is_repeated: bool = False
    warnings: Sequence[str] = ()
    """What the file says that has no effect here."""


class StepView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step, with the beginning of its output."""

    name: str
    phase: Phase
    role: str = ""
    task_id: str = ""
    run_id: str = ""
    """If a team does it: its run."""
    approval_id: str = ""
    """The question that it waits for."""
    iteration: int = 0
    tries: int = 0
    output: str = ""
    is_cut: bool = False
    """The output is longer."""
    validated: bool = False
    message: str = ""
    tokens: int = 0
    cost_usd: float | None = None
    started_at: float = 0.0
    ended_at: float = 0.0

    @classmethod
    def of(cls, step: StepState) -> StepView:
        """Of what is known of it."""
        return cls(
            name=step.name,
            phase=step.phase,
            role=step.role,
            task_id=step.task_id,
            run_id=step.run_id,
            approval_id=step.approval_id,
            iteration=step.iteration,
            tries=step.tries,
            output=step.output[:PREVIEW_CHARS],
            is_cut=len(step.output) > PREVIEW_CHARS,
            validated=step.validated,
            message=step.message[:PREVIEW_CHARS],
            tokens=step.tokens,
            cost_usd=step.cost_usd,
            started_at=step.started_at,
            ended_at=step.ended_at,
        )


class ChildView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that a role delegated."""

    task_id: str
    step: str
    parent: str
    role: str
    phase: Phase
    prompt: str = ""
    output: str = ""
    error: str = ""
    depth: int = 1
    tokens: int = 0
    cost_usd: float | None = None
    started_at: float = 0.0
    ended_at: float = 0.0

    @classmethod
    def of(cls, child: ChildState) -> ChildView:
        """Of what is known of it."""
        return cls(
            task_id=child.task_id,
            step=child.step,
            parent=child.parent,
            role=child.role,
            phase=child.phase,
            prompt=child.prompt[:PREVIEW_CHARS],
            output=child.output[:PREVIEW_CHARS],
            error=child.error[:PREVIEW_CHARS],
            depth=child.depth,
            tokens=child.usage.total_tokens,
            cost_usd=child.cost_usd,
            started_at=child.started_at,
            ended_at=child.ended_at,
        )


class RunHead(Struct, frozen=True, kw_only=True):
    """A run without its steps."""

    id: str
    team: str
    mode: Literal["pipeline", "dynamic", "routed"]
    phase: Phase
    reason: str
    message: str
    tenant: str
    trigger: str
    parent: tuple[str, str] | None
    """The run and its step that this one works for."""
    labels: dict[str, str]
    is_local: bool
    """A `shoal run` on its own machine drives it; its streams are there alone."""
    input: dict[str, Any]
    output: str
    tokens: int
    cost_usd: float | None
    cancel_requested: bool
    created_at: float
    started_at: float
    ended_at: float

    @classmethod
    def of(cls, header: RunHeader, team: Team, state: RunState) -> RunHead:
        """Of what is known of it."""
        return cls(
            id=state.id,
            team=state.team,
            mode=team.mode,
            phase=state.phase,
            reason=state.reason,
            message=state.message,
            tenant=header.tenant,
            trigger=header.trigger,
            parent=header.parent,
            labels=header.labels,
            is_local=header.is_local,
            input=state.input,
            output=state.output,
            tokens=state.tokens,
            cost_usd=state.cost_usd,
            cancel_requested=state.cancel_requested,
            created_at=state.created_at or header.created_at,
            started_at=state.started_at,
            ended_at=state.ended_at,
        )


class RunView(Struct, frozen=True, kw_only=True):
    """A run as it is now."""

    run: RunHead
    steps: Sequence[StepView]
    children: Sequence[ChildView]
    """What was delegated."""


class StepDetail(Struct, frozen=True, kw_only=True):
    """A step with all of its text."""

    step: StepView
    output: str
    raw_output: str
    """What the agent said, where that differs."""
    data: Any
    artifacts: dict[str, str]
    prompt: str
    """What the agent is asked, rendered from what is known now; empty while that cannot be said."""
    inputs: dict[str, str]
    """The templates that it is made of."""
    depends_on: Sequence[str]
    condition: str
    model: str
    children: Sequence[ChildView]


class EventsQuery(Struct, frozen=True, kw_only=True):
    """What a watcher wants beside the state."""

    chunks: bool = False
    """The chunks of the running steps' tasks, too."""
    step: Name = ""
    """Of this step alone."""


class CancelRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why."""

    reason: Annotated[str, Meta(max_length=500)] = ""


class RunCancelled(Struct, frozen=True, kw_only=True):
    """The run was asked to end."""

    id: str
    outcome: str = "cancelling"


class TeamListItem(Struct, frozen=True, kw_only=True):
    """A team of the fleet."""

    slug: str
    description: str
    mode: Literal["pipeline", "dynamic", "routed"]
    namespace: str
    inputs: Sequence[InputSpec]
    steps: int
    roles: int
    is_active: bool
    updated_at: float

    @classmethod
    def of(cls, slug: str, namespace: str, team: Team, *, is_active: bool, updated_at: float) -> TeamListItem:
        """Of a stored plan's team."""
        return cls(
            slug=slug,
            description=team.description,
            mode=team.mode,
            namespace=namespace,
            inputs=team.inputs,
            steps=len(team.steps),
            roles=len(team.roles),
            is_active=is_active,
            updated_at=updated_at,
        )


class TeamPage(Struct, frozen=True, kw_only=True):
    """The teams that there are."""

    teams: Sequence[TeamListItem]


class TeamQuery(Struct, frozen=True, kw_only=True):
    """For callers that are not bound to one."""

    namespace: Name = ""
