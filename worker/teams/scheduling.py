"""What to do next for a run: pure, and total. Who performs it may die at any moment: the same events give the same
answer again."""

from __future__ import annotations

from collections import Counter

from worker.teams.actions import Action, AskPerson, Note, Stop
from worker.teams.errors import TeamError, TemplateError
from worker.teams.folding import Folding
from worker.teams.plan import ROUTE, ROUTER, Step
from worker.teams.rendering import condition_holds
from worker.teams.routed import Choice, choose, indexed, reason_of
from worker.teams.run_events import Event, RunStarted, StepEnded, StepSkipped, StepStarted
from worker.teams.run_state import Phase
from worker.teams.step_fold import StepFold
from worker.teams.step_work import StepWork, step_deadline
from worker.teams.verdicts import ALL_DONE, TIMED_OUT, Verdict, deadline_of, ending, stuck, verdict_of

NO_CAPABILITY = "skipped: no role has a capability to choose"
CONDITION_FALSE = "skipped: if condition evaluated to false"
WORKING = frozenset({Phase.RUNNING, Phase.VALIDATING})


def decide(folding: Folding, now: float, *, gives_up: bool = False) -> list[Action]:
    """What has to be done for the run at this moment; nothing while it can only wait.

    With `gives_up`, what does not end though it was told to is waited for no longer.
    """
    if folding.is_over:
        return []
    if not folding.started_at:
        return [Note(events=(RunStarted(at=now),))]
    verdict = verdict_of(folding, now)
    if verdict is not None and verdict.cuts:
        return _cut(folding, verdict, now, gives_up=gives_up)
    actions = _of_begun_steps(folding, now, gives_up=gives_up)
    if verdict is None:
        actions += _of_pending_steps(folding, now)
    if actions:
        return actions
    return _ends(folding, verdict, now)


def next_moment(folding: Folding) -> float | None:
    """When time alone changes what `decide` says; None: never. Unix seconds."""
    moments = [deadline_of(folding)]
    for step in folding.team.steps:
        fold = folding.steps[step.name]
        if not fold.phase.is_final:
            moments.append(step_deadline(step, fold))
    known = [moment for moment in moments if moment is not None]
    return min(known, default=None)


def is_working(folding: Folding) -> bool:
    """Whether any task or run works for it."""
    return any(not child.phase.is_final for child in folding.children.values()) or any(
        work.ended is None for fold in folding.steps.values() if not fold.phase.is_final for work in fold.works.values()
    )


def _cut(folding: Folding, verdict: Verdict, now: float, *, gives_up: bool) -> list[Action]:
    if done := _done_in_time(folding, verdict, now):
        return done
    if is_working(folding) and not gives_up:
        return [Stop(reason=verdict.message)]
    return [Note(events=(ending(folding, verdict, now),))]


def _done_in_time(folding: Folding, verdict: Verdict, now: float) -> list[Action]:
    """The ends of those steps that needed nothing more: they have succeeded, whatever becomes of the run."""
    latest = deadline_of(folding) if verdict.reason == TIMED_OUT else None
    return [
        action
        for action in _of_begun_steps(folding, now, gives_up=False)
        if isinstance(action, Note) and all(_is_success(event, latest) for event in action.events)
    ]


def _is_success(event: Event, latest: float | None) -> bool:
    is_end = isinstance(event, StepEnded) and event.phase is Phase.SUCCEEDED and not event.again
    return is_end and (latest is None or event.at <= latest)


def _ends(folding: Folding, verdict: Verdict | None, now: float) -> list[Action]:
    """The end, if nothing works for the run and nobody is asked."""
    if is_working(folding):
        return []
    phases = {fold.phase for fold in folding.steps.values()}
    if verdict is not None or phases <= ALL_DONE:
        return [Note(events=(ending(folding, verdict, now),))]
    if phases & (WORKING | {Phase.WAITING}):
        return []
    return [Note(events=(stuck(folding, now),))]


# Steps that have begun


