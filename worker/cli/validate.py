"""`shoal validate`: what is wrong with team files, and what they would run. `shoal run --dry-run` says the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options

if TYPE_CHECKING:
    from worker.teams.bundle import Draft, Finding
    from worker.teams.plan import Step, Team

_STYLES = {"error": "bad", "warning": "warn", "note": "dim"}
_NOT_FOUND = "<not found>"
VALID = "✓ YAML is valid — use `shoal run` to execute"
VALID_PART = "✓ YAML is valid — use `shoal team apply` to store it"


@click.command(
    "validate",
    help="Check team files without running them: values, references, templates, the graph of steps. Errors, warnings "
    "and notes go to stderr, each with its line.\n\n"
    + examples("shoal validate team.yaml", "shoal validate teams/*.yaml --strict", "shoal validate team.yaml --json"),
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--flow", default="", metavar="NAME", help="Only this team or agent.  [default: all of the file]")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
@shoal_options
def validate(call: Invocation, files: tuple[Path, ...], flow: str, strict: bool) -> int:
    """Exit code 1 if a file cannot be used."""
    return validate_files(call, files, flow, is_strict=strict)


def validate_files(call: Invocation, files: Sequence[Path], flow: str = "", *, is_strict: bool = False) -> int:
    """Check files and say what they declare. The exit code: 1 if one of them cannot be used."""
    worst = OK
    for index, path in enumerate(files):
        if len(files) > 1 and not call.screen.as_json:
            call.screen.line(f"{chr(10) if index else ''}{_named(path)}:", "bold")
        worst = max(worst, _validate(call, path, flow, is_strict=is_strict))
    return worst


def _validate(call: Invocation, path: Path, flow: str, *, is_strict: bool) -> int:
    from worker.teams.bundle import Draft, look_at
    from worker.teams.errors import BadTeamFile

    try:
        draft, findings = look_at(path)
    except BadTeamFile as error:  # the other files are checked all the same
        if call.screen.as_json:
            call.screen.json(_report(path, Draft(), (), error=str(error)))
        else:
            call.screen.note(f"error: {error}", "bad")
        return FAILED
    found = findings.all()
    wrong = [each for each in found if each.severity == "error" or (is_strict and each.severity == "warning")]
    teams = {name: compiled.team for name, compiled in draft.teams.items()}
    teams.update({name: plan.team for name, plan in draft.plans().items() if name not in teams})
    problem = _errors(len(wrong)) if wrong else _nothing_found(path, draft, flow)
    if call.screen.as_json:
        call.screen.json(_report(path, draft, found, error=problem))
        return FAILED if problem else OK
    missing = [text for compiled in draft.teams.values() for text in compiled.missing]
    _show_findings(call, [each for each in found if not _is_about(each, missing)])
    if len(missing) < len(wrong):
        call.screen.note(f"error: {_named(path)} has {problem}", "bad")
        return FAILED
    if absent := _nothing_found(path, draft, flow):
        call.screen.note(f"error: {absent}", "bad")
        return FAILED
    chosen = [flow] if flow else list(draft.teams or draft.agents)
    _show_teams(call, [teams[name] for name in chosen], missing)
    if missing:
        return _tell_missing(call, missing)
    for what, names in _others(draft).items():
        if names and not chosen:
            call.screen.line(f"{what.capitalize()}: {' '.join(names)}")
    call.screen.line(VALID if chosen else VALID_PART)
    return OK


def _nothing_found(path: Path, draft: Draft, flow: str) -> str:
    """Why there is nothing to use; empty: there is."""
    runnable = (*draft.teams, *draft.agents)
    if flow and runnable:
        return "" if flow in runnable else f'flow "{flow}" not found; available: [{" ".join(runnable)}]'
    if runnable or (not flow and any(_others(draft).values())):
        return ""
    return f"no ArkFlow resources found in {_named(path)}, nor teams or agents of another kind"


def _others(draft: Draft) -> dict[str, list[str]]:
    """What a file may declare beside teams and agents, by name."""
    return {
        "triggers": [trigger.slug for trigger in draft.triggers],
        "notifies": [policy.slug for policy in draft.notifies],
        "runs": [run.name for run in draft.runs],
    }


def _named(path: Path) -> str:
    from worker.teams.kinds.findings import printable

    return printable(str(path))


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count} errors"


def _is_about(finding: Finding, missing: Sequence[str]) -> bool:
    return finding.severity == "error" and any(finding.message.startswith(text) for text in missing)


def _show_findings(call: Invocation, findings: Sequence[Finding]) -> None:
    for finding in findings:
        call.screen.note(str(finding), _STYLES[finding.severity])


def _tell_missing(call: Invocation, missing: Sequence[str]) -> int:
    for text in missing:
        call.screen.note(f"error: {text}", "bad")
    kinds = sorted({text.split("unknown ")[1].split(" ")[0] for text in missing})
    call.screen.note(
        f"error: {len(missing)} missing agent(s) — add the {' and '.join(kinds)} definitions to your YAML", "bad"
    )
    return FAILED


def _show_teams(call: Invocation, teams: Sequence[Team], missing: Sequence[str]) -> None:
    absent = frozenset(text.rsplit('"', 2)[1] for text in missing)
    for index, team in enumerate(teams):
        if index:
            call.screen.line()
        for line in summary(team, absent):
            call.screen.line(line)


def summary(team: Team, absent: frozenset[str] = frozenset()) -> list[str]:
    """What a team is, line by line, as ark's `validate` has it. `absent`: agents that the file does not have."""
    if team.mode == "pipeline":
        word, what = ("Flow:", "agent={:<20}") if team.word == "flow" else ("Team:", "model={:<25}")
        lines = [f"{word:<7} {team.name}", f"Steps:  {len(team.steps)}"]
        for step in team.steps:
            model = what.format(_step_model(team, step, absent))
            lines.append(f"  {step.name:<20}  {model}  deps={_list(step.depends_on)}")
        return lines
    lines = [f"Team:   {team.name}", f"Mode:   {team.mode}" + (f", entry {team.entry}" if team.entry else "")]
    lines.append(f"Roles:  {len(team.roles)}")
    for role in team.roles:
        able = [each.name for each in role.capabilities] if team.mode == "routed" else role.can_delegate
        noun = "capabilities" if team.mode == "routed" else "delegates"
        lines.append(f"  {role.name:<20}  model={model_of(team, role.name, absent):<25}  {noun}={_list(able)}")
    return lines


