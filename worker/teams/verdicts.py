"""Whether a run has to end, and how. Of several reasons the order is: cancelled, timeout, budget, failed, done."""

from __future__ import annotations

from msgspec import Struct

from worker.teams.context_policies import truncated
from worker.teams.errors import TemplateError
from worker.teams.folding import Folding
from worker.teams.rendering import render_output
from worker.teams.run_events import MOST_OUTPUT_BYTES, CancelRequested, RunEnded
from worker.teams.run_state import Phase

TIMED_OUT = "TimedOut"
ALL_DONE = frozenset({Phase.SUCCEEDED, Phase.SKIPPED})


class Verdict(Struct, frozen=True, kw_only=True):
    """Nothing new begins any more."""

    phase: Phase
    reason: str
    message: str
    cuts: bool
    """Whether what is running is ended, too; otherwise it may come to its own end."""


def verdict_of(folding: Folding, now: float) -> Verdict | None:
    """Why the run cannot go on; None if it can."""
    if folding.cancel is not None:
        return _cancelled(folding.cancel)
    if is_too_late(folding, now):
        text = f"{folding.team.word} exceeded timeout of {folding.team.timeout_s:g}s"
        return Verdict(phase=Phase.FAILED, reason=TIMED_OUT, message=text, cuts=True)
    if folding.max_tokens and folding.usage.total_tokens > folding.max_tokens:
        text = f"token budget of {folding.max_tokens} exceeded: used {folding.usage.total_tokens}"
        return Verdict(phase=Phase.FAILED, reason="BudgetExceeded", message=text, cuts=True)
    failed = [step for step in folding.steps.values() if step.phase in (Phase.FAILED, Phase.CANCELLED)]
    if failed:
        reason = next((step.reason for step in failed if step.reason), "StepFailed")
        return Verdict(phase=Phase.FAILED, reason=reason, message="one or more steps failed", cuts=False)
    return None


def _cancelled(request: CancelRequested) -> Verdict:
    by = f" by {request.by}" if request.by else ""
    why = f": {request.reason}" if request.reason else ""
    return Verdict(phase=Phase.CANCELLED, reason="Cancelled", message=f"run cancelled{by}{why}", cuts=True)


def cancelled(folding: Folding, now: float) -> RunEnded:
    """The end of a run that nobody drives and somebody has cancelled."""
    return ending(folding, _cancelled(folding.cancel or CancelRequested(at=now)), now)


def deadline_of(folding: Folding) -> float | None:
    """When the run's time is up. Unix seconds."""
    timeout_s = folding.team.timeout_s
    return folding.started_at + timeout_s if timeout_s and folding.started_at else None


def is_too_late(folding: Folding, now: float) -> bool:
    """Whether the run has taken too long. What had been done in time stays done: its scheduler may have been away."""
    deadline = deadline_of(folding)
    if deadline is None:
        return False
    if all(step.phase.is_final for step in folding.steps.values()):
        return max((step.ended_at for step in folding.steps.values()), default=0.0) > deadline
    return now > deadline


def ending(folding: Folding, verdict: Verdict | None, now: float) -> RunEnded:
    """The run's last event, once nothing works for it any more."""
    usage, cost_usd = folding.usage, folding.cost_usd
    phase, reason, message, output = Phase.SUCCEEDED, "", "", ""
    if verdict is not None:
        phase, reason, message = verdict.phase, verdict.reason, verdict.message
    else:
        try:
            output = truncated(render_output(folding.team, folding.state()), MOST_OUTPUT_BYTES)
        except TemplateError as error:
            phase, reason, message = Phase.FAILED, "BadTemplate", f"output: {error}"
    return RunEnded(at=now, phase=phase, reason=reason, message=message, output=output, usage=usage, cost_usd=cost_usd)


def stuck(folding: Folding, now: float) -> RunEnded:
    """The end of a run whose remaining steps can never begin."""
    names = ", ".join(step.name for step in folding.steps.values() if not step.phase.is_final)
    return RunEnded(
        at=now,
        phase=Phase.FAILED,
        reason="StepFailed",
        message=f"steps that can never begin, because of what they depend on: {names}",
        usage=folding.usage,
        cost_usd=folding.cost_usd,
    )
