"""What happens to a run, a line each, in ark's and kubeswarm's form: for pipes, and terminals that can no more."""

from __future__ import annotations

import time
from collections.abc import Callable

from worker.cli.live_area import safe
from worker.cli.screen import Screen
from worker.teams.plan import Team
from worker.teams.run_state import Phase, RunState, StepState

PREVIEW_BYTES = 120
_NAME_COLUMNS = 20
_BUSY = (Phase.RUNNING, Phase.VALIDATING)


class PlainWatch:
    """Writes what has changed between one state of a run and the next."""

    def __init__(self, screen: Screen, team: Team, *, clock: Callable[[], float] = time.time) -> None:
        self._screen = screen
        self._shows_cost = team.word != "flow"
        """ArkFlow's lines have none."""
        self._clock = clock
        self._steps: dict[str, _Shown] = {}

    def show(self, state: RunState) -> None:
        """Write the lines for what is new."""
        for step in state.steps:
            self._step(step, self._steps.setdefault(step.name, _Shown()))

    def _step(self, step: StepState, shown: _Shown) -> None:
        if step.phase is Phase.WAITING and shown.approval_id != step.approval_id:
            shown.approval_id = step.approval_id
            self._line(step, f"[waiting] for approval: shoal approve {step.approval_id}")
        if step.iteration > shown.iteration:
            self._begun(step, shown)
        if step.tries > shown.tries:
            shown.tries = step.tries
            self._line(step, retry_text(step))
        if shown.is_running and step.phase not in _BUSY:
            self._ended(step, shown)
        elif step.phase.is_final and step.phase is not shown.phase:
            self._line(step, _ending(step))
        shown.phase = step.phase

    def _begun(self, step: StepState, shown: _Shown) -> None:
        if shown.is_running:  # its end was not seen: the next iteration came at once
            self._ended(step, shown)
        shown.began_at = step.started_at if step.iteration == 1 and step.started_at else self._clock()
        shown.iteration, shown.tries, shown.is_running = step.iteration, 1, True
        self._line(step, "[running]")

    def _ended(self, step: StepState, shown: _Shown) -> None:
        shown.is_running = False
        if step.phase in (Phase.FAILED, Phase.CANCELLED, Phase.SKIPPED):
            self._line(step, _ending(step))
            return
        took_s = max((step.ended_at or self._clock()) - shown.began_at, 0.0)
        tokens, cost_usd = step.tokens - shown.tokens, (step.cost_usd or 0.0) - shown.cost_usd
        shown.tokens, shown.cost_usd = step.tokens, step.cost_usd or 0.0
        cost = f"  ${cost_usd:.4f}" if self._shows_cost and cost_usd > 0 else ""
        validated = "  ✓ validated" if step.validated else ""
        self._line(step, f"[done]    {tokens} tokens{cost}  {took_s:.1f}s{validated}")
        if output := preview(step.raw_output or step.output):
            self._screen.line(f"    └─ {output}", "dim")

    def _line(self, step: StepState, text: str) -> None:
        self._screen.line(f"  {safe(step.name):<{_NAME_COLUMNS}} {text}".rstrip())


class _Shown:
    """What of a step was written."""

    def __init__(self) -> None:
        self.phase = Phase.PENDING
        self.iteration = 0
        self.tries = 1
        self.tokens = 0
        self.cost_usd = 0.0
        self.began_at = 0.0
        self.is_running = False
        self.approval_id = ""


def _ending(step: StepState) -> str:
    if step.phase is Phase.FAILED:
        return f"[failed]  {one_line(step.message)}"
    return f"[{step.phase.value.lower()}]"


def retry_text(step: StepState) -> str:
    """`[retry 1] validation failed: …`: why the present try of a step is not its first."""
    text = one_line(step.message)
    return text if text.startswith("[retry") else f"[retry {step.tries - 1}] {text}"


def preview(output: str) -> str:
    """The beginning of an output, as kubeswarm cuts it, but on one line and without half a character."""
    flat = one_line(output)
    if len(flat.encode()) <= PREVIEW_BYTES:
        return flat
    return flat.encode()[:PREVIEW_BYTES].decode(errors="ignore") + "..."


def one_line(text: str) -> str:
    """A text of others on one line, so that it cannot look like a line of ours, nor steer a terminal."""
    return safe(" ".join(text.split()))