def model_of(team: Team, name: str, absent: frozenset[str] = frozenset()) -> str:
    """What does a role's work: a model, an agent of the fleet, or another team."""
    role = team.role(name)
    if role is None or role.agent in absent:
        return _NOT_FOUND
    if role.team:
        return f"team {role.team}"
    return f"agent {role.agent}" if role.agent else role.config.model or "-"


def _step_model(team: Team, step: Step, absent: frozenset[str] = frozenset()) -> str:
    if step.lookup is not None:
        return f"({step.lookup.capability})"
    return step.model or model_of(team, step.role, absent)


def _list(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]" if names else "-"


def _report(path: Path, draft: Draft, findings: Sequence[Finding], *, error: str) -> dict[str, Any]:
    return {
        "file": str(path),
        "valid": not error,
        "error": error,
        "teams": [_document(compiled.team) for compiled in draft.teams.values()],
        "agents": list(draft.agents),
        **_others(draft),
        "findings": findings,
    }


def _document(team: Team) -> dict[str, Any]:
    return {
        "name": team.name,
        "mode": team.mode,
        "steps": [
            {
                "name": step.name,
                "role": step.role,
                "model": _step_model(team, step),
                "depends_on": step.depends_on,
            }
            for step in team.steps
        ],
        "roles": [{"name": role.name, "model": model_of(team, role.name)} for role in team.roles],
        "inputs": [{"name": spec.name, "type": spec.type, "required": spec.required} for spec in team.inputs],
    }
