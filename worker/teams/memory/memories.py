"""From a role's declaration to its memory: `Memories`, one for all runs of a worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from queue_backends import Backend, BackendOptions, QueueError, StateStore, Task, open_backend
from worker.settings.masking import masked_url
from worker.teams.marks import Marks
from worker.teams.memory.interfaces import Memory, MemoryUnavailable
from worker.teams.memory.notebook import Notebook
from worker.teams.plan import MemorySpec, Role

PREFIX = "team-memory/"
KEEP_S = 30 * 86_400.0
LIMIT_S = 15.0
"""So long a run waits for its memory, and then does without. Source: ark."""
REMEMBERING = frozenset({"step", "delegated", "subtask"})
"""Purposes of tasks that a role remembers; the others are about the answer of one of these."""

log = structlog.get_logger(__name__)


class Memories:
    """Use it with `async with`. Stores elsewhere are opened when first needed, and closed at the end."""

    def __init__(self, state: StateStore, *, options: BackendOptions, environ: Mapping[str, str] = os.environ) -> None:
        self._state = state
        self._options = options
        self._environ = environ
        self._stack = AsyncExitStack()
        self._elsewhere: dict[str, Backend] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def recall(self, task: Task, marks: Marks, role: Role) -> Task:
        """The task, with what its role remembers; as it is if that cannot be found out in time."""
        if role.memory is None or marks.purpose not in REMEMBERING:
            return task
        try:
            async with asyncio.timeout(LIMIT_S):
                return await (await self._of(role.memory, marks, task.tenant)).recall(task)
        except (MemoryUnavailable, TimeoutError) as error:
            _warn("nothing is remembered", task, marks, error)
            return task

    async def keep(self, task: Task, marks: Marks, role: Role, output: str) -> None:
        """Remember what the task was answered, if that can be done in time."""
        if role.memory is None or marks.purpose not in REMEMBERING:
            return
        try:
            async with asyncio.timeout(LIMIT_S):
                await (await self._of(role.memory, marks, task.tenant)).keep(task, output)
        except (MemoryUnavailable, TimeoutError) as error:
            _warn("this will not be remembered", task, marks, error)

    async def _of(self, spec: MemorySpec, marks: Marks, tenant: str) -> Memory:
        if spec.backend == "in-context":
            key = f"{PREFIX}run/{marks.run}/{marks.role}"
            return Notebook(self._state, key, keep_s=KEEP_S, ttl_s=spec.ttl_s, max_entries=spec.max_entries)
        if spec.backend == "redis":
            key = f"{PREFIX}of/{tenant}/{spec.name}/{marks.role}"
            state = await self._state_of(spec)
            keep_s = spec.ttl_s or KEEP_S
            return Notebook(state, key, keep_s=keep_s, ttl_s=spec.ttl_s, max_entries=spec.max_entries)
        raise MemoryUnavailable(f"there is no memory of the kind {spec.backend!r}")

    async def _state_of(self, spec: MemorySpec) -> StateStore:
        """The fleet's own store, or the one whose URL the environment has."""
        if not spec.url_env:
            return self._state
        url = self._environ.get(spec.url_env, "")
        if not url:
            raise MemoryUnavailable(f"memory {spec.name!r} is at the URL in {spec.url_env}, which is not set here")
        async with self._opening:
            if url not in self._elsewhere:
                try:
                    self._elsewhere[url] = await self._stack.enter_async_context(await open_backend(url, self._options))
                except QueueError as error:
                    raise MemoryUnavailable(f"memory {spec.name!r} at {masked_url(url)}: {error}") from error
        return self._elsewhere[url].state


def _warn(what: str, task: Task, marks: Marks, error: Exception) -> None:
    reason = str(error) or f"no answer within {LIMIT_S:g} s"
    log.warning(what, task=task.id, run=marks.run, role=marks.role, reason=reason)
