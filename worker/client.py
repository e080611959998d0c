"""The client: submit tasks, watch their chunks, await their results.

async with connect("redis://localhost:6379") as fleet:
    task = await fleet.submit("Summarise the news of today")
    async for chunk in task:
        print(chunk.content, end="")
    print((await task.result()).usage)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendOptions,
    CancelOutcome,
    Chunk,
    Priority,
    Task,
    TaskNotFound,
    TaskResult,
    TaskStatus,
    open_backend,
)
from queue_backends.transactional import TransactionalQueue
from worker.journal import entries_of, read_journal
from worker.recall import conversation_of
from worker.telemetry import inject

if TYPE_CHECKING:
    from worker.agents.declarations import Declarations
    from worker.agents.model import Agent, App, Group, Llm
    from worker.agents.registrar import Registrar

DEFAULT_TIMEOUT_S = 3600.0


class Handle:
    """One submitted task. Iterating over it yields its chunks from the first on, live, and ends with the final one."""

    __slots__ = ("__weakref__", "_backend", "id")

    def __init__(self, backend: Backend, task_id: str) -> None:
        self.id = task_id
        self._backend = backend

    def __repr__(self) -> str:
        return f"<Handle {self.id}>"

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self.chunks()

    def chunks(self, *, after_seq: int = -1) -> AsyncIterator[Chunk]:
        """Chunks after `after_seq`, without gap or duplicate, until the final one.

        A chunk of a turn whose `attempt` is higher than before supersedes what that turn had shown.
        Raises `ReplayTrimmed` if they are no longer all kept.
        """
        return self._backend.chunks.subscribe(self.id, after_seq=after_seq)

    async def text(self) -> AsyncIterator[str]:
        """The answer's text as it is produced. A turn that starts over is shown again from its beginning."""
        async for chunk in self.chunks():
            if chunk.type == "CONTENT":
                yield chunk.content

    async def result(self, timeout_s: float | None = None) -> TaskResult:
        """The result, as soon as there is one; waits an hour unless `timeout_s` says otherwise.

        Raises `WaitTimeout`; the task then goes on.
        """
        return await self._backend.queue.wait(self.id, DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s)

    async def cancel(self) -> CancelOutcome:
        """End the task: at once if it waits, through its worker if it runs."""
        return (await self._backend.queue.cancel([self.id]))[0]

    async def status(self) -> TaskStatus:
        """Where the task is now."""
        return (await self._backend.queue.status([self.id]))[0]

    async def messages(self) -> list[dict[str, Any]]:
        """What the run has added to the conversation so far, from its journal: ready to be the end of another task's
        `history`, after this one's own history and prompt.

        A run that ended without an answer, or goes on, has its finished turns; tool calls without an outcome are
        closed with one that says so, but for those that the run left to its client (`TaskResult.tool_calls`).
        """
        moments = await read_journal(self._backend.state, self.id)
        (result,) = await self._backend.queue.results([self.id])
        # What was said beside calls for the client stands in the journal, with them.
        answer = result.output if result and not result.tool_calls else ""
        left_open = {call["id"] for call in result.tool_calls} if result else set()
        messages = conversation_of(entries_of(moments), answer, left_open=left_open)
        plain: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(messages))
        return plain


