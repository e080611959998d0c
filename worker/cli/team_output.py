"""How a run ended: for people, in ark's and kubeswarm's JSON, and into a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from worker.cli.plain_watch import one_line
from worker.cli.screen import Screen, clean
from worker.teams.plan import Team
from worker.teams.run_state import Phase, RunState, StepState

FORMATS = ("text", "json")


def word_of(team: Team) -> str:
    """`Flow` or `Pipeline`."""
    return team.word.capitalize()


def took_s(state: RunState) -> float:
    """From the run's first moment to its last, in seconds."""
    return max(state.ended_at - (state.started_at or state.created_at), 0.0) if state.ended_at else 0.0


def write_text(screen: Screen, team: Team, state: RunState) -> None:
    """`Flow Succeeded in 3.1s — total: 2154 tokens`, then the output, and where files are."""
    cost = f"  ${state.cost_usd:.6f}" if team.word != "flow" and state.cost_usd else ""
    style = {Phase.SUCCEEDED: "good", Phase.FAILED: "bad"}.get(state.phase, "warn")
    screen.line()
    screen.line(
        f"{word_of(team)} {state.phase.value} in {took_s(state):.1f}s — total: {state.tokens} tokens{cost}", style
    )
    if state.output:
        screen.line()
        screen.line("Output:", "dim")
        screen.line(clean(state.output) if screen.out.isatty() else state.output)
    if any(step.artifacts for step in state.steps):
        screen.line()
        screen.line("Files:", "dim")
        for step in state.steps:
            for name, url in step.artifacts.items():
                screen.line(one_line(f"{step.name}.{name}: {url}"))


def failure_text(team: Team, state: RunState) -> str:
    """`flow failed`, `pipeline failed`: ark's and kubeswarm's words."""
    what = "failed" if state.phase is Phase.FAILED else state.phase.value.lower()
    return f"{team.word} {what}"


def reasons(state: RunState, *, with_steps: bool) -> list[str]:
    """Why a run failed: of the steps that did, if nobody has shown that yet, and of the run where that says more."""
    failed = [step for step in state.steps if step.phase is Phase.FAILED and step.message]
    own = [step for step in failed if step.message != state.message]
    lines = [f'step "{one_line(step.name)}": {one_line(step.message)}' for step in own] if with_steps else []
    if state.message and (not own or state.reason not in ("", "StepFailed")):
        stopped = ", ".join(one_line(step.name) for step in failed if step not in own and step.iteration)
        lines.append(one_line(state.message) + (f" (stopped: {stopped})" if stopped else ""))
    return lines


def result_document(team: Team, state: RunState) -> dict[str, Any]:
    """The result as `ark run --output json` has it, or `swarm run` for the later kinds, which have costs."""
    shows_cost = team.word != "flow"
    document: dict[str, Any] = {
        "status": state.phase.value,
        "duration_ms": round(took_s(state) * 1000),
        "total_tokens": state.tokens,
    }
    if shows_cost and state.cost_usd:
        document["total_cost_usd"] = f"{state.cost_usd:.6f}"
    if state.output:
        document["output"] = state.output
    document["steps"] = [_step_document(step, shows_cost=shows_cost) for step in state.steps]
    return document


def _step_document(step: StepState, *, shows_cost: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"name": step.name, "status": step.phase.value, "tokens": step.tokens}
    if shows_cost and step.cost_usd:
        document["cost_usd"] = f"{step.cost_usd:.6f}"
    if output := step.raw_output or step.output:
        document["output"] = output
    if step.artifacts:
        document["artifacts"] = step.artifacts
    return document


def write_json(screen: Screen, team: Team, state: RunState) -> None:
    """The result document over several lines, indented by two spaces."""
    import msgspec

    screen.line(msgspec.json.format(msgspec.json.encode(result_document(team, state)), indent=2).decode())


def line_document(team: Team, state: RunState) -> dict[str, Any]:
    """The result on one line for `--json`: all that is known, under the names of `shoal runs show --json`."""
    from worker.cli.run_documents import state_document

    return {**state_document(state), "word": team.word, "duration_ms": round(took_s(state) * 1000)}


def unwritable(output: str) -> str:
    """Why nothing can be written where `--output` says: found out before anything is spent. Empty: it can."""
    path = Path(output)
    if not output or output in FORMATS:
        return ""
    if path.is_dir():
        return "it is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "you have no right to"


def write_file(path: Path, team: Team, state: RunState) -> None:
    """The output into a file; the result document, if its name ends in `.json`."""
    import msgspec

    if path.suffix == ".json":
        text = msgspec.json.format(msgspec.json.encode(result_document(team, state)), indent=2).decode() + "\n"
    else:
        text = state.output if state.output.endswith("\n") else f"{state.output}\n"
    path.write_text(text, encoding="utf-8")
