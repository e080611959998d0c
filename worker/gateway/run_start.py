"""Starting a run over HTTP: of a team of the fleet, or of a caller's own file; with a key, once."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from msgspec.structs import replace

from queue_backends.messages import encode_json
from worker.gateway.foreign_files import as_sent, read_foreign
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.gateway.run_access import team_named, tenant_for
from worker.gateway.run_views import RunRequest, RunStarted
from worker.teams.plan import Plan
from worker.teams.runs import new_run_id

_KEYS = "gateway/run-keys/"
_LONGEST_KEY = 200


async def start_run(call: Call, wanted: RunRequest) -> RunStarted:
    """Begin it, or find the one that the same key has begun. Raises `Problem`, `BadTeamFile`, `TeamNotFound`,
    `BadInput`."""
    tenant = tenant_for(call, wanted.tenant)
    plan, warnings = _plan(call, wanted, tenant)
    runs, key = call.gateway.runs, _key(call, wanted)
    run_id, is_repeated = await _reserved(call, wanted, plan, tenant, key) if key else (new_run_id(plan.name), False)
    started = await runs.start(plan, wanted.input, run_id=run_id, tenant=tenant, labels=wanted.labels)
    return RunStarted(id=started, team=plan.name, is_repeated=is_repeated, warnings=warnings)


def _plan(call: Call, wanted: RunRequest, tenant: str) -> tuple[Plan, list[str]]:
    if wanted.file:
        bundle = read_foreign(call, wanted.file)
        return _keeping_others(bundle.plan(wanted.team)), [as_sent(str(finding)) for finding in bundle.findings][:100]
    if not wanted.team:
        raise Problem(422, 'name a team, {"team": "…"}, or send a file, {"file": "…"}', code="nothing_to_run")
    stored = team_named(call, wanted.team, tenant)
    if not stored.is_active:
        raise Problem(409, f"team {wanted.team!r} is switched off: activate it first", code="team_inactive")
    return stored.plan, []


def _keeping_others(plan: Plan) -> Plan:
    """Without its word on how many runs are kept: a team of the fleet may have the same name."""
    return replace(plan, teams=tuple(replace(team, successful_runs_kept=0, failed_runs_kept=0) for team in plan.teams))


def _key(call: Call, wanted: RunRequest) -> str:
    key = wanted.idempotency_key or call.request.headers.get("idempotency-key", "").strip()
    if len(key) > _LONGEST_KEY:
        raise Problem(400, f"Idempotency-Key has {len(key)} characters, at most {_LONGEST_KEY} are allowed")
    return key


async def _reserved(call: Call, wanted: RunRequest, plan: Plan, tenant: str, key: str) -> tuple[str, bool]:
    """The run that the key stands for, and whether it had been started. Raises `Problem` 422 if it stands for another
    content."""
    state, runs = call.gateway.backend.state, call.gateway.runs
    content = {"plan": plan.digest, "input": wanted.input, "labels": wanted.labels}
    print_of = hashlib.sha256(encode_json(content)).hexdigest()[:24]
    place = f"{_KEYS}{quote(tenant, safe='')}/{quote(call.caller.id, safe='')}/{quote(key, safe='')}"
    fresh = f"{print_of} {new_run_id(plan.name)}".encode()
    if await state.compare_and_set(place, None, fresh, ttl_s=runs.keep_s):
        return fresh.decode().partition(" ")[2], False
    stood = (await state.get(place) or fresh).decode()
    before, _, run_id = stood.partition(" ")
    if before != print_of:
        raise Problem(
            422,
            "this idempotency key stands for a run with another team, input or labels: use a new key",
            code="idempotency_key_reused",
        )
    return run_id, True
