"""The last words of tasks that are running, several at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping

from queue_backends import Backend, Chunk, ChunkType, QueueError, ReplayTrimmed
from worker.cli.turns import Turns, Verdict
from worker.cli.views import tool_line

MOST_CHARS = 4000
_KEPT_CHARS = 2000
"""After a text has grown beyond `MOST_CHARS`, so much of it stays: it is cut seldom, so that its lines stand still."""
_TOOL_LINE_CHARS = 200


class Tail:
    """What a task has said last: of its present turn, and nothing that a restarted turn has superseded."""

    def __init__(self) -> None:
        self.text = ""
        self.is_thinking = False
        self._turns = Turns()
        self._turn = -1

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk."""
        verdict = self._turns.judge(chunk)
        if verdict is Verdict.SKIP or chunk.is_final:
            return
        if verdict is Verdict.RESTART or chunk.turn != self._turn:
            self.text, self._turn = "", chunk.turn
        if chunk.type in (ChunkType.TOOL_CALL, ChunkType.TOOL_RESULT):
            self._append(f"\n{tool_line(chunk, _TOOL_LINE_CHARS)}\n", is_thinking=False)
        elif chunk.content:
            self._append(chunk.content, is_thinking=chunk.type is ChunkType.THINKING)

    def _append(self, text: str, *, is_thinking: bool) -> None:
        if is_thinking != self.is_thinking and self.text:
            self.text += "\n"
        self.is_thinking = is_thinking
        self.text += text
        if len(self.text) > MOST_CHARS:
            self.text = self.text[-_KEPT_CHARS:].partition(" ")[2] or self.text[-_KEPT_CHARS:]


class StreamTails:
    """Follows the chunks of the tasks that it is told to, and keeps the last words of each."""

    def __init__(self, backend: Backend, changed: Callable[[], None]) -> None:
        """`changed` is called whenever a task has said something."""
        self._chunks = backend.chunks
        self._changed = changed
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._tails: dict[str, Tail] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def tails(self) -> Mapping[str, Tail]:
        """The last words of each task that is followed."""
        return self._tails

    def follow(self, task_ids: Collection[str]) -> None:
        """From now on these, and no others."""
        for task_id in [each for each in self._followers if each not in task_ids]:
            self._leave(task_id)
        for task_id in task_ids:
            if task_id and task_id not in self._followers:
                self._tails[task_id] = Tail()
                self._followers[task_id] = asyncio.create_task(self._follow(task_id), name=f"tail of {task_id}")

    async def close(self) -> None:
        """Follow none any more."""
        self.follow(())
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _leave(self, task_id: str) -> None:
        follower = self._followers.pop(task_id)
        follower.cancel()
        self._leaving.add(follower)
        follower.add_done_callback(self._leaving.discard)
        del self._tails[task_id]

    async def _follow(self, task_id: str) -> None:
        # The run itself tells how it goes; its last words are decoration.
        with contextlib.suppress(QueueError):
            try:
                await self._listen(task_id, -1)
            except ReplayTrimmed as trimmed:
                await self._listen(task_id, trimmed.first_seq - 1)

    async def _listen(self, task_id: str, after_seq: int) -> None:
        tail = self._tails[task_id]
        async for chunk in self._chunks.subscribe(task_id, after_seq=after_seq):
            tail.add(chunk)
            self._changed()
