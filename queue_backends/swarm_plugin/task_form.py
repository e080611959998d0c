"""A task as the plugin protocol has it: a prompt and texts by name. What else a task has goes along as one of these."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from queue_backends.errors import InvalidTask
from queue_backends.messages import Task, TaskResult, TokenUsage
from queue_backends.swarm_plugin.messages import PluginResult, PluginTask, SubmitRequest

REST = "shoal.task"
"""Name of the text that holds, as JSON, what the protocol has no place for: agent, history, priority, and so on."""

DELIVERY = "shoal.delivery"
"""Name of the text by which `shoal serve-swarm` tells the present holder of a task from an earlier one: agents give
the whole task back when they have ended."""


def to_submit(task: Task) -> SubmitRequest:
    """The task, to be queued."""
    rest = msgspec.to_builtins(replace(task, prompt="", meta={}, id=""))
    del rest["prompt"]
    extra = {REST: msgspec.json.encode(rest).decode()} if rest else {}
    return SubmitRequest(prompt=task.prompt, meta={**task.meta, **extra})


def task_of(prompt: str, meta: dict[str, str], task_id: str = "") -> Task:
    """The task that was queued. Raises `InvalidTask` if its rest cannot be read."""
    own = {name: text for name, text in meta.items() if name not in (REST, DELIVERY)}
    try:
        rest = msgspec.json.decode(meta[REST]) if REST in meta else {}
        return msgspec.convert({**rest, "prompt": prompt, "meta": own, "id": task_id}, Task)
    except (msgspec.DecodeError, TypeError) as error:
        raise InvalidTask(f"task {task_id or prompt[:40]!r}: {REST} cannot be read: {error}") from error


def to_task(task: Task, token: str) -> PluginTask:
    """The task, on its way into the hands of an agent; `token` is that of its delivery."""
    queued = to_submit(task)
    return PluginTask(id=task.id, prompt=queued.prompt, meta={**queued.meta, DELIVERY: token})


def result_of(result: PluginResult) -> TaskResult:
    """A result. Counts that are both zero were not reported."""
    return TaskResult(
        task_id=result.task_id,
        output=result.output,
        error=result.error,
        usage=usage_of(result.input_tokens, result.output_tokens),
    )


def to_result(result: TaskResult) -> PluginResult:
    """A result, to be told."""
    return PluginResult(
        task_id=result.task_id,
        output=result.output,
        error=result.error,
        input_tokens=result.usage.input_tokens or 0,
        output_tokens=result.usage.output_tokens or 0,
    )


def usage_of(input_tokens: int, output_tokens: int) -> TokenUsage:
    """The usage that these counts tell; none if both are zero."""
    if not input_tokens and not output_tokens:
        return TokenUsage()
    return TokenUsage(input_tokens=input_tokens, output_tokens=output_tokens)
