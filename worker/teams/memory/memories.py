"""From a role's declaration to its memory: `Memories`, one for all runs of a worker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

import structlog

from queue_backends import Backend, BackendOptions, QueueError, StateStore, Task, open_backend
from worker.datasources.embeddings import Embeddings
from worker.settings.masking import masked_url
from worker.teams.marks import Marks
from worker.teams.memory.interfaces import Memory, MemoryUnavailable
from worker.teams.memory.keys import run_key, shared_key
from worker.teams.memory.notebook import Notebook
from worker.teams.memory.recollection import NOTHING, Recollection
from worker.teams.memory.vector import VectorMemory
from worker.teams.memory.vector_collections import VectorCollections
from worker.teams.memory.work import GOING_ON, REMEMBERING, Work, work_of
from worker.teams.plan import MemorySpec, Role

KEEP_S = 30 * 86_400.0
LIMIT_S = 15.0
"""So long a run waits for its memory, and then does without. Source: ark."""
REST_S = 60.0
"""So long a memory is not asked after it has not answered in time: else each task would wait for it twice."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Memories:
    """Use it with `async with`. Stores elsewhere are opened when first needed, and closed at the end."""

    def __init__(
        self,
        state: StateStore,
        *,
        options: BackendOptions,
        embeddings: Embeddings | None = None,
        environ: Mapping[str, str] = os.environ,
        limit_s: float = LIMIT_S,
    ) -> None:
        """Without `embeddings` there are no vector memories."""
        self._state = state
        self._options = options
        self._environ = environ
        self._limit_s = limit_s
        self._vectors = None if embeddings is None else VectorCollections(state, embeddings, environ=environ)
        self._stack = AsyncExitStack()
        self._elsewhere: dict[str, Backend] = {}
        self._opening = asyncio.Lock()
        self._rests_until: dict[tuple[str, str, str], float] = {}
        """By place, on the monotonic clock."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._vectors is not None:
                await self._vectors.aclose()
        finally:
            await self._stack.aclose()

    async def recall(self, task: Task, marks: Marks, role: Role) -> Recollection:
        """What the role remembers for a task; nothing, if that cannot be found out in time."""
        if role.memory is None or not role.memory.recalls or marks.purpose not in REMEMBERING:
            return NOTHING
        work = work_of(task, marks)
        found = await self._without_harm("nothing is remembered", role.memory, work, lambda memory: memory.recall(work))
        return found or NOTHING

    async def keep(self, task: Task, marks: Marks, role: Role, answer: str) -> None:
        """Remember what the task was answered, if that can be done in time."""
        if role.memory is None or not role.memory.keeps or marks.purpose not in REMEMBERING | GOING_ON:
            return
        work = work_of(task, marks)
        await self._without_harm(
            "this will not be remembered", role.memory, work, lambda memory: memory.keep(work, answer)
        )

    async def _without_harm(
        self, what: str, spec: MemorySpec, work: Work, do: Callable[[Memory], Awaitable[T]]
    ) -> T | None:
        """What it does with the memory; what goes wrong is a warning."""
        place = (spec.backend, spec.url_env, spec.endpoint)
        limit = asyncio.timeout(self._limit_s)
        try:
            self._check_rest(place)
            async with limit:
                return await do(await self._of(spec, work))
        except MemoryUnavailable as error:
            reason = str(error)
        except TimeoutError as error:
            reason = f"no answer within {self._limit_s:g} s" if limit.expired() else str(error) or "no answer in time"
            self._rests_until[place] = time.monotonic() + REST_S
        except Exception as error:  # a vector store is anybody's code, and its client too: what it says may be secret
            log.debug(what, task=work.task.id, exc_info=error)
            reason = f"{type(error).__name__}, which the debug log shows"
        log.warning(what, task=work.task.id, run=work.marks.run, role=work.marks.role, reason=reason)
        return None

    def _check_rest(self, place: tuple[str, str, str]) -> None:
        if time.monotonic() < self._rests_until.get(place, 0.0):
            raise MemoryUnavailable(f"the memory has not answered in time, and is left alone for {REST_S:g} s")
        self._rests_until.pop(place, None)

    async def _of(self, spec: MemorySpec, work: Work) -> Memory:
        marks, tenant = work.marks, work.task.tenant
        if spec.backend == "in-context":
            key = run_key(marks.run, marks.role)
            return Notebook(self._state, key, keep_s=KEEP_S, ttl_s=spec.ttl_s, max_entries=spec.max_entries)
        if spec.backend == "redis":
            key, state = shared_key(tenant, spec.name, marks.role), await self._state_of(spec)
            keep_s = spec.ttl_s or KEEP_S
            return Notebook(state, key, keep_s=keep_s, ttl_s=spec.ttl_s, max_entries=spec.max_entries)
        if self._vectors is None:
            raise MemoryUnavailable("this process makes no embeddings, and has no vector memories")
        return VectorMemory(spec, self._vectors)

    async def _state_of(self, spec: MemorySpec) -> StateStore:
        """The fleet's own store, or the one whose URL the environment has."""
        if not spec.url_env:
            return self._state
        url = self._environ.get(spec.url_env, "").strip()
        if not url:
            raise MemoryUnavailable(f"memory {spec.name!r} is at the URL in {spec.url_env}, which is not set here")
        async with self._opening:
            if url not in self._elsewhere:
                try:
                    self._elsewhere[url] = await self._stack.enter_async_context(await open_backend(url, self._options))
                except QueueError as error:
                    raise MemoryUnavailable(f"memory {spec.name!r} at {masked_url(url)}: {error}") from error
        return self._elsewhere[url].state
