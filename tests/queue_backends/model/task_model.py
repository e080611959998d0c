"""One task, and one dead letter, as the model has them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from queue_backends.interfaces import (
    Delivery,
    TaskState,
)
from queue_backends.messages import (
    RUN_CANCELLED,
    ChunkDraft,
    ChunkType,
    Priority,
    Task,
    TaskResult,
)

LANES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
CANCELLED_CHUNK = ChunkDraft(type=ChunkType.ERROR, content=RUN_CANCELLED, is_final=True)

Key = tuple[str, str]
"""One delivery: its entry and its token."""


def key_of(delivery: Delivery) -> Key:
    """What no other delivery has."""
    return delivery.entry_id, delivery.token


class Place(enum.Enum):
    """Where a task is."""

    READY = enum.auto()
    DELAYED = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


class Fence(enum.Enum):
    """What a write under a delivery must meet."""

    HELD = enum.auto()
    """It is carried out."""
    OPEN = enum.auto()
    """The lease has run out and nobody took over: carried out or refused, as the backend likes."""
    LOST = enum.auto()
    """It is refused."""


@dataclass
class TaskModel:
    """One task."""

    id: str
    task: Task
    place: Place
    lane: Priority
    order: int | None
    """Its place among the tasks of its lane; None: anywhere in it."""
    is_late: bool = False
    """What its place says has run out: a running one's lease, a delayed one's delay."""
    failures: int = 0
    crashes: int = 0
    next_attempt: int = 0
    was_delivered: bool = False
    owner: Key | None = None
    cancel_asked: bool = False
    result: TaskResult | None = None
    chunks: list[ChunkDraft] = field(default_factory=list)

    @property
    def is_takeable(self) -> bool:
        """Whether a pull may deliver it."""
        return self.place is Place.READY or (self.is_late and self.place in {Place.DELAYED, Place.RUNNING})

    @property
    def may_come_anywhere(self) -> bool:
        """Whether its place among the delivered ones is the backend's choice."""
        return self.place is Place.RUNNING

    @property
    def states(self) -> set[TaskState]:
        """What its status may say."""
        if self.place is Place.ENDED:
            return {self._end_state()}
        state = {
            Place.READY: TaskState.READY,
            Place.DELAYED: TaskState.DELAYED,
            Place.RUNNING: TaskState.RUNNING,
        }[self.place]
        return {state, TaskState.READY} if self.is_late else {state}

    def _end_state(self) -> TaskState:
        assert self.result is not None
        if self.result.error == RUN_CANCELLED:
            return TaskState.CANCELLED
        return TaskState.FAILED if self.result.error else TaskState.SUCCEEDED


@dataclass
class LetterModel:
    """A dead letter."""

    task_id: str
    error: str
    prompt: str
    attempt: int
    next_attempt: int
