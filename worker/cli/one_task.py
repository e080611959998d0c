"""One task, here and now: `shoal run` with a prompt or a task file."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from queue_backends import Backend, BackendMisconfigured, QueueError, Task, TaskResult, open_backend
from worker.cli.failures import FAILED, OK
from worker.cli.follow import follow
from worker.cli.invocation import Invocation
from worker.cli.known_provider import refuse_unknown_providers
from worker.cli.model_choice import with_model
from worker.cli.task_file import SUFFIXES, Job, read_job
from worker.errors import AgentNotFound

if TYPE_CHECKING:
    from worker.client import Fleet, Handle
    from worker.settings import Settings

_CANCEL_TIMEOUT_S = 5.0


def run_task(call: Invocation, prompt: str, options: Mapping[str, Any]) -> int:
    """Exit code 1 if the task failed."""
    job = _job(prompt)
    settings = call.settings({**job.settings, **agent_flags(options)})
    if options["tools"]:
        settings = replace(settings, python_tools=(*settings.python_tools, *options["tools"]))
    name = options["agent"] or job.task.agent
    if name and name not in settings.agents:
        declared = ", ".join(sorted(settings.agents)) or "none: add it under agents: in shoal.yaml"
        raise AgentNotFound(f"no agent {name!r} is declared; there are {declared}")
    overrides = {
        key.removeprefix("agent."): value for key, value in agent_flags(options).items() if name and "." in key
    }
    task = replace(job.task, agent=name, overrides=overrides)
    return call.wait_for(_run(call, settings, task))


def is_file_name(prompt: str) -> bool:
    """Whether a prompt names a file rather than being a text for a model."""
    return prompt.endswith(SUFFIXES) and "\n" not in prompt and (Path(prompt).is_file() or " " not in prompt)


def _job(prompt: str) -> Job:
    if prompt == "-":
        text = sys.stdin.read().strip()
        if not text:
            raise click.UsageError("stdin is empty: pipe the prompt's text into it", click.get_current_context())
        return Job(task=Task(prompt=text))
    if not prompt.strip():
        raise click.UsageError("the prompt is empty: give it some text", click.get_current_context())
    return read_job(Path(prompt)) if is_file_name(prompt) else Job(task=Task(prompt=prompt))


def agent_flags(options: Mapping[str, Any]) -> dict[str, object]:
    """Settings of the agent that flags give, by their keys."""
    timeout_s = options["timeout_s"]
    flags = {
        "agent.model": options["model"],
        "agent.provider": options["provider"],
        "agent.route": options["route"],
        "agent.system_prompt": options["system"],
        "agent.max_tokens": options["max_tokens"],
        "timeout_s": None if timeout_s is None else max(1, round(timeout_s)),
    }
    return {key: value for key, value in flags.items() if value is not None}


async def _run(call: Invocation, settings: Settings, task: Task) -> int:
    if task.agent:
        return await _run_here(call, settings, task)
    async with with_model(settings, call.screen) as chosen:
        return await _run_here(call, chosen, task)


async def _run_here(call: Invocation, settings: Settings, task: Task) -> int:
    from worker.assembly import open_worker
    from worker.client import Fleet

    async with _own_queue(call, settings) as backend:
        await refuse_unknown_providers(settings, backend.state, [_provider_of(settings, task)])
        fleet = Fleet(backend)
        started_at = time.monotonic()
        handle = await fleet.submit(task)
        async with open_worker(settings, backend):
            result = await _watched(call, fleet, handle, started_at)
    return OK if result.ok else FAILED


def _provider_of(settings: Settings, task: Task) -> str:
    """What the task's agent, or a flag, names; empty where a route or the model's name decides."""
    config = settings.agents[task.agent] if task.agent else settings.agent
    named = task.overrides.get("provider", "")
    return named or ("" if task.overrides.get("route") or config.route else config.provider)


@asynccontextmanager
async def _own_queue(call: Invocation, settings: Settings) -> AsyncIterator[Backend]:
    """A queue in this process alone, with the state of the configured one.

    So no other worker takes the task, which may need tools that only we have, and we take no task of others; but
    budgets count, and what is used shows in `shoal usage`.
    """
    async with await open_backend("memory://", settings.backend) as own, AsyncExitStack() as stack:
        try:
            state = (await stack.enter_async_context(call.fleet(settings))).backend.state
        except BackendMisconfigured as error:
            if settings.queue_url:
                raise
            call.screen.note(f"what this run uses is not kept: {error}", "warn")
            state = own.state
        yield Backend(own.queue, own.chunks, state, url=own.url)


async def _watched(call: Invocation, fleet: Fleet, handle: Handle, started_at: float) -> TaskResult:
    """Follow the task; Ctrl-C, or the end of whoever reads our output, cancels it: nobody pays for the unread."""
    try:
        return await follow(fleet, handle, call.screen, started_at=started_at, resumable=False)
    except (asyncio.CancelledError, OSError):
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                await handle.cancel()
        except (TimeoutError, QueueError) as error:
            call.screen.note(f"could not cancel task {handle.id}: {error or 'no answer'}", "bad")
        else:
            call.screen.note(f"cancelled task {handle.id}", "warn")
        raise
