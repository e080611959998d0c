"""What an engine may lack, said by the engine itself, so that nobody finds out in production."""

from __future__ import annotations

import enum


class Capability(enum.StrEnum):
    """A promise of the contract that the nature of an engine may rule out. An engine has all that it does not name in
    `Backend.gaps`; the conformance suite holds it to that, in both directions."""

    DURABLE = "durable"
    """What was accepted outlives the engine's own restart."""
    SHARED = "shared"
    """Processes on several machines can use one queue."""
    ATOMIC_COMMIT = "atomic commit"
    """How a run ended, its chunks and its records, are written in one step."""
    FENCED_CHUNKS = "fenced chunks"
    """A worker that lost its lease publishes nothing more, not even what was under way."""
    ORDER = "order"
    """Of tasks that are equally urgent, the one that was submitted first is pulled first."""
    PRIORITIES = "priorities"
    """Urgent tasks are pulled before others."""
    DELAYED = "delayed tasks"
    """A task, or a retry, may wait for a moment that its submitter or the worker chooses."""
    WAKE = "wake"
    """A delayed task can be made ready before its time."""
    IDEMPOTENCY = "idempotency keys"
    """A task that is submitted twice under one key exists once."""
    CANCEL_WAITING = "cancel of waiting tasks"
    """A task that waits ends as soon as its cancel is asked for."""
    DEAD_LETTERS = "dead letters"
    """A task that failed for good is kept, can be looked at and brought back."""
    PAUSE = "pause"
    """A queue can be held without stopping its workers."""
    LISTING = "listing"
    """Waiting, running and ended tasks can be listed, and one of them looked up."""
    MAX_DEPTH = "depth limit"
    """A full queue refuses what it cannot hold."""
    LEASE_THREAD = "lease thread"
    """Leases are renewed from a thread while a task holds up the event loop."""
