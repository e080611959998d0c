"""How a request becomes a task: for its caller, once per idempotency key, with the deadline that its client has."""

from __future__ import annotations

import hashlib
import time

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import InvalidTask, Priority, Task
from worker.agents.model import Agent
from worker.errors import AccessDenied, AgentNotFound
from worker.gateway.caller import Scope
from worker.gateway.ingress.ask import Ask
from worker.gateway.operation import Call
from worker.gateway.ownership import submit_for
from worker.gateway.problem import Problem
from worker.objects import Stored

IDEMPOTENCY_HEADERS = ("idempotency-key", "x-idempotency-key")
TIMEOUT_HEADERS = ("x-stainless-read-timeout", "x-stainless-timeout")
"""How long the vendors' clients wait before they give up, in seconds."""
DEADLINE_HEADER = "x-shoal-timeout-s"
LONGEST_KEY_CHARS = 255
LONGEST_TIMEOUT_S = 30 * 86_400.0


class Submitted(Struct, frozen=True, kw_only=True):
    """A task that was submitted for a client."""

    task_id: str
    is_kept: bool
    """It goes on when its client leaves: it may come back for it."""
    may_wait: bool = False
    """For a worker, for as long as it takes."""


async def submit(
    call: Call, ask: Ask, *, api: str, is_kept: bool = False, may_wait: bool = False, waits: bool = False
) -> Submitted:
    """Submit what is asked for. `waits`: the client waits for one answer, for as long as it says.

    Raises `Problem` and what `submit_for` raises.
    """
    if not ask.agent:
        raise Problem(400, "model: it is empty: name an agent, GET /v1/models lists yours", extra={"param": "model"})
    headers = call.request.headers
    key = next((headers[name] for name in IDEMPOTENCY_HEADERS if headers.get(name)), "")
    if len(key) > LONGEST_KEY_CHARS:
        raise Problem(400, f"Idempotency-Key has {len(key)} characters, at most {LONGEST_KEY_CHARS} are allowed")
    is_kept = is_kept or bool(key)
    if ask.priority is Priority.HIGH and not call.caller.may(Scope.TASKS_WRITE):
        ask = replace(ask, priority=Priority.NORMAL)
    patience = next((headers[name] for name in TIMEOUT_HEADERS if headers.get(name)), "")
    if ask.client_tools:
        _check_takes_tools(call, ask)
    task = ask.task(
        deadline=deadline_of(headers.get(DEADLINE_HEADER, ""), patience if waits and not is_kept else ""),
        idempotency_key=_scoped(call, api, key) if key else "",
    )
    return Submitted(task_id=await _submitted(call, task), is_kept=is_kept, may_wait=may_wait)


async def _submitted(call: Call, task: Task) -> str:
    try:
        return await submit_for(call, task)
    except (AgentNotFound, AccessDenied) as error:
        raise no_such_model(task.agent) from error
    except InvalidTask as error:
        raise Problem(400, str(error), code="invalid_request") from error


def no_such_model(name: str) -> Problem:
    """What is said of an agent that is not there, and of one that the caller must not use."""
    return Problem(
        404,
        f"the model {name[:100]!r} does not exist or you do not have access to it: GET /v1/models lists yours",
        code="model_not_found",
        extra={"param": "model"},
    )


def agent_as_model(call: Call, name: str) -> Stored[Agent]:
    """The agent that the caller means by a model's name. Raises `Problem` 404 for one that it must not use, too."""
    try:
        return call.gateway.roster.find_for(name, call.caller)
    except (AgentNotFound, AccessDenied) as error:
        raise no_such_model(name) from error


def deadline_of(wanted: str, patience: str = "") -> float | None:
    """The moment, in Unix seconds, when so many seconds from now are over; else when a client's patience is, if that is
    a time at all. Raises `Problem` 400 for a wish that is none."""
    if wanted:
        seconds = _seconds(wanted)
        if seconds is None:
            raise Problem(400, f"{DEADLINE_HEADER} is {wanted[:50]!r}: give seconds from now, such as 60")
        return time.time() + seconds
    seconds = _seconds(patience)
    return None if seconds is None else time.time() + seconds


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds < LONGEST_TIMEOUT_S else None


def _check_takes_tools(call: Call, ask: Ask) -> None:
    agent = agent_as_model(call, ask.agent).value
    if agent.plugin:
        raise Problem(
            400,
            f"agent {agent.slug!r} is a plugin's code, which is told of no tools but its own: leave 'tools' out",
            code="unsupported_parameter",
            extra={"param": "tools"},
        )


def _scoped(call: Call, api: str, key: str) -> str:
    """One caller's keys mean nothing to another's."""
    return hashlib.sha256("\n".join((api, call.caller.id, key)).encode()).hexdigest()
