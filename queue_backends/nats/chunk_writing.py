"""Chunks as messages: numbered by their task's owner, written under its fence, the oldest trimmed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from queue_backends.errors import ChunkTooLarge
from queue_backends.interfaces import BackendOptions
from queue_backends.messages import MAX_CHUNK_CHARS, Chunk, ChunkDraft, check_chunk_size
from queue_backends.nats.holding import Held, Replay
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.writes import Write

NEXT_SEQ, SIZE = "Shoal-Next", "Shoal-Bytes"
MESSAGE_BYTES = 512 * 1024
"""Chunks that are written together share messages of about this size; a longer one has its own."""
HEADROOM_BYTES = 4096
"""Left for headers."""

_encode = msgspec.json.Encoder().encode
_decode_all = msgspec.json.Decoder(list[Chunk]).decode


def chunks_of(data: bytes) -> list[Chunk]:
    """The chunks of a message."""
    return _decode_all(data)


def next_seq_after(stored: Stored | None) -> int:
    """The number after those of a message."""
    if stored is None:
        return 0
    found = stored.headers.get(NEXT_SEQ)
    return int(found) if found else chunks_of(stored.data)[-1].seq + 1


class ChunkWriter:
    """Turns drafts into messages, and keeps count."""

    def __init__(self, ledger: Ledger, options: BackendOptions) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._options = options

    def check(self, task_id: str, drafts: Sequence[ChunkDraft]) -> None:
        """Raise `ChunkTooLarge` if one of them is."""
        for draft in drafts:
            if draft.metadata or len(draft.content) > HEADROOM_BYTES:
                self._encode_one(task_id, 0, draft)

    def _encode_one(self, task_id: str, seq: int, draft: ChunkDraft) -> bytes:
        json = _encode(_numbered(task_id, seq, draft))
        check_chunk_size(task_id, seq, len(json) if len(json) <= MAX_CHUNK_CHARS else len(json.decode()))
        most = self._ledger.connection.max_payload - HEADROOM_BYTES
        if len(json) > most:
            raise ChunkTooLarge(
                f"chunk {seq} of task {task_id} has {len(json)} bytes, the NATS server takes {most}: split its text, "
                "or raise the server's max_payload"
            )
        return json

    async def prepare(self, held: Held, drafts: Sequence[ChunkDraft]) -> None:
        """Make sure that the number of the next chunk is known."""
        if held.next_seq is not None:
            return
        last = await self._ledger.last_matching(self._subjects.chunks(held.task_id))
        next_seq = next_seq_after(last)
        if held.unconfirmed is not None:
            first_seq, said = held.unconfirmed
            if next_seq > first_seq and tuple(drafts[: len(said)]) == said:
                next_seq = first_seq  # they had arrived: written again, they take their own place
        held.next_seq, held.unconfirmed = next_seq, None
        if held.replay is None and last is not None and next_seq:
            held.replay = Replay(self._options.chunk_limit, self._options.chunk_bytes)
            await self._measure(held, held.replay, last)

    async def _measure(self, held: Held, replay: Replay, last: Stored) -> None:
        """What former owners have left. If it is far below the caps, one figure tells all."""
        size_bytes, chunks = int(last.headers.get(SIZE, "0")), next_seq_after(last)
        if size_bytes * 2 <= self._options.chunk_bytes and chunks * 2 <= self._options.chunk_limit:
            replay.wrote(last.revision, chunks, size_bytes)
            return
        async for stored in self._ledger.every(self._subjects.chunks(held.task_id)):
            written = next_seq_after(stored) - int(stored.name)
            replay.wrote(stored.revision, written, len(stored.data))

    def writes(self, held: Held, drafts: Sequence[ChunkDraft]) -> list[Write]:
        """The messages of some chunks, to be written in this order. Raises `ChunkTooLarge`."""
        first_seq = held.next_seq or 0
        size_bytes = held.replay.size_bytes if held.replay else 0
        return self.messages(held.task_id, first_seq, drafts, size_bytes, fence=held.revision)

    def messages(
        self,
        task_id: str,
        first_seq: int,
        drafts: Sequence[ChunkDraft],
        size_bytes: int = 0,
        *,
        fence: int | None = None,
    ) -> list[Write]:
        """Messages of chunks numbered from `first_seq`; each is written only if the task's record has the revision
        `fence`, or without one, if nobody else has used its number."""
        writes: list[Write] = []
        parts: list[bytes] = []
        start = first_seq
        is_final = bool(drafts) and drafts[-1].is_final
        ttl_s = self._options.chunk_retention_s if is_final else self._options.unfinished_ttl_s
        for seq, draft in enumerate(drafts, first_seq):
            json = self._encode_one(task_id, seq, draft)
            if parts and sum(map(len, parts)) + len(json) > MESSAGE_BYTES:
                writes.append(self._message(task_id, start, parts, fence, ttl_s))
                parts, start = [], seq
            parts.append(json)
        if parts:
            writes.append(self._message(task_id, start, parts, fence, ttl_s))
        for write in writes:
            size_bytes += len(write.data)
            headers = write.headers or {}
            headers[SIZE] = str(size_bytes)
        if is_final and first_seq:
            writes.append(Write(self._subjects.reap(task_id), ttl_s=self._options.unfinished_ttl_s))
        return writes

    def _message(self, task_id: str, first_seq: int, parts: Sequence[bytes], fence: int | None, ttl_s: float) -> Write:
        return Write(
            self._subjects.chunk(task_id, first_seq),
            b"[" + b",".join(parts) + b"]",
            expected=fence or 0,
            expected_of=self._subjects.task(task_id) if fence is not None else "",
            ttl_s=ttl_s,
            headers={NEXT_SEQ: str(first_seq + len(parts))},
        )

    def wrote(self, held: Held, drafts: Sequence[ChunkDraft], writes: Sequence[Write], revisions: Sequence[int]) -> int:
        """Count what was written; returns the revision before which chunks have to go, 0 if none has to."""
        if held.replay is None:
            held.replay = Replay(self._options.chunk_limit, self._options.chunk_bytes)
        for write, revision in zip(writes, revisions, strict=True):
            if write.headers and NEXT_SEQ in write.headers:
                first_seq = int(write.subject.rpartition(".")[2])
                held.replay.wrote(revision, int(write.headers[NEXT_SEQ]) - first_seq, len(write.data))
        held.next_seq = (held.next_seq or 0) + len(drafts)
        held.unconfirmed = None
        return held.replay.trim_before()

    def doubt(self, held: Held, drafts: Sequence[ChunkDraft]) -> None:
        """Whether these were written is not known."""
        if drafts and held.next_seq is not None:
            held.unconfirmed = (held.next_seq, tuple(drafts))
            held.next_seq = None

    async def trim(self, task_id: str, before: int) -> None:
        """Let the oldest go."""
        if before:
            await self._ledger.purge(self._subjects.chunks(task_id), before=before)


def _numbered(task_id: str, seq: int, draft: ChunkDraft) -> Chunk:
    return Chunk(
        task_id=task_id,
        seq=seq,
        type=draft.type,
        content=draft.content,
        turn=draft.turn,
        attempt=draft.attempt,
        metadata=draft.metadata,
        is_final=draft.is_final,
    )
