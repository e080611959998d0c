"""Roles that are teams: a run of that team, driven by whoever drives the run that it belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from queue_backends import Task
from worker.teams.errors import BadInput
from worker.teams.inputs import check_input
from worker.teams.marks import Marks
from worker.teams.plan import Role, Team

if TYPE_CHECKING:
    from worker.teams.folding import Folding
    from worker.teams.runs import Runs

MOST_NESTED = 10
"""Runs within runs. Teams may have each other as roles: nothing else would end that."""
PROMPT_NAMES = ("prompt", "task", "input")
"""Which parameter of a team a delegated prompt is, if it has several: the first of these that there is."""


async def start_child_run(runs: Runs, task: Task, marks: Marks, role: Role) -> str:
    """Start the run that a delegated task is, once; returns its id. Raises `BadInput` with what the team wants."""
    if len(await enclosing(runs, marks.run)) > MOST_NESTED:
        raise BadInput(f"runs of teams are nested {MOST_NESTED} deep already: do the work yourself")
    folding, _ = await runs.fold(marks.run)
    given = input_of(folding.plan.find(role.team), task.prompt)
    run_id = child_run_id(marks.run, task.idempotency_key)
    trace = (task.traceparent, task.tracestate)
    return await start_within(runs, folding, marks.step, role.team, given, run_id, trace=trace)


async def start_within(
    runs: Runs,
    folding: Folding,
    step: str,
    team: str,
    given: Mapping[str, Any],
    run_id: str,
    *,
    trace: tuple[str, str] = ("", ""),
) -> str:
    """Start the run of a team that works for a step of another run, within what that one has left; returns its id.
    Without a `trace` it is part of the other run's. Raises `BadInput`."""
    header, limit = folding.header, folding.max_tokens
    traceparent, tracestate = trace if trace[0] else (header.traceparent, header.tracestate)
    return await runs.start(
        folding.plan,
        given,
        run_id=run_id,
        team=team,
        tenant=header.tenant,
        trigger=header.trigger,
        parent=(header.id, step),
        max_tokens=max(1, limit - folding.usage.total_tokens) if limit else 0,
        is_local=header.is_local,
        labels=header.labels,
        traceparent=traceparent,
        tracestate=tracestate,
    )


async def enclosing(runs: Runs, run_id: str) -> list[str]:
    """A run, and those that it belongs to, the outermost last."""
    found = [run_id]
    while (parent := (await runs.header(found[-1])).parent) is not None and parent[0] not in found:
        found.append(parent[0])
    return found


def child_run_id(run_id: str, key: str) -> str:
    """`<run>.delegated.<digest of the call>`."""
    digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:16]
    found = f"{run_id}.delegated.{digest}"
    return found if len(found) <= 190 else f"run-{hashlib.sha256(found.encode()).hexdigest()[:32]}"


def input_of(team: Team, prompt: str) -> dict[str, Any]:
    """A delegated prompt as the input of a team: a JSON object that fits what the team declares, or else the one
    parameter that the prompt can be. Raises `BadInput`."""
    given = _object(prompt)
    if given is not None and team.inputs and given.keys() <= {each.name for each in team.inputs}:
        return check_input(team, given)
    names = [each.name for each in team.inputs]
    required = [each.name for each in team.inputs if each.required]
    if not names:
        return {"prompt": prompt}
    if len(names) == 1 or len(required) == 1:
        return check_input(team, {(required or names)[0]: prompt})
    for name in PROMPT_NAMES:
        if name in names:
            return check_input(team, {name: prompt})
    raise BadInput(f"team {team.name!r} has the inputs {', '.join(names)}: give a JSON object with them as the prompt")


def _object(prompt: str) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(prompt)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
