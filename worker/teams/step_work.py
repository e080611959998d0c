"""What a step that has begun needs next: its task, one repair, its checks, its compression, and then its end."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from worker.teams.actions import Action, Note, Purpose, Stop, Submit
from worker.teams.checking import failed_check, json_in, schema_errors, semantic_passed
from worker.teams.context_policies import truncated, visible
from worker.teams.errors import TemplateError
from worker.teams.folding import Folding
from worker.teams.plan import ROUTER, ContextPolicy, Step
from worker.teams.rendering import condition_holds
from worker.teams.run_events import MOST_OUTPUT_BYTES, StepEnded, StepRetried
from worker.teams.run_state import Phase, RunState, StepState
from worker.teams.step_fold import StepFold, Work

RetryKind: TypeAlias = Literal["repair", "retry", "lost"]
MOST_LOST = 2
"""A try whose task has vanished is made anew so often."""


class Answer(Struct, frozen=True, kw_only=True):
    """What a step's agent has said, read."""

    text: str
    value: Any = None
    problem: str = ""
    """Why it does not fit the step's schema; empty: it does, or there is none."""
    has_value: bool = False


class StepWork:
    """One step that has begun. `next` is pure."""

    def __init__(self, folding: Folding, step: Step, now: float) -> None:
        self._folding = folding
        self._step = step
        self._fold: StepFold = folding.steps[step.name]
        self._now = now

    def next(self, *, gives_up: bool = False) -> list[Action]:
        """What to do now; nothing while something works for it. With `gives_up`, what was told to end is waited for no
        longer."""
        if (late := self._too_late(gives_up=gives_up)) is not None:
            return late
        main = self._work(self.main_purpose)
        if main is None:
            return [self._submit(self.main_purpose)]
        if main.ended is None:
            return []
        if main.ended.error:
            return self._main_failed(main)
        if (children := self._children()) is not None:
            return children
        answer = self._answer()
        if (again := self._not_good_enough(answer)) is not None:
            return again
        return self._good(answer)

    @property
    def main_purpose(self) -> Purpose:
        """What the present try's own task is for."""
        if self._step.name == ROUTER:
            return "route"
        return "repair" if self._fold.retries and self._fold.retries[-1].kind == "repair" else "step"

    @property
    def is_working(self) -> bool:
        """Whether a task or a run works for it."""
        open_children = any(
            child.step == self._step.name and not child.phase.is_final for child in self._folding.children.values()
        )
        return open_children or any(work.ended is None for work in self._fold.works.values())

    # Time

    def _too_late(self, *, gives_up: bool) -> list[Action] | None:
        deadline = step_deadline(self._step, self._fold)
        if deadline is None or self._now <= deadline or self._ended_before(deadline):
            return None
        if self.is_working and not gives_up:
            return [Stop(reason="the step took too long", steps=(self._step.name,))]
        return [self._end(Phase.FAILED, message=f"step exceeded timeout of {self._step.timeout_s:g}s")]

    def _ended_before(self, deadline: float) -> bool:
        """Whether its work was done in time, though nobody has looked at it until now."""
        works = self._fold.works.values()
        return bool(works) and all(work.ended is not None and work.ended.at <= deadline for work in works)

    # Its own task, and what that has delegated

    def _main_failed(self, main: Work) -> list[Action]:
        assert main.ended is not None  # noqa: S101 - every caller has looked; mypy cannot see that
        if main.ended.is_lost and (lost := self._tried("lost")) < MOST_LOST:
            return [self._retry("lost", f"[retry {lost + 1}] {main.ended.error}")]
        return [self._end(Phase.FAILED, message=main.ended.error)]

    def _children(self) -> list[Action] | None:
        mine = [child for child in self._folding.children.values() if child.step == self._step.name]
        if any(not child.phase.is_final for child in mine):
            return []
        summary = self._work("summary")
        if summary is not None and summary.ended is None:
            return []
        if summary is not None and summary.ended is not None:
            return [self._end(Phase.FAILED, message=summary.ended.error)] if summary.ended.error else None
        told = self._folding.collected
        if any(child.task_id not in told and child.depth == 1 for child in mine):
            return [self._submit("summary")]
        return None

    # Its answer

    def _answer(self) -> Answer:
        text = self._fold.answer.output if self._fold.answer is not None else ""
        step = self._step
        if step.output_schema is None and (step.validation is None or step.validation.schema is None):
            return Answer(text=text)
        value, error = json_in(text)
        if error:
            return Answer(text=text, problem=f"output is not valid JSON: {error}")
        errors = schema_errors(step.output_schema, value) if step.output_schema is not None else []
        return Answer(text=text, value=value, problem="; ".join(errors), has_value=not errors)

    def _not_good_enough(self, answer: Answer) -> list[Action] | None:
        """What a wrong answer leads to; an empty list: that is being found out. None: it is right."""
        if self._step.output_schema is not None and answer.problem and not self._tried("repair"):
            return [self._retry("repair", f"repair: {answer.problem}", problem=answer.problem)]
        validation = self._step.validation
        if validation is None:
            return None
        problem = failed_check(validation, answer.text, answer.value)
        if not problem and validation.semantic:
            check = self._work("check")
            if check is None:
                return [self._submit("check")]
            if check.ended is None:
                return []
            problem = _semantic_problem(check)
        if not problem:
            return None
        message = f"validation failed: {problem}"
        if validation.on_failure == "retry" and (retried := self._tried("retry")) < validation.max_retries:
            return [self._retry("retry", f"[retry {retried + 1}] {message}", problem=problem)]
        return [self._end(Phase.FAILED, message=message)]

    def _tried(self, kind: RetryKind) -> int:
        return sum(retry.kind == kind for retry in self._fold.retries)

    # A good one

    def _good(self, answer: Answer) -> list[Action]:
        policy = self._policy
        text = truncated(answer.text, min(self._step.max_output_bytes or MOST_OUTPUT_BYTES, MOST_OUTPUT_BYTES))
        notes = [] if answer.has_value or not answer.problem else [f"no data: {answer.problem}"]
        if policy is not None and policy.strategy == "compress" and text:
            compress = self._work("compress")
            if compress is None:
                return [self._submit("compress")]
            if compress.ended is None:
                return []
            if compress.ended.error:
                notes.append(f"not compressed: {compress.ended.error}")
            else:
                text = compress.ended.output
        elif policy is not None:
            text = visible(policy, text)
        return [self._succeeded(answer, text, "; ".join(notes))]

    @property
    def _policy(self) -> ContextPolicy | None:
        return self._step.context_policy or self._folding.team.default_context_policy

    def _succeeded(self, answer: Answer, text: str, message: str) -> Action:
        step, iteration = self._step, self._fold.iteration
        event = StepEnded(
            at=self._ended_at,
            step=step.name,
            iteration=iteration,
            phase=Phase.SUCCEEDED,
            output=None if self._fold.answer is not None and text == self._fold.answer.output else text,
            data=answer.value if answer.has_value and step.output_schema is not None else None,
            validated=step.validation is not None,
            message=message,
        )
        if step.loop is not None and iteration < step.loop.max_iterations and self._wants_more(event):
            again = f"loop iteration {iteration + 1}/{step.loop.max_iterations}"
            event = replace(event, again=True, message="; ".join(part for part in (again, message) if part))
        return Note(events=(event,))

    def _wants_more(self, event: StepEnded) -> bool:
        """Whether the loop's condition holds after this iteration. One that cannot be evaluated does not."""
        assert self._step.loop is not None  # noqa: S101 - as above
        state = _after(self._folding.state(), event, self._fold.answer.output if self._fold.answer else "")
        name, condition = self._step.name, self._step.loop.condition
        try:
            return condition_holds(condition, self._folding.team, state, step=name, field="loop.condition")
        except TemplateError:
            return False

    # Words

    @property
    def _ended_at(self) -> float:
        """When the last of its tasks ended, not when somebody noticed: a scheduler may have been away."""
        ended = [work.ended.at for work in self._fold.works.values() if work.ended is not None]
        return max(ended, default=self._now)

    def _work(self, purpose: Purpose) -> Work | None:
        return self._fold.works.get((self._fold.attempt, purpose))

    def _submit(self, purpose: Purpose) -> Action:
        fold = self._fold
        return Submit(step=fold.name, iteration=fold.iteration, attempt=fold.attempt, purpose=purpose, role=fold.role)

    def _retry(self, kind: RetryKind, message: str, *, problem: str = "") -> Action:
        fold = self._fold
        event = StepRetried(
            at=self._now,
            step=fold.name,
            iteration=fold.iteration,
            attempt=fold.attempt,
            message=message,
            problem=problem,
            kind=kind,
        )
        return Note(events=(event,))

    def _end(self, phase: Phase, *, message: str) -> Action:
        event = StepEnded(
            at=self._now, step=self._step.name, iteration=self._fold.iteration, phase=phase, message=message
        )
        return Note(events=(event,))


def step_deadline(step: Step, fold: StepFold) -> float | None:
    """When a step's time is up. Unix seconds."""
    if not step.timeout_s or not fold.begun_at:
        return None
    return fold.begun_at + step.timeout_s


def _semantic_problem(check: Work) -> str:
    assert check.ended is not None  # noqa: S101 - every caller has looked; mypy cannot see that
    if check.ended.error:
        return f"the semantic check could not be made: {check.ended.error}"
    passed, why = semantic_passed(check.ended.output)
    return "" if passed else why


def _after(state: RunState, event: StepEnded, said: str) -> RunState:
    """The run as it will be once an iteration has ended so."""

    def ended(step: StepState) -> StepState:
        if step.name != event.step:
            return step
        output = said if event.output is None else event.output
        return replace(step, phase=event.phase, output=output, raw_output=said, data=event.data)

    return replace(state, steps=tuple(map(ended, state.steps)))
