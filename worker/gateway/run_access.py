"""Whose run is whose: who is bound to a tenant sees and starts that tenant's runs alone, and an app's key none."""

from __future__ import annotations

import asyncio

from worker.gateway.operation import Call
from worker.gateway.ownership import note_of_run
from worker.gateway.problem import Problem
from worker.objects import Stored
from worker.teams.errors import RunNotFound, TeamNotFound
from worker.teams.run_header import RunHeader
from worker.teams.runs import Run
from worker.teams.team_objects import StoredTeam

_MOST_NOTED = 100


async def header_of(call: Call) -> RunHeader:
    """The run of the path. Raises `RunNotFound` for one that is not there, or not the caller's to see."""
    run_id = call.path["id"]
    caller = call.caller
    if caller.app:
        raise _no_run(run_id)
    try:
        header = await call.gateway.runs.header(run_id)
    except RunNotFound:
        raise _no_run(run_id) from None
    if caller.tenant and header.tenant != caller.tenant:
        raise _no_run(run_id)
    return header


async def note_tasks(call: Call, run: Run) -> None:
    """Let a tenant see the tasks that it is shown with a run, after they have ended too: the queue then no longer knows
    whose they were."""
    if not call.caller.tenant:
        return
    step = next((step for step in run.state.steps if step.name == call.path["step"]), None)
    tasks = [step.task_id] if step else []
    tasks += [child.task_id for child in run.state.children[-_MOST_NOTED:]]
    await asyncio.gather(*(note_of_run(call, task_id, run.header.tenant) for task_id in tasks if task_id))


def _no_run(run_id: str) -> RunNotFound:
    return RunNotFound(f"there is no run {run_id[:200]!r}: it was never started here, or is no longer kept")


def tenant_for(call: Call, asked: str) -> str:
    """Whose a new run is. Raises `Problem` 403 for another tenant than the caller's, and for an app's key."""
    caller = call.caller
    if caller.app:
        raise Problem(403, f"this key belongs to app {caller.app!r}: it runs no teams", code="access_denied")
    if caller.tenant and asked not in ("", caller.tenant):
        raise Problem(403, f"you are bound to the tenant {caller.tenant!r}", code="access_denied")
    return caller.tenant or asked


def teams_of(call: Call) -> list[Stored[StoredTeam]]:
    """The teams that the caller may run: everybody's, and those of its own namespace, which hide everybody's of that
    name."""
    caller = call.caller
    if caller.app:
        return []
    stored = call.gateway.definitions.teams.all()
    if not caller.tenant:
        return sorted(stored, key=lambda each: (each.value.slug, each.value.namespace))
    chosen: dict[str, Stored[StoredTeam]] = {}
    for each in sorted(stored, key=lambda found: found.value.namespace == caller.tenant):
        if each.value.namespace in ("", caller.tenant):
            chosen[each.value.slug] = each
    return [chosen[slug] for slug in sorted(chosen)]


def team_named(call: Call, slug: str, namespace: str) -> StoredTeam:
    """A team that the caller may run. Raises `TeamNotFound`."""
    definitions = call.gateway.definitions
    for store in (definitions.teams, definitions.team_agents):
        found = store.visible(slug, namespace)
        if found is not None and not call.caller.app:
            return found.value
    names = ", ".join(dict.fromkeys(each.value.slug for each in teams_of(call)))
    known = f"there are {names}" if names else "there are none: `shoal team apply FILE` stores one"
    raise TeamNotFound(f"there is no team {slug[:200]!r}: {known}")
