"""What a queue knows of one task: who owns it, or how it ended. Every write to a task is decided on this record."""

from __future__ import annotations

import enum

import msgspec
from msgspec import Struct

from queue_backends.errors import QueueError
from queue_backends.messages import TaskResult
from queue_backends.nats.ledger import Stored


class Stage(enum.StrEnum):
    """Where a task is that a worker has had, or that has ended. A new one has no record."""

    RUNNING = "running"
    WAITING = "waiting"
    ENDED = "ended"


class TaskRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one task."""

    stage: Stage
    run: int = 0
    """How often it was given back or brought back; its entry in a lane says the same number, or it is an old one."""
    entry: int = 0
    """The revision of the lane's entry that was delivered."""
    token: str = ""
    """Of the delivery that wrote this record."""
    worker: str = ""
    crashes: int = 0
    """Deliveries of this run that ended without an answer."""
    cancel: bool = False
    """Somebody has asked for its end."""
    result: TaskResult | None = None
    letter: str = ""
    """The dead letter that it left."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(TaskRecord).decode


def encode_record(record: TaskRecord) -> bytes:
    """As it is kept."""
    return _encode(record)


def decode_record(stored: Stored) -> TaskRecord:
    """Read a record. Raises `QueueError` for what is none."""
    try:
        return _decode(stored.data)
    except msgspec.DecodeError as error:
        raise QueueError(f"the record {stored.subject!r} cannot be read: {error}: delete it") from error
