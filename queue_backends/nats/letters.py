"""Dead letters: kept, shown, brought back, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from queue_backends.errors import InvalidTask
from queue_backends.messages import DeadLetter, Priority
from queue_backends.nats.entries import Entry, as_brought_back, decode_fields
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.records import Stage, TaskRecord, decode_record, encode_record
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.writes import Write

KEPT_OF_REFUSED = 1000
"""Of a prompt that is too long, the dead letter has this many characters."""


class Letter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands in front of a letter's entry: one line of JSON."""

    task_id: str
    error: str
    prompt: str = ""
    attempt: int = 0
    next_attempt: int = 0
    dead_at: float = 0.0
    is_whole: bool = True
    """Whether the entry is all there; one that was too long is cut."""
    lane: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Letter).decode


def encode_letter(letter: Letter, entry: bytes) -> bytes:
    """As it is kept."""
    return _encode(letter) + b"\n" + entry


def split_letter(stored: Stored) -> tuple[Letter, bytes]:
    """The letter and its entry."""
    line, _, entry = stored.data.partition(b"\n")
    try:
        return _decode(line), entry
    except msgspec.DecodeError as error:
        return Letter(task_id="", error=f"this letter cannot be read: {error}", is_whole=False), entry


class Letters:
    """The dead letters of a queue."""

    def __init__(self, ledger: Ledger, unfinished_ttl_s: float) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._unfinished_ttl_s = unfinished_ttl_s

    async def newest(self, limit: int) -> list[DeadLetter]:
        """Letters, newest first."""
        return [_shown(stored) for stored in await self._ledger.newest(self._subjects.letters, limit)]

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """Delete letters; returns how many there were."""
        subjects = {self._subjects.letter(letter_id) for letter_id in letter_ids}
        found = await self._ledger.last_of(list(subjects)) if subjects else {}
        return sum(await asyncio.gather(*(self._ledger.purge(subject) for subject in found)))

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """Bring letters back; returns the ids of the tasks that this call brought back."""
        brought_back = []
        for letter_id in letter_ids:
            stored = await self._ledger.last(self._subjects.letter(letter_id), fresh=True)
            if stored is not None and (task_id := await self._bring_back(letter_id, stored)):
                brought_back.append(task_id)
        return brought_back

    async def _bring_back(self, letter_id: str, stored: Stored) -> str:
        """The task's id, or nothing if somebody else was faster. What a crash in the middle leaves is a letter that the
        next attempt deletes."""
        letter, entry = split_letter(stored)
        if not letter.is_whole:
            return ""
        task_id = letter.task_id
        before = await self._ledger.last(self._subjects.task(task_id), fresh=True)
        record = decode_record(before) if before else None
        if record is not None and record.letter != letter_id:
            await self._ledger.purge(self._subjects.letter(letter_id))
            return ""
        # Its old chunks go first, and no new ones with them: those come after the record that stands now.
        await self._ledger.purge(self._subjects.chunks(task_id), before=(before or stored).revision + 1)
        run = record.run + 1 if record else 1
        notes = Entry(run=run, next_attempt=letter.next_attempt)
        waiting = TaskRecord(stage=Stage.WAITING, run=run)
        lane = self._subjects.lane(letter.lane or _priority_of(entry), task_id)
        try:
            await self._ledger.write_all(
                [
                    Write(lane, as_brought_back(entry), headers=notes.headers()),
                    Write(
                        self._subjects.task(task_id),
                        encode_record(waiting),
                        expected=before.revision if before else 0,
                        ttl_s=self._unfinished_ttl_s,
                    ),
                ]
            )
        except Conflict:
            return ""
        await self._ledger.purge(self._subjects.letter(letter_id))
        return task_id


def _priority_of(entry: bytes) -> str:
    try:
        return Priority(decode_fields(entry).get("priority") or Priority.NORMAL).value
    except (InvalidTask, ValueError):
        return Priority.NORMAL.value


def _shown(stored: Stored) -> DeadLetter:
    letter, entry = split_letter(stored)
    try:
        fields = decode_fields(entry)
    except InvalidTask:
        fields = {}
    return DeadLetter(
        id=stored.name,
        task_id=letter.task_id,
        error=letter.error,
        prompt=letter.prompt,
        attempt=letter.attempt,
        fields=fields,
        dead_at=letter.dead_at or stored.at,
    )
