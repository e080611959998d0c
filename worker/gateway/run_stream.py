"""A run as server-sent events: its state in parts, each told when it has changed, and on request the running steps'
chunks.

Events: `run` and `graph` (objects), `steps`, `children` and `nodes` (lists of those that are new or have changed),
`chunk`, `problem`, and `end`, the last one. An id says which state somebody has, and how far it has heard the tasks:
`<state>` or `<state>,<task>:<seq>,…`. Who comes back with the id of the present state is told nothing twice; with any
other, it is told the whole state, and chunks go on where they were.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from urllib.parse import quote, unquote

from starlette.responses import Response

from queue_backends import Chunk, QueueError
from queue_backends.messages import encode_json
from worker.gateway.errors import problem_of
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.gateway.run_picture import Parts, RunPicture
from worker.gateway.sse import last_event_id, sse_response
from worker.gateway.sse_event import SseEvent
from worker.teams.errors import TeamError
from worker.teams.run_header import RunHeader

_MOST_ID_CHARS = 4096
_MOST_POSITIONS = 30
"""Tasks in an id; of more, the oldest are left out and would be told from the beginning."""
_MOST_TAILS = 64
_MOST_WAITING = 256
_LAST_CHUNKS_S = 5.0
"""So long the stream of a run that has ended waits for the last chunks of its tasks."""


async def stream_run(call: Call, header: RunHeader) -> Response:
    """The response; 204 if the client has had everything. Raises `Problem` 400 for an id that is none of ours."""
    digest, positions = _read_id(last_event_id(call.request))
    gateway = call.gateway
    if digest:
        found = await gateway.runs.read(header.id)
        now = RunPicture(header, found.plan.find(header.team), found.state)
        if found.state.phase.is_final and now.digest == digest:
            return Response(status_code=204)
    feed = _RunFeed(call, header, digest, positions)
    return sse_response(feed.events(), heartbeat_s=gateway.settings.gateway.heartbeat_s)


class _RunFeed:
    """What one watcher is told."""

    def __init__(self, call: Call, header: RunHeader, digest: str, positions: dict[str, int]) -> None:
        self._call = call
        self._header = header
        self._digest = digest
        self._positions = positions
        self._seen: Mapping[str, Parts] = {}
        self._news: asyncio.Queue[RunPicture | tuple[str, Chunk] | Exception | None] = asyncio.Queue(_MOST_WAITING)
        self._tails: dict[str, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._old: frozenset[str] | None = None
        """The steps that had ended before anybody watched."""

    async def events(self) -> AsyncIterator[SseEvent]:
        """All of it."""
        self._watch = asyncio.create_task(self._follow(), name=f"watcher of run {self._header.id}")
        try:
            while (news := await self._news.get()) is not None or self._goes_on():
                if news is None:
                    continue
                if isinstance(news, Exception):
                    yield _problem_event(news)
                    return
                if isinstance(news, RunPicture):
                    for event in self._state_events(news):
                        yield event
                    self._tail(news)
                else:
                    yield self._chunk_event(*news)
            yield SseEvent(encode_json({"id": self._header.id}), event="end", id=self._id())
        finally:
            await self._stop()

    # The state

    async def _follow(self) -> None:
        try:
            async with aclosing(self._call.gateway.run_hub.follow(self._header)) as pictures:
                async for picture in pictures:
                    await self._news.put(picture)
            if self._call.gateway.run_hub.is_closed:
                return
            await self._news.put(None)
        except (QueueError, TeamError) as error:
            await self._news.put(error)

    def _state_events(self, picture: RunPicture) -> list[SseEvent]:
        if not self._seen and picture.digest == self._digest:
            self._seen = picture.parts
            return []
        self._digest = picture.digest
        told = list(picture.news(self._seen))
        self._seen = picture.parts
        last = len(told) - 1
        return [
            SseEvent(raw, event=kind, id=self._id() if index == last else "") for index, (kind, raw) in enumerate(told)
        ]

    # Chunks

    def _tail(self, picture: RunPicture) -> None:
        """Begin to follow the tasks of steps that run, or have run since somebody watches, and those that were followed
        before the client came back."""
        query = self._call.query
        if not query.chunks:
            return
        if self._old is None:
            self._old = frozenset(step.name for step in picture.state.steps if step.phase.is_final)
        for step in picture.state.steps:
            is_wanted = query.step in ("", step.name) and step.task_id and step.task_id not in self._tails
            goes_on = step.name not in self._old or step.task_id in self._positions
            if is_wanted and goes_on and self._live < _MOST_TAILS:
                self._tails[step.task_id] = asyncio.create_task(
                    self._follow_task(step.name, step.task_id), name=f"chunks of {step.task_id}"
                )

    @property
    def _live(self) -> int:
        return sum(not task.done() for task in self._tails.values())

    async def _follow_task(self, step: str, task_id: str) -> None:
        hub = self._call.gateway.hub
        # A task in the queue of another process has no chunks here, and one that ended long ago none any more.
        with contextlib.suppress(QueueError):
            async with aclosing(hub.follow(task_id, after_seq=self._positions.get(task_id, -1))) as chunks:
                async for chunk in chunks:
                    await self._news.put((step, chunk))

    def _goes_on(self) -> bool:
        """The run has ended; whether chunks of its tasks are still to come, for which is waited a little."""
        if self._closing is None and self._live:
            self._closing = asyncio.create_task(self._last_chunks(), name=f"last chunks of run {self._header.id}")
            return True
        return False

    async def _last_chunks(self) -> None:
        await asyncio.wait(self._tails.values(), timeout=_LAST_CHUNKS_S)
        await self._news.put(None)

    def _chunk_event(self, step: str, chunk: Chunk) -> SseEvent:
        self._positions.pop(chunk.task_id, None)
        self._positions[chunk.task_id] = chunk.seq
        while len(self._positions) > _MOST_POSITIONS:
            del self._positions[next(iter(self._positions))]
        return SseEvent(encode_json({"step": step, "chunk": chunk}), event="chunk", id=self._id())

    def _id(self) -> str:
        return ",".join([self._digest, *(f"{quote(task, safe='')}:{seq}" for task, seq in self._positions.items())])

    async def _stop(self) -> None:
        tasks = [task for task in (self._watch, self._closing, *self._tails.values()) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _read_id(text: str) -> tuple[str, dict[str, int]]:
    """Digest and positions. Raises `Problem` 400."""
    if not text:
        return "", {}
    digest, *parts = text[:_MOST_ID_CHARS].split(",")
    positions: dict[str, int] = {}
    for part in parts:
        task, _, seq = part.rpartition(":")
        if not task or not (seq.isascii() and seq.isdigit() and len(seq) < 16):
            raise Problem(400, f"Last-Event-ID is {text[:100]!r}: it must be the id of an event of this stream")
        positions[unquote(task)] = int(seq)
    if len(text) > _MOST_ID_CHARS or not (digest.isascii() and digest.isalnum()):
        raise Problem(400, f"Last-Event-ID is {text[:100]!r}: it must be the id of an event of this stream")
    return digest, positions


def _problem_event(error: Exception) -> SseEvent:
    problem = problem_of(error)
    detail = problem.detail if problem is not None else "the stream has ended"
    return SseEvent(encode_json({"detail": detail}), event="problem")
