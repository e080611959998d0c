"""What is left after a run, as plain data, so that a test can make up whatever it likes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.faults.diaries import Call, Effect, Injected
from tests.faults.submissions import Submission, View
from tests.faults.worker_slot import Death

LOG_ALARMS = re.compile(
    r"Traceback|unhandled|unforeseen|Task exception was never retrieved|was never awaited|could not be handed back"
    r"|unexpected \w+:|refused a result|cannot be published|Fatal Python error"
)
"""What never belongs into a worker's log, whatever happens to it."""


class Letter(Struct, frozen=True):
    """A dead letter."""

    task_id: str
    error: str


class Told(Struct, frozen=True, kw_only=True):
    """What an engine tells its users in the end, through the interfaces that every engine has."""

    results: Mapping[str, dict[str, Any]] = {}
    """Task id -> `result`, `error`, `input_tokens`, `output_tokens`."""
    letters: Sequence[Letter] = ()
    streams: Mapping[str, Sequence[dict[str, Any]]] = {}
    """Task id -> its chunks."""
    ledger: Mapping[str, dict[str, Any]] = {}
    """Record id -> usage record."""
    counters: Mapping[str, Mapping[str, int]] = {}
    """Name of a counter set -> its fields."""
    left_over: Mapping[str, int] = {}
    """What should be empty in the end -> how much is in it."""


class Evidence(Struct, kw_only=True):
    """All that the checks look at."""

    queue: str
    lease_s: float
    told: Told = Told()
    submissions: Sequence[Submission] = ()
    lists: Mapping[str, Sequence[str]] = {}
    """Name of an ark list -> its items, as far as they have not expired."""
    lifetimes: Mapping[str, float | None] = {}
    """Key -> seconds until it expires; None: never."""
    structure: frozenset[str] = frozenset()
    """What follows the queue's name in the names of keys that may live for ever."""
    left_over: Mapping[str, int] = {}
    """As in `Told`, from the engine's storage."""
    takes_back: frozenset[str] = frozenset()
    """Rules that a failover may break for tasks that were under way, by the nature of the engine."""
    told_otherwise: Sequence[str] = ()
    """Where an engine's storage and its `Backend` contradict each other."""
    calls: Sequence[Call] = ()
    effects: Sequence[Effect] = ()
    faults: Sequence[Injected] = ()
    views: Mapping[str, View] = {}
    announced: Mapping[str, int] = {}
    deaths: Sequence[Death] = ()
    alarms: Sequence[str] = ()
    """Lines of workers' logs that should not be there."""


def read_alarms(folder: Path) -> list[str]:
    """Log lines of any worker that should not be there."""
    return [
        f"{path.name}: {line[:600]}"
        for path in sorted(folder.glob("w*.log"))
        for line in path.read_text(errors="replace").splitlines()
        if LOG_ALARMS.search(line)
    ]
