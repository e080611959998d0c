"""How a part of a run writes to stream and journal: a step of an agent plugin, or a call beside the run's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_backends import ChunkType, LogRecord
from worker.streaming import ChunkWriter


class PartChunks(ChunkWriter):
    """The run's writer with a turn and an attempt of its own: several parts go on at the same time."""

    __slots__ = ("_run",)

    def __init__(self, run: ChunkWriter, turn: int) -> None:
        self._run = run
        self.delivery = run.delivery
        self.turn = turn
        self.attempt = run.delivery.next_attempt

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        await self._run(kind, content, metadata)

    def put_now(self, kind: ChunkType, text: str) -> bool:
        return self._run.put_now(kind, text)

    def note_kept(self, call_id: str, reference: str, chars: int) -> None:
        self._run.note_kept(call_id, reference, chars)

    def note(self, *records: LogRecord) -> None:
        self._run.note(*records)

    @property
    def has_news(self) -> bool:
        return self._run.has_news

    async def store(self) -> None:
        await self._run.store()
