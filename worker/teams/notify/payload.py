"""What a notification says. Field names are kubeswarm's NotifyPayload; `costUsd`, `reason` and `timestamp` are ours."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from worker.budgets.rules import TEAM_PREFIX
from worker.budgets.warning import BudgetWarning
from worker.teams.notify.degradation import Degradation
from worker.teams.notify.model import NotifyEvent
from worker.teams.run_state import Phase, RunState, StepState
from worker.teams.runs import Run
from worker.teams.triggers.ends import ended_as
from worker.teams.triggers.firing import rfc3339

MOST_OUTPUT_CHARS = 500


class NotifyPayload(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The JSON that a webhook is sent, and what templates see: `.event` and `.Event`, `.runName` and `.RunName`."""

    event: NotifyEvent
    team: str
    """The team; of a budget's warning the account; of `AgentDegraded` the agent."""
    namespace: str = ""
    """The tenant."""
    phase: str = ""
    run_name: str = ""
    """The run's id."""
    failed_step: str = ""
    total_tokens: int = 0
    duration_ms: int = 0
    output: str = ""
    """The first characters of it."""
    message: str
    """One line for people."""
    dashboard_url: str = msgspec.field(name="dashboardURL", default="")
    cost_usd: float | None = None
    reason: str = ""
    """Why it failed, in a sentence."""
    timestamp: str = ""
    """RFC 3339."""


def template_data(payload: NotifyPayload) -> dict[str, Any]:
    """As templates see it: each field by its name in JSON, and by the name that kubeswarm's templates use."""
    full = msgspec.to_builtins(
        {field.encode_name: getattr(payload, field.name) for field in msgspec.structs.fields(payload)}
    )
    return {**full, **{name[0].upper() + name[1:]: value for name, value in full.items()}}


def event_of(state: RunState) -> NotifyEvent:
    """What a run's end is called."""
    return NotifyEvent(f"Team{ended_as(state)}")


def payload_of_run(run: Run, event: NotifyEvent) -> NotifyPayload:
    """Of a run that has ended."""
    state, team = run.state, run.header.team
    failed_step = next((step for step in state.steps if step.phase is Phase.FAILED), None)
    failed = "" if failed_step is None else failed_step.name
    words = {
        NotifyEvent.TEAM_SUCCEEDED: f'Team "{team}" succeeded',
        NotifyEvent.TEAM_CANCELLED: f'A run of team "{team}" was cancelled',
        NotifyEvent.TEAM_TIMED_OUT: f'Team "{team}" ran out of time' + (f' at step "{failed}"' if failed else ""),
        NotifyEvent.TEAM_FAILED: f'Team "{team}" failed' + (f' at step "{failed}"' if failed else ""),
    }
    is_good = event is NotifyEvent.TEAM_SUCCEEDED
    return NotifyPayload(
        event=event,
        team=team,
        namespace=run.header.tenant,
        phase=state.phase.value,
        run_name=run.header.id,
        failed_step=failed,
        total_tokens=state.tokens,
        duration_ms=max(0, round(1000 * (state.ended_at - (state.started_at or state.created_at)))),
        output=shortened(state.output),
        message=words[event],
        cost_usd=state.cost_usd,
        reason="" if is_good else shortened(_why(state, failed_step)),
        timestamp=rfc3339(state.ended_at),
    )


def _why(state: RunState, failed: StepState | None) -> str:
    """Of a run that a step has failed, what that step says: the run itself knows no more than that one did."""
    if failed is not None and failed.message and state.reason == "StepFailed":
        return failed.message
    return state.message or state.reason


def payload_of_budget(warning: BudgetWarning, at: float) -> NotifyPayload:
    """Of a budget that has reached its soft limit, or its limit; what a team or a role may use in a day is one."""
    event = NotifyEvent.BUDGET_WARNING
    if warning.is_limit:
        is_of_team = warning.budget.startswith(TEAM_PREFIX)
        event = NotifyEvent.DAILY_LIMIT_REACHED if is_of_team else NotifyEvent.BUDGET_EXCEEDED
    return NotifyPayload(
        event=event,
        team=warning.account or warning.budget,
        namespace=warning.account if warning.scope == "tenant" else "",
        total_tokens=warning.tokens_used,
        cost_usd=warning.usd_used,
        message=warning.text,
        timestamp=rfc3339(at),
    )


def payload_of_degradation(what: Degradation, at: float) -> NotifyPayload:
    """Of something that an agent needs and does not have."""
    return NotifyPayload(
        event=NotifyEvent.AGENT_DEGRADED,
        team=what.agent,
        namespace=what.tenant,
        phase="Degraded",
        message=f'Agent "{what.agent}" is degraded: {what.cause} cannot be used',
        reason=shortened(what.reason),
        timestamp=rfc3339(at),
    )


def shortened(text: str) -> str:
    """The first characters of a text."""
    return text if len(text) <= MOST_OUTPUT_CHARS else f"{text[:MOST_OUTPUT_CHARS]}..."
