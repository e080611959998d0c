"""What each worker tells the others about itself, through the queue's state store.

| key                     | value                        | written                                   | lives          |
|-------------------------|------------------------------|-------------------------------------------|----------------|
| `workers/<id>`          | `Presence`, JSON             | by the worker, every few seconds          | three beats    |
| `workers-control/<id>`  | `DrainRequest`, JSON         | by `shoal drain`; deleted by the worker   | an hour        |

`<id>` is the worker's name in the queue: what `TaskStatus.worker` shows.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from queue_backends import StateStore, TaskQueue
from queue_backends.messages import encode_json
from worker.errors import WorkerNotFound

BEAT_S = 5.0
TTL_S = 3 * BEAT_S
MOST_TASKS = 100
"""So many running tasks are named at most."""
MOST_CIRCUITS = 100
REQUEST_TTL_S = 3600.0

KEY_PREFIX = "workers/"
_CONTROL = "workers-control/"


class RunningTask(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task in the hands of a worker."""

    id: str
    agent: str = ""
    started_at: float
    """Unix seconds, by the worker's clock."""
    tenant: str = ""
    tokens: int = 0
    """Input and output of the model calls that have ended, over all its runs."""
    cost_usd: float | None = None
    """Of the same calls; None: not known."""


class LastMinute(Struct, frozen=True, kw_only=True):
    """What a worker did in the last minute, or since its start if that is shorter ago."""

    seconds: float = 0.0
    tasks: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    is_unpriced: bool = False
    """Calls were made, and of none the price is known: `cost_usd` says nothing."""

    @property
    def known_cost_usd(self) -> float | None:
        """What to show as its cost."""
        return None if self.is_unpriced else self.cost_usd


class CircuitState(Struct, frozen=True, kw_only=True):
    """Whether a worker calls one target of its routes: `closed` means that it does."""

    provider: str
    model: str
    circuit: str


class Presence(Struct, frozen=True, kw_only=True):
    """One worker at one moment. Figures count from its start; moments are Unix seconds by its clock."""

    id: str
    host: str
    pid: int
    version: str = ""
    started_at: float = 0.0
    beat_at: float = 0.0
    draining: bool = False
    slots: int = 0
    """How many tasks it runs at once."""
    running: int = 0
    tasks: tuple[RunningTask, ...] = ()
    """The running ones, the oldest first, at most `MOST_TASKS`."""
    tasks_done: int = 0
    """Runs that ended, in success or not."""
    tasks_failed: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    is_unpriced: bool = False
    """As in `LastMinute`."""
    last_minute: LastMinute = LastMinute()
    rss_bytes: int = 0
    health_port: int = 0
    """0: it serves no health pages."""
    circuits: tuple[CircuitState, ...] = ()
    """Of all targets that its routes have named, at most `MOST_CIRCUITS`."""

    @property
    def known_cost_usd(self) -> float | None:
        """What to show as its cost."""
        return None if self.is_unpriced else self.cost_usd


class DrainRequest(Struct, frozen=True, kw_only=True):
    """Asks a worker to finish what it has and to leave."""

    at: float
    by: str = ""
    """Who asked: `user@host`."""


@runtime_checkable
class NamedQueue(Protocol):
    """A queue that knows under which name this process takes its tasks. Backends need not; then one is made up."""

    @property
    def consumer(self) -> str:
        """The name that `TaskStatus.worker` shows; unique among all processes."""
        ...


def worker_id(queue: TaskQueue) -> str:
    """This process' name among the workers."""
    if isinstance(queue, NamedQueue):
        return queue.consumer
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


