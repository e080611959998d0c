"""What the log says of one step, while it is read: more than its `StepState` shows."""

from __future__ import annotations

from typing import Any

from queue_backends import TokenUsage
from worker.teams.run_events import (
    ApprovalAsked,
    ApprovalDecided,
    RunEnded,
    StepEnded,
    StepRetried,
    StepSkipped,
    StepStarted,
    TaskEnded,
    TaskSubmitted,
)
from worker.teams.run_state import Phase, StepState

ANSWERING = frozenset({"step", "repair", "summary", "route"})
"""Purposes of tasks whose answer is the step's."""


class Work:
    """A task, or a run of another team, that works for a step."""

    __slots__ = ("attempt", "ended", "purpose", "run_id", "submitted_at", "task_id")

    def __init__(self, attempt: int, purpose: str) -> None:
        self.attempt = attempt
        self.purpose = purpose
        self.task_id = ""
        self.run_id = ""
        self.submitted_at = 0.0
        self.ended: TaskEnded | None = None


class StepFold:
    """A step over all its iterations; `works` and `retries` are those of the present one."""

    def __init__(self, name: str, role: str) -> None:
        self.name = name
        self.role = role
        self.phase = Phase.PENDING
        self.iteration = 0
        self.attempt = 0
        self.works: dict[tuple[int, str], Work] = {}
        self.retries: list[StepRetried] = []
        self.answer: TaskEnded | None = None
        self.output = ""
        self.raw_output = ""
        self.data: Any = None
        self.artifacts: dict[str, str] = {}
        self.validated = False
        self.message = ""
        self.reason = ""
        self.picked: dict[str, str] = {}
        self.asked: ApprovalAsked | None = None
        self.decided: ApprovalDecided | None = None
        self.usage = TokenUsage()
        self.cost_usd: float | None = None
        self.started_at = 0.0
        self.begun_at = 0.0
        """When its first iteration began: a wait for a person does not count."""
        self.iteration_at = 0.0
        self.ended_at = 0.0

    def started(self, event: StepStarted) -> None:
        """An iteration begins."""
        if event.iteration <= self.iteration or self.phase.is_final:
            return
        self.iteration, self.attempt = event.iteration, 1
        self.works, self.retries, self.answer = {}, [], None
        self.phase = Phase.RUNNING
        self.role = event.role or self.role
        self.picked = event.picked or self.picked
        self.started_at = self.started_at or event.at
        self.begun_at = self.begun_at or event.at
        self.iteration_at = event.at
        self.ended_at = 0.0

    def submitted(self, event: TaskSubmitted) -> None:
        """A task works for it."""
        if (work := self._work(event)) is None:
            return
        work.task_id, work.run_id, work.submitted_at = event.task_id, event.run_id, event.at
        self.phase = Phase.VALIDATING if event.purpose == "check" else Phase.RUNNING

    def task_ended(self, event: TaskEnded) -> None:
        """That task has ended."""
        self.spend(event.usage, event.cost_usd)
        if (work := self._work(event)) is None:
            return
        work.task_id, work.run_id, work.ended = event.task_id, event.run_id, event
        if event.purpose in ANSWERING:
            self.answer = event
            self.artifacts = {**self.artifacts, **event.artifacts}

    def _work(self, event: TaskSubmitted | TaskEnded) -> Work | None:
        if event.iteration != self.iteration or self.phase.is_final:
            return None  # late news of an iteration that is over
        key = event.attempt, event.purpose
        return self.works.setdefault(key, Work(*key))

    def retried(self, event: StepRetried) -> None:
        """Another try of the same iteration begins."""
        if event.iteration == self.iteration and event.attempt == self.attempt:
            self.retries.append(event)
            self.attempt += 1
            self.phase = Phase.RUNNING
            self.message = event.message

    def ended(self, event: StepEnded) -> None:
        """The iteration is over."""
        if event.iteration != self.iteration or self.phase.is_final:
            return
        said = self.answer.output if self.answer is not None else ""
        self.output = said if event.output is None else event.output
        self.raw_output = said if said != self.output else ""
        self.data, self.validated, self.message = event.data, event.validated, event.message
        self.reason = event.reason
        self.phase = Phase.PENDING if event.again else event.phase
        self.ended_at = 0.0 if event.again else event.at

    def skipped(self, event: StepSkipped) -> None:
        """It is left out."""
        if not self.phase.is_final:
            self.phase, self.message, self.ended_at = Phase.SKIPPED, event.message, event.at

    def approval_asked(self, event: ApprovalAsked) -> None:
        """A person is asked whether it may begin."""
        self.asked = event
        self.phase = Phase.WAITING
        self.started_at = self.started_at or event.at

    def approval_decided(self, event: ApprovalDecided) -> None:
        """The person has answered."""
        self.decided = event
        if self.phase is Phase.WAITING:
            self.phase = Phase.PENDING

    def spend(self, usage: TokenUsage, cost_usd: float | None) -> None:
        """Count what a task of it has used."""
        self.usage += usage
        if cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd

    def run_ended(self, event: RunEnded) -> None:
        """The run is over before this step is. As in ark, one that was never begun stays pending, unless the run took
        too long or was cancelled."""
        if self.phase.is_final:
            return
        if event.phase is Phase.CANCELLED:
            self.phase, self.message = Phase.CANCELLED, event.message
        elif event.reason == "TimedOut":
            self.phase, self.message = Phase.FAILED, event.message
        elif self.iteration:
            self.phase, self.message = Phase.CANCELLED, event.message
        elif self.phase is Phase.WAITING:
            self.phase = Phase.PENDING
        if self.phase.is_final:
            self.ended_at = event.at

    def state(self) -> StepState:
        """What the world sees of it."""
        last = next(reversed(self.works.values()), None)
        return StepState(
            name=self.name,
            phase=self.phase,
            role=self.role,
            task_id=last.task_id if last is not None else "",
            run_id=last.run_id if last is not None else "",
            approval_id=self.asked.approval_id if self.asked is not None and self.decided is None else "",
            iteration=self.iteration,
            tries=self.attempt,
            output=self.output,
            raw_output=self.raw_output,
            data=self.data,
            artifacts=self.artifacts,
            validated=self.validated,
            message=self.message,
            usage=self.usage,
            cost_usd=self.cost_usd,
            started_at=self.started_at,
            ended_at=self.ended_at,
        )
