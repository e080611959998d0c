"""From the events of a run to what is known of it. Pure: the same events give the same state, and what is not
understood, or comes a second time, changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from queue_backends import TokenUsage
from worker.teams.plan import Plan, Team
from worker.teams.run_events import (
    ApprovalAsked,
    ApprovalDecided,
    CancelRequested,
    ChildEnded,
    Collected,
    Delegated,
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepSkipped,
    StepStarted,
    TaskEnded,
    TaskSubmitted,
)
from worker.teams.run_header import RunHeader
from worker.teams.run_state import ChildState, Phase, RunState, StepState
from worker.teams.step_fold import StepFold


class Folding:
    """A run as far as its log was read. `add` further events in the log's order."""

    def __init__(self, plan: Plan, header: RunHeader) -> None:
        self.header = header
        self.plan = plan
        self.team: Team = plan.find(header.team)
        self.steps = {step.name: StepFold(step.name, step.role) for step in self.team.steps}
        self.children: dict[str, ChildState] = {}
        self.collected: set[str] = set()
        """Delegated tasks whose results their parent has been given."""
        self.started_at = 0.0
        self.cancel: CancelRequested | None = None
        self.end: RunEnded | None = None
        self.seen: set[str] = set()
        self._step_states: dict[str, StepState] = {}
        """Of steps to which nothing has happened since: a run may have thousands of events, and hundreds of steps."""
        self._state: RunState | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Take in what happened next."""
        for event in events:
            if self.end is None and event.id not in self.seen:
                self.seen.add(event.id)
                self._state = None
                self._add(event)

    def _add(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.started_at = event.at
            case CancelRequested():
                self.cancel = event
            case RunEnded():
                self._end(event)
            case Delegated() | ChildEnded() | Collected():
                self._add_of_child(event)
            case _ if event.step in self.steps:
                self._step_states.pop(event.step, None)
                _add_of_step(self.steps[event.step], event)
            case _:
                pass  # of a step that the plan does not have: somebody else's mistake changes nothing

    def _add_of_child(self, event: Delegated | ChildEnded | Collected) -> None:
        match event:
            case Delegated(task_id=task_id):
                self.children[task_id] = ChildState(
                    task_id=task_id,
                    step=event.step,
                    parent=event.parent,
                    role=event.role,
                    prompt=event.prompt,
                    depth=event.depth,
                    started_at=event.at,
                )
            case ChildEnded(task_id=task_id):
                if (child := self.children.get(task_id)) is not None:
                    self.children[task_id] = _ended_child(child, event)
                    if child.step in self.steps:
                        self._step_states.pop(child.step, None)
                        self.steps[child.step].spend(event.usage, event.cost_usd)
            case Collected(task_ids=task_ids):
                self.collected.update(task_ids)

    def _end(self, event: RunEnded) -> None:
        self.end = event
        self._step_states.clear()
        for step in self.steps.values():
            step.run_ended(event)

    def is_run(self, child: ChildState) -> bool:
        """Whether a team does what was delegated, in a run of its own."""
        role = self.team.role(child.role)
        return role is not None and bool(role.team)

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen any more."""
        return self.end is not None

    @property
    def max_tokens(self) -> int:
        """What it may use: the team's limit, or what was left to the run that it belongs to. 0: no limit."""
        return min((each for each in (self.team.max_tokens, self.header.max_tokens) if each), default=0)

    @property
    def usage(self) -> TokenUsage:
        """What all steps have used, their delegated tasks included."""
        return sum((step.usage for step in self.steps.values()), TokenUsage())

    @property
    def cost_usd(self) -> float | None:
        """The same in money; None if no price is known."""
        known = [step.cost_usd for step in self.steps.values() if step.cost_usd is not None]
        return sum(known) if known else None

    def state(self) -> RunState:
        """What the world sees of it."""
        if self._state is None:
            self._state = self._shown()
        return self._state

    def _shown(self) -> RunState:
        for name, step in self.steps.items():
            if name not in self._step_states:
                self._step_states[name] = step.state()
        end = self.end
        return RunState(
            id=self.header.id,
            team=self.header.team,
            phase=self._phase(),
            steps=tuple(self._step_states[name] for name in self.steps),
            children=tuple(self.children.values()),
            input=self.header.input,
            output=end.output if end is not None else "",
            reason=end.reason if end is not None else "",
            message=end.message if end is not None else "",
            usage=self.usage,
            cost_usd=self.cost_usd,
            created_at=self.header.created_at,
            started_at=self.started_at,
            ended_at=end.at if end is not None else 0.0,
            cancel_requested=self.cancel is not None,
        )

    def _phase(self) -> Phase:
        if self.end is not None:
            return self.end.phase
        if not self.started_at:
            return Phase.PENDING
        phases = {step.phase for step in self.steps.values()}
        if Phase.WAITING in phases and not phases & {Phase.RUNNING, Phase.VALIDATING}:
            return Phase.WAITING
        return Phase.RUNNING


def _add_of_step(
    step: StepFold,
    event: StepStarted
    | TaskSubmitted
    | TaskEnded
    | StepRetried
    | StepEnded
    | StepSkipped
    | ApprovalAsked
    | ApprovalDecided,
) -> None:
    match event:
        case StepStarted():
            step.started(event)
        case TaskSubmitted():
            step.submitted(event)
        case TaskEnded():
            step.task_ended(event)
        case StepRetried():
            step.retried(event)
        case StepEnded():
            step.ended(event)
        case StepSkipped():
            step.skipped(event)
        case ApprovalAsked():
            step.approval_asked(event)
        case ApprovalDecided():
            step.approval_decided(event)


def _ended_child(child: ChildState, event: ChildEnded) -> ChildState:
    return replace(
        child,
        phase=Phase.FAILED if event.error else Phase.SUCCEEDED,
        output=event.output,
        error=event.error,
        usage=event.usage,
        cost_usd=event.cost_usd,
        ended_at=event.at,
    )


def fold(plan: Plan, header: RunHeader, events: Iterable[Event]) -> RunState:
    """What is known of a run after these events, in the log's order."""
    folding = Folding(plan, header)
    folding.add(events)
    return folding.state()
