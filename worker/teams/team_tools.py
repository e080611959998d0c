"""What a role may do with the team and its queue: `delegate`, `collect_results`, `spawn_and_collect`. Names, schemas
and texts are ark's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from providers.messages import ToolSpec
from queue_backends import QueueError
from queue_backends.messages import encode_json
from worker.errors import ToolCallFailed
from worker.teams.delegation import Children, Refused, UnknownRole, Wanted, call_of
from worker.teams.plan import Role, Team
from worker.tools.builtin import SubmitSubtask
from worker.tools.interfaces import Tool, ToolContext, ToolResult

DEFAULT_TIMEOUT_S = 120.0
LONGEST_TIMEOUT_S = 7 * 86_400.0
_CALL_S = 86_400.0
"""The tools' own limit is no bound for waiting: that is `timeout_seconds`, and a wait holds no worker."""
_WAIT = {"type": "number", "description": f"How long to wait at most, in seconds. Default {DEFAULT_TIMEOUT_S:g}."}


def team_tools(team: Team, role: Role) -> list[Tool]:
    """The tools of a role that may delegate, in ark's order; none for a leaf."""
    if not role.can_delegate:
        return []
    return [SubmitSubtask(), CollectResults(), SpawnAndCollect(), Delegate(_choices(team, role))]


def queue_tools(roles: Iterable[str]) -> list[Tool]:
    """The tools of every agent of a worker that has a queue; `roles` are those that have queues of their own."""
    tools: list[Tool] = [SubmitSubtask(), CollectResults(), SpawnAndCollect()]
    if names := sorted(roles):
        tools.append(Delegate([(name, "") for name in names]))
    return tools


def _choices(team: Team, role: Role) -> tuple[tuple[str, str], ...]:
    found = ((name, team.role(name)) for name in role.can_delegate)
    return tuple((name, "" if other is None else other.description) for name, other in found)


class Delegate:
    """`delegate`: gives a task to another role, and does not wait for it."""

    after_timeout = "the task may have been delegated all the same"

    def __init__(self, choices: Sequence[tuple[str, str]]) -> None:
        """`choices`: names of roles, and what each is for."""
        listed = "; ".join(f"{name}: {about}" if about else name for name, about in choices)
        self.spec = ToolSpec(
            name="delegate",
            description=(
                "Give a task to another role of the team, to be worked on independently. Returns the task's id at "
                "once; get its result with collect_results. The other role sees the prompt alone, so put all it needs "
                f"into it. Roles: {listed}"
            ),
            input_schema={
                "type": "object",
                "properties": {
                    "role": {"type": "string", "description": "Who shall do it."},
                    "prompt": {"type": "string", "description": "The whole instruction for the task."},
                },
                "required": ["role", "prompt"],
            },
            idempotent=True,
            timeout_s=30.0,
            kind="builtin",
        )

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Submit the task. Raises `ToolCallFailed`."""
        role, prompt = arguments["role"].strip(), arguments["prompt"]
        if not role:
            raise ToolCallFailed("delegate: role must not be empty")
        if not prompt.strip():
            raise ToolCallFailed("delegate: prompt must not be empty")
        try:
            [task_id] = await _children(context, "delegate").submit([Wanted(prompt=prompt, role=role)], context.call_id)
        except (UnknownRole, Refused) as error:
            raise ToolCallFailed(f"delegate: {error}") from error
        except QueueError as error:
            raise ToolCallFailed(f'delegate: submitting to role "{role}": {error}') from error
        return ToolResult(text=f'task delegated to role "{role}" with id: {task_id}')


class CollectResults:
    """`collect_results`: waits for tasks that were submitted or delegated, without holding a worker."""

    spec = ToolSpec(
        name="collect_results",
        description=(
            "Wait for tasks that you have submitted or delegated, and return their results. When the time is up, "
            "those that are not ready are listed as pending: call it again for them."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "task_ids": {"type": "array", "items": {"type": "string"}, "description": "Ids of the tasks."},
                "timeout_seconds": _WAIT,
            },
            "required": ["task_ids"],
        },
        idempotent=True,
        timeout_s=_CALL_S,
        kind="builtin",
    )
    after_timeout = "the tasks go on: ask for their results again"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """The results. Raises `ToolCallFailed`, and `Parked` as long as some are missing."""
        task_ids = list(dict.fromkeys(arguments["task_ids"]))
        if not task_ids:
            raise ToolCallFailed("collect_results: task_ids is required")
        children = _children(context, "collect_results")
        try:
            call = call_of(context.call_id, task_ids)
            found = await children.collect(task_ids, call, timeout_s=_timeout_s(arguments))
        except QueueError as error:
            raise ToolCallFailed(f"collect_results: polling queue: {error}") from error
        return _json({"completed": found.completed, "pending": found.pending})


class SpawnAndCollect:
    """`spawn_and_collect`: submits several tasks and waits for all of them, without holding a worker."""

    spec = ToolSpec(
        name="spawn_and_collect",
        description=(
            "Submit several tasks at once, each for a role of the team or, without one, for an agent like you; wait "
            "for all of them and return their results. When the time is up, those that are not ready are listed as "
            "pending: get them with collect_results."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "tasks": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "prompt": {"type": "string", "description": "The whole instruction for the task."},
                            "role": {"type": "string", "description": "Who shall do it; left out: one like you."},
                        },
                        "required": ["prompt"],
                    },
                },
                "timeout_seconds": _WAIT,
            },
            "required": ["tasks"],
        },
        idempotent=True,
        timeout_s=_CALL_S,
        kind="builtin",
    )
    after_timeout = "the tasks go on: ask for their results with collect_results"

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """The results. Raises `ToolCallFailed`, and `Parked` as long as some are missing."""
        wanted = [
            Wanted(prompt=each["prompt"], role=each.get("role", "").strip(), is_awaited=True)
            for each in arguments["tasks"]
        ]
        if not wanted or not all(each.prompt.strip() for each in wanted):
            raise ToolCallFailed("spawn_and_collect: prompt must not be empty")
        children, call = _children(context, "spawn_and_collect"), call_of(context.call_id, wanted)
        try:
            task_ids = await children.submitted_by(call) or await children.submit(wanted, context.call_id)
        except (UnknownRole, Refused) as error:
            raise ToolCallFailed(f"spawn_and_collect: {error}") from error
        except QueueError as error:
            raise ToolCallFailed(f"spawn_and_collect: submitting task: {error}") from error
        try:
            found = await children.collect(task_ids, call, timeout_s=_timeout_s(arguments))
        except QueueError as error:
            raise ToolCallFailed(f"spawn_and_collect: polling queue: {error}") from error
        prompts = dict(zip(task_ids, (each.prompt for each in wanted), strict=False))
        completed = {
            task_id: {"prompt": prompts.get(task_id, ""), "output": output}
            for task_id, output in found.completed.items()
        }
        return _json({"completed": completed, "pending": found.pending})


def _children(context: ToolContext, tool: str) -> Children:
    if context.children is None:
        raise ToolCallFailed(f"{tool}: there is no task queue in this run")
    return context.children


def _timeout_s(arguments: dict[str, Any]) -> float:
    given = arguments.get("timeout_seconds") or 0
    return min(float(given), LONGEST_TIMEOUT_S) if given > 0 else DEFAULT_TIMEOUT_S


def _json(value: object) -> ToolResult:
    return ToolResult(text=encode_json(value).decode())