def _of_begun_steps(folding: Folding, now: float, *, gives_up: bool) -> list[Action]:
    actions: list[Action] = []
    for step in folding.team.steps:
        if folding.steps[step.name].phase in WORKING:
            actions += StepWork(folding, step, now).next(gives_up=gives_up)
    return actions


# Steps that have not, or are between two iterations


def _of_pending_steps(folding: Folding, now: float) -> list[Action]:
    actions: list[Action] = []
    busy = _busy_roles(folding)
    for step in folding.team.steps:
        fold = folding.steps[step.name]
        if fold.phase is Phase.PENDING and _is_ready(folding, step):
            actions += _begin(folding, step, fold, now, busy)
        elif fold.phase is Phase.WAITING and fold.asked is None:
            actions.append(AskPerson(step=step.name))
    return actions


def _is_ready(folding: Folding, step: Step) -> bool:
    return all(name in folding.steps and folding.steps[name].phase in ALL_DONE for name in step.depends_on)


def _begin(folding: Folding, step: Step, fold: StepFold, now: float, busy: Counter[str]) -> list[Action]:
    if fold.iteration == 0:
        if step.condition and fold.asked is None and not _holds(folding, step):
            return [Note(events=(StepSkipped(at=now, step=step.name, message=CONDITION_FALSE),))]
        if step.approval is not None and fold.decided is None:
            return [AskPerson(step=step.name)]
        if fold.decided is not None and fold.decided.outcome != "approve":
            return [_turned_down(fold, now)]
        if step.name == ROUTER and not indexed(folding.team):
            return [Note(events=(StepSkipped(at=now, step=step.name, message=NO_CAPABILITY),))]
    try:
        choice = _who(folding, step, fold)
    except TeamError as error:
        return [_nobody(step, error, now)]
    if not _has_room(folding, choice.role, busy):
        return []
    busy[choice.role] += 1
    started = StepStarted(at=now, step=step.name, iteration=fold.iteration + 1, role=choice.role, picked=choice.meta)
    return [Note(events=(started,))]


def _who(folding: Folding, step: Step, fold: StepFold) -> Choice:
    """Who does the step. Raises `TeamError` if it is to be looked up, and nobody is found."""
    if fold.iteration or not _is_looked_up(folding, step):
        return Choice(role=fold.role)
    return choose(folding.team, step, folding.state())


def _nobody(step: Step, error: TeamError, now: float) -> Action:
    reason = "BadTemplate" if isinstance(error, TemplateError) else reason_of(error)
    ended = StepEnded(at=now, step=step.name, iteration=0, phase=Phase.FAILED, message=str(error), reason=reason)
    return Note(events=(ended,))


def _holds(folding: Folding, step: Step) -> bool:
    """Whether the step's condition does. One that cannot be evaluated does not."""
    try:
        return condition_holds(step.condition, folding.team, folding.state(), step=step.name)
    except TemplateError:
        return False


def _turned_down(fold: StepFold, now: float) -> Action:
    assert fold.decided is not None  # noqa: S101 - the caller has looked; mypy cannot see that
    decided = fold.decided
    who = f"by {decided.by}" if decided.by else "nobody answered in time"
    said = f"{who}: {decided.note}" if decided.note else who
    if decided.outcome == "skip":
        return Note(events=(StepSkipped(at=now, step=fold.name, message=f"skipped: {said}"),))
    ended = StepEnded(at=now, step=fold.name, iteration=0, phase=Phase.FAILED, message=f"approval rejected: {said}")
    return Note(events=(ended,))


def _is_looked_up(folding: Folding, step: Step) -> bool:
    return step.lookup is not None or (folding.team.mode == "routed" and step.name == ROUTE)


def _busy_roles(folding: Folding) -> Counter[str]:
    busy = Counter(fold.role for fold in folding.steps.values() if fold.phase in WORKING)
    busy.update(child.role for child in folding.children.values() if not child.phase.is_final)
    return busy


def _has_room(folding: Folding, role: str, busy: Counter[str]) -> bool:
    found = folding.team.role(role)
    return found is None or not found.max_parallel or busy[role] < found.max_parallel
