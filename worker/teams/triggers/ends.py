"""How runs end, as far as triggers and notifications care."""

from __future__ import annotations

from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Run
from worker.teams.triggers.firing import CHAIN
from worker.teams.triggers.model import OnPhase, Trigger
from worker.teams.verdicts import TIMED_OUT


def ended_as(state: RunState) -> str:
    """How a run ended: `Succeeded`, `Failed`, `Cancelled`, `TimedOut`."""
    if state.phase is Phase.FAILED and state.reason == TIMED_OUT:
        return TIMED_OUT
    return state.phase.value


def waits_for(trigger: Trigger, run: Run) -> bool:
    """Whether the end of this run fires a trigger."""
    if trigger.type != "team-output" or trigger.suspended or trigger.watched_team != run.header.team:
        return False
    return trigger.namespace in ("", run.header.tenant) and _fits(trigger.on_phase, ended_as(run.state))


def _fits(wanted: OnPhase, ended: str) -> bool:
    return wanted in ("Ended", ended) or (wanted == "Failed" and ended == TIMED_OUT)


def chain_of(run: Run) -> int:
    """How many triggers, one after another, have led to a run."""
    label = run.header.labels.get(CHAIN, "")
    return int(label) if label.isdecimal() else 0
