"""Whose run is whose: who is bound to a tenant sees and starts that tenant's runs alone, and an app's key none."""

from __future__ import annotations

from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.objects import Stored
from worker.teams.errors import RunNotFound, TeamNotFound
from worker.teams.run_header import RunHeader
from worker.teams.team_objects import StoredTeam


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