class Fleet:
    """A connection to a queue and whoever works on it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    async def submit(
        self,
        prompt: str | Task,
        *,
        agent: str = "",
        priority: Priority | str = Priority.NORMAL,
        run_at: float | None = None,
        delay_s: float | None = None,
        idempotency_key: str = "",
        meta: Mapping[str, str] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
        tenant: str = "",
        session_id: str = "",
        deadline_s: float | None = None,
        connection: Any = None,
        **overrides: Any,
    ) -> Handle:
        """Enqueue a task: a prompt with these fields, or a whole `Task` (then the other arguments do not apply, but
        for `run_at`, `delay_s` and `connection`).

        `run_at` (Unix seconds) or `delay_s` from now: when it becomes ready. `deadline_s` from now: when it ends,
        done or not. Further keywords override the agent's configuration for this task, such as `model="…"`.
        `connection`: add it as part of the transaction that is open there, on a queue in the same database; see
        `TransactionalQueue`. Raises `InvalidTask` or `QueueFull`; then nothing was added.
        """
        task = prompt
        if isinstance(task, str):
            task = Task(
                prompt=task,
                agent=agent,
                priority=priority if type(priority) is Priority else Priority(priority),
                idempotency_key=idempotency_key,
                meta=dict(meta) if meta else {},
                history=tuple(map(dict, history)) if history else (),
                tenant=tenant,
                session_id=session_id,
                deadline=time.time() + deadline_s if deadline_s is not None else None,
                overrides=msgspec.to_builtins(overrides) if overrides else {},
            )
        if delay_s is not None:
            run_at = time.time() + delay_s
        if connection is None:
            task_id = await self.backend.queue.submit(inject(task), run_at=run_at)
        else:
            (task_id,) = await self._transactional.submit_in(connection, [inject(task)], run_at=run_at)
        return Handle(self.backend, task_id)

    async def submit_many(self, items: Iterable[str | Task], *, connection: Any = None) -> list[Handle]:
        """Enqueue many tasks with few round trips; handles in the order of `items`. `connection`: as for `submit`."""
        tasks = [inject(Task(prompt=item) if isinstance(item, str) else item) for item in items]
        if connection is None:
            ids = await self.backend.queue.submit_many(tasks)
        else:
            ids = await self._transactional.submit_in(connection, tasks)
        return [Handle(self.backend, task_id) for task_id in ids]

    @property
    def _transactional(self) -> TransactionalQueue:
        queue = self.backend.queue
        if isinstance(queue, TransactionalQueue):
            return queue
        scheme = self.backend.url.partition("://")[0]
        raise BackendMisconfigured(
            f"connection= needs a queue in the same database, such as postgresql://, and this one is {scheme}://: "
            "leave it out, and submit after your own commit"
        )

    # What is declared

    @property
    def agents(self) -> Registrar[Agent]:
        """The fleet's agents: `await fleet.agents.create("support", model="…", system_prompt="…")`."""
        return self._declarations.agents

    @property
    def apps(self) -> Registrar[App]:
        """The apps that bind models, tools and data sources for agents."""
        return self._declarations.apps

    @property
    def llms(self) -> Registrar[Llm]:
        """The models that apps may use."""
        return self._declarations.llms

    @property
    def groups(self) -> Registrar[Group]:
        """The access groups that agents may name."""
        return self._declarations.groups

    @cached_property
    def _declarations(self) -> Declarations:
        from worker.agent_plugins.registry import AgentPlugins  # who only submits tasks does without
        from worker.agents.declarations import Declarations
        from worker.definitions import Definitions

        definitions = Definitions(self.backend.state)
        plugins = AgentPlugins.found(declared=definitions.plugins)
        return Declarations(definitions, plugins=plugins, has_all_plugins=False, is_followed=False)

    # Tasks that are there already

    def task(self, task_id: str) -> Handle:
        """A handle for a task that was submitted before."""
        return Handle(self.backend, task_id)

    async def result_of(self, task_id: str) -> TaskResult:
        """The result of an ended task. Raises `TaskNotFound` if there is none."""
        found = (await self.backend.queue.results([task_id]))[0]
        if found is None:
            raise TaskNotFound(f"task {task_id} has no result: it has not ended, or its result has expired")
        return found


@asynccontextmanager
async def connect(url: str = "", *, options: BackendOptions | None = None) -> AsyncIterator[Fleet]:
    """Connect to a queue by URL; without one, to the embedded server that all processes of this user share."""
    async with await open_backend(url, options) as backend:
        yield Fleet(backend)