class Workers:
    """The workers of a queue, as they tell of themselves. Every method may raise `BackendUnavailable`."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def all(self) -> list[Presence]:
        """Those that live, in order of host and age. One that was killed is among them for `TTL_S` more."""
        found = [decoded(value) async for _, value in self._state.scan(KEY_PREFIX)]
        return in_order([presence for presence in found if presence])

    async def is_there(self, worker_id: str) -> bool:
        """Whether the worker still tells of itself."""
        return await self._state.get(KEY_PREFIX + worker_id) is not None

    async def tell(self, presence: Presence) -> None:
        """Tell of oneself, for the next `TTL_S`."""
        await self._state.set(KEY_PREFIX + presence.id, encode_json(presence), ttl_s=TTL_S)

    async def forget(self, worker_id: str) -> None:
        """Take a worker off the list, and any request to it."""
        await self._state.delete(KEY_PREFIX + worker_id)
        await self._state.delete(_CONTROL + worker_id)

    async def request_drain(self, worker_id: str, *, by: str = "") -> None:
        """Ask a worker to leave; it sees that within about a second."""
        request = DrainRequest(at=time.time(), by=by)
        await self._state.set(_CONTROL + worker_id, encode_json(request), ttl_s=REQUEST_TTL_S)

    async def drain_requested(self, worker_id: str) -> DrainRequest | None:
        """The request to this worker, if there is one."""
        value = await self._state.get(_CONTROL + worker_id)
        if value is None:
            return None
        try:
            return _requests.decode(value)
        except msgspec.MsgspecError:
            return DrainRequest(at=time.time())  # a newer version's: that it asks is clear

    def changes(self) -> WorkerChanges:
        """The workers, kept up to date as they tell of themselves."""
        return WorkerChanges(self._state)


class WorkerChanges:
    """Follows the workers without asking for them again and again. Use `follow` as a task of its own."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._known: dict[str, tuple[Presence, float]] = {}

    @property
    def workers(self) -> list[Presence]:
        """Those that told of themselves within the last `TTL_S`."""
        oldest = time.monotonic() - TTL_S
        self._known = {name: known for name, known in self._known.items() if known[1] > oldest}
        return in_order([presence for presence, _ in self._known.values()])

    async def look(self) -> None:
        """Read all of them once."""
        async for _, value in self._state.scan(KEY_PREFIX):
            self._take(decoded(value))

    async def follow(self) -> None:
        """Take in what they tell. Endless; raises `BackendUnavailable` if the store cannot be listened to."""
        async for change in self._state.watch(KEY_PREFIX):
            if change.value is None:
                self._known.pop(change.key.removeprefix(KEY_PREFIX), None)
            else:
                self._take(decoded(change.value))

    def _take(self, presence: Presence | None) -> None:
        if presence is not None:
            self._known[presence.id] = (presence, time.monotonic())


def decoded(value: bytes) -> Presence | None:
    """What a worker told; None if it cannot be read, being of another version."""
    try:
        return _presences.decode(value)
    except msgspec.MsgspecError:
        return None


def in_order(workers: Sequence[Presence]) -> list[Presence]:
    """By host, then by age."""
    return sorted(workers, key=lambda worker: (worker.host, worker.started_at, worker.id))


def find_worker(workers: Sequence[Presence], name: str) -> Presence:
    """The worker that `name` means: its id, a prefix that only one id has, or `host:pid`.

    Raises `WorkerNotFound`, saying which ones there are.
    """
    for worker in workers:
        if name in (worker.id, f"{worker.host}:{worker.pid}"):
            return worker
    matching = [worker for worker in workers if name and worker.id.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise WorkerNotFound(f"{name!r} means several workers: {_names(matching)}")
    there_are = f"there are {_names(workers)}" if workers else "there are none"
    raise WorkerNotFound(f"no worker {name!r}: {there_are}")


def _names(workers: Sequence[Presence]) -> str:
    shown = ", ".join(worker.id for worker in workers[:20])
    return shown + (f" and {len(workers) - 20} more" if len(workers) > 20 else "")


_presences = msgspec.json.Decoder(Presence)
_requests = msgspec.json.Decoder(DrainRequest)
