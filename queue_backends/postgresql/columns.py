"""What one write says, column by column, as its statement takes it."""

from __future__ import annotations

import enum
from typing import NamedTuple
from uuid import UUID

from queue_backends.interfaces import LogRecord
from queue_backends.postgresql.arrays import Array, Bools, Bytes, Floats, Ints, Uuids
from queue_backends.postgresql.names import key_of, label_of
from queue_backends.postgresql.numbering import Piece

_LARGEST = 2**63


class Kind(enum.IntEnum):
    """What a line does to its task."""

    RUNNING = 0
    ENDED = 1
    DEAD = 2
    BACK = 3
    UNFENCED = 4
    """Chunks of another engine's task."""


class Line(NamedTuple):
    """One outcome, as a row."""

    kind: Kind
    id: UUID | None
    token: UUID | None
    task: bytes
    piece: Piece
    result: bytes | None = None
    state: int | None = None
    error: bytes | None = None
    letter: bytes | None = None
    """What the dead letter keeps instead of an entry that is too large."""
    attempt: int = 0
    next_attempt: int = 0
    lane: int = 0
    delay_s: float = 0.0
    spent: bytes | None = None


class Columns:
    """Lines, with their chunks and records."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._records: list[tuple[int, LogRecord]] = []

    def add_line(self, line: Line) -> None:
        """Add one outcome; the first one is owner 1 of its records."""
        self._lines.append(line)

    def add_record(self, record: LogRecord, *, owner: int) -> None:
        """Add a record that is written if its owner is; 0 is always."""
        self._records.append((owner, record))

    def arrays(self) -> dict[str, Array]:
        """All parameters of the statement that are arrays. Raises `OverflowError`, or `ValueError` for what is no
        text."""
        return self._outcomes() | self._chunks() | self._written_records() | self._amounts()

    def _outcomes(self) -> dict[str, Array]:
        lines = self._lines
        pieces = [line.piece for line in lines]
        return {
            "ids": Uuids([line.id for line in lines]),
            "tokens": Uuids([line.token for line in lines]),
            "kinds": Ints([line.kind for line in lines]),
            "tasks": Bytes([line.task for line in lines]),
            "results": Bytes([line.result for line in lines]),
            "states": Ints([line.state for line in lines]),
            "errors": Bytes([line.error for line in lines]),
            "letters": Bytes([line.letter for line in lines]),
            "attempts": Ints([line.attempt for line in lines]),
            "next_attempts": Ints([line.next_attempt for line in lines]),
            "lanes": Ints([line.lane for line in lines]),
            "delays": Floats([line.delay_s for line in lines]),
            "spents": Bytes([line.spent for line in lines]),
            "first_seqs": Ints([piece.first_seq for piece in pieces]),
            "next_seqs": Ints([piece.next_seq for piece in pieces]),
            "end_bytes": Ints([piece.end_byte for piece in pieces]),
            "finals": Bools([piece.is_final for piece in pieces]),
            "oldest_seqs": Ints([piece.oldest_seq for piece in pieces]),
            "cut_seqs": Ints([piece.cut_seq for piece in pieces]),
            "cut_bytes": Ints([piece.cut_byte for piece in pieces]),
        }

    def _chunks(self) -> dict[str, Array]:
        owners: list[int] = []
        seqs: list[int] = []
        ends: list[int] = []
        data: list[bytes] = []
        for owner, line in enumerate(self._lines, start=1):
            piece = line.piece
            end = piece.end_byte - sum(map(len, piece.jsons))
            for seq, json in enumerate(piece.jsons, piece.first_seq):
                end += len(json)
                owners.append(owner)
                seqs.append(seq)
                ends.append(end)
                data.append(json)
        return {
            "chunk_owners": Ints(owners),
            "chunk_seqs": Ints(seqs),
            "chunk_ends": Ints(ends),
            "chunk_data": Bytes(data),
        }

    def _written_records(self) -> dict[str, Array]:
        records = [record for _, record in self._records]
        return {
            "record_owners": Ints([owner for owner, _ in self._records]),
            "record_logs": Bytes([key_of(record.log) for record in records]),
            "record_ids": Bytes([key_of(record.id) for record in records]),
            "record_labels": Bytes([label_of(record.id) for record in records]),
            "record_values": Bytes([record.value for record in records]),
            "record_keeps": Floats([record.keep_s for record in records]),
        }

    def _amounts(self) -> dict[str, Array]:
        rows = [
            (position, name, field, amount)
            for position, (_, record) in enumerate(self._records, start=1)
            for name, amounts in record.counters.items()
            for field, amount in amounts.items()
        ]
        for _, name, field, amount in rows:
            if not -_LARGEST <= amount < _LARGEST:
                raise OverflowError(f"{amount} is too much for counter {field!r} of {name!r}")
        return {
            "amount_records": Ints([position for position, _, _, _ in rows]),
            "amount_names": Bytes([key_of(name) for _, name, _, _ in rows]),
            "amount_fields": Bytes([key_of(field) for _, _, field, _ in rows]),
            "amount_labels": Bytes([label_of(field) for _, _, field, _ in rows]),
            "amounts": Ints([amount for _, _, _, amount in rows]),
        }
