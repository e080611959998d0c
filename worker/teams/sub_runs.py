"""Delegation to a role that is a team: a run of that team, driven by whoever drives the run that it belongs to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from queue_backends import Task
from worker.teams.errors import BadInput
from worker.teams.inputs import check_input
from worker.teams.marks import Marks
from worker.teams.plan import Role, Team

if TYPE_CHECKING:
    from worker.teams.run_header import RunHeader
    from worker.teams.runs import Runs

MOST_NESTED = 10
"""Runs within runs."""
PROMPT_NAMES = ("prompt", "task", "input")
"""Which parameter of a team a delegated prompt is, if it has several: the first of these that there is."""


async def start_child_run(runs: Runs, task: Task, marks: Marks, role: Role) -> str:
    """Start the run that a delegated task is, once; returns its id. Raises `BadInput` with what the team wants."""
    header = await runs.header(marks.run)
    await _check_nesting(runs, header)
    plan = await runs.plan(marks.plan)
    return await runs.start(
        plan,
        input_of(plan.find(role.team), task.prompt),
        run_id=child_run_id(marks.run, task.idempotency_key),
        team=role.team,
        tenant=header.tenant,
        trigger=header.trigger,
        parent=(header.id, marks.step),
        is_local=header.is_local,
        labels=header.labels,
        traceparent=task.traceparent or header.traceparent,
        tracestate=task.tracestate or header.tracestate,
    )


async def _check_nesting(runs: Runs, header: RunHeader) -> None:
    """Teams may have each other as roles: nothing else would end that."""
    nested = 0
    while header.parent is not None:
        nested += 1
        if nested >= MOST_NESTED:
            raise BadInput(f"runs of teams are nested {MOST_NESTED} deep already: do the work yourself")
        header = await runs.header(header.parent[0])


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
