"""Accepting tasks: those that come while a statement is under way go together in the next one."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from queue_backends.batching import batches, task_chars
from queue_backends.errors import BackendUnavailable, QueueFull
from queue_backends.gathering import Gatherer, by_tasks
from queue_backends.interfaces import BackendOptions
from queue_backends.messages import Task, check_run_at, check_task, now_rfc3339, task_to_entry
from queue_backends.postgresql.announcing import Announcer
from queue_backends.postgresql.arrays import Bytes, Floats, Ints, Texts, Uuids
from queue_backends.postgresql.channels import Channel, channel_name
from queue_backends.postgresql.connections import COMMAND_TIMEOUT_S, Connections, may_have_arrived
from queue_backends.postgresql.names import key_of, new_id
from queue_backends.postgresql.rows import encode_entry, lane_of
from queue_backends.postgresql.sessions import Connection, Executor, run
from queue_backends.postgresql.statements import statement

SUBMIT_LIMIT_S = 15.0
FIRST_DELAY_S = 0.05
UNKNOWN_OUTCOME = "whether the tasks were accepted is not known, so submit them again only with their idempotency_key"


class Accepted(NamedTuple):
    """A task on its way in, under the id that it is going to have."""

    id: UUID
    task: Task
    run_at: float | None
    key: bytes | None


class Submitter:
    """Adds tasks to one queue."""

    def __init__(self, connections: Connections, queue_id: int, announcer: Announcer, options: BackendOptions) -> None:
        self._connections = connections
        self._queue_id = queue_id
        self._announcer = announcer
        self._options = options
        self._gatherer = Gatherer(by_tasks(self._add), _chars)

    async def submit(self, task: Task, run_at: float | None) -> str:
        """Accept one task, together with others that are submitted at this time."""
        (entry,) = self.checked([task], run_at)
        return await self._gatherer.submit(entry)

    async def submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        """Accept several tasks, all checked before the first is added, and in one transaction where there is a limit
        for them all."""
        entries = self.checked(tasks, run_at)
        if self._options.max_depth and entries:
            return await self._add(entries)
        ids: list[str] = []
        for part in batches(entries, _chars):
            ids += await self._add(part)
        return ids

    def checked(self, tasks: Sequence[Task], run_at: float | None) -> list[Accepted]:
        """Tasks with ids of their own. Raises `InvalidTask`."""
        check_run_at(run_at)
        for task in tasks:
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        return [
            Accepted(new_id(), task, run_at, key_of(task.idempotency_key) if task.idempotency_key else None)
            for task in tasks
        ]

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await self._gatherer.close(SUBMIT_LIMIT_S)

    async def _add(self, entries: Sequence[Accepted]) -> list[str]:
        """One transaction, repeated while it is not known whether it was carried out: the ids stay the same, so that a
        task is added once."""
        deadline, delay_s, may_be_there = time.monotonic() + SUBMIT_LIMIT_S, FIRST_DELAY_S, False
        work = functools.partial(self._add_alone, entries=entries)
        while True:
            limit_s = min(COMMAND_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
            try:
                ids = await self._connections.work(work, timeout_s=limit_s)
            except BackendUnavailable as error:
                may_be_there = may_be_there or may_have_arrived(error)
                if not may_be_there:
                    raise
                if time.monotonic() + delay_s > deadline:
                    raise BackendUnavailable(f"{error}; {UNKNOWN_OUTCOME}") from error
            else:
                self._announcer.work()
                return ids
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, 1.0)

    async def _add_alone(self, connection: Connection, *, entries: Sequence[Accepted]) -> list[str]:
        if not self._options.max_depth:
            return await self.insert(connection, entries)
        async with connection.transaction():
            # Others that submit wait here, so that together they add no more than there is room for.
            await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCKS}, {self._queue_id})".encode())
            await self.check_room(connection, entries)
            return await self.insert(connection, entries)

    async def add_in(self, connection: Executor, entries: Sequence[Accepted]) -> list[str]:
        """Add them as part of somebody else's transaction, whose commit wakes workers. Raises `QueueFull`: how many
        others add at the same time is not known."""
        await self.check_room(connection, entries)
        ids = await self.insert(connection, entries)
        address = self._connections.address
        name = channel_name(address.schema, self._queue_id, Channel.WORK)
        said = {"channels": Texts([name]), "payloads": Texts([""])}
        await run(connection, statement("notify", address.schema), said)
        return ids

    async def check_room(self, connection: Executor, entries: Sequence[Accepted]) -> None:
        """Raise `QueueFull` if these are too many. A known key adds no task."""
        depth = self._options.max_depth
        if not depth:
            return
        keys = [entry.key for entry in entries if entry.key is not None]
        text = statement("known_keys", self._connections.address.schema)
        ((waiting, known),) = await run(connection, text, {"queue": self._queue_id, "keys": Bytes(keys)})
        new = {entry.key or entry.id for entry in entries} - set(known)
        if new and waiting + len(new) > depth:
            queue = self._connections.address.stream
            raise QueueFull(f"queue {queue!r} has reached its max_depth of {depth} waiting tasks: try again later")

    async def insert(self, connection: Executor, entries: Sequence[Accepted]) -> list[str]:
        """Add them in one statement; returns their ids, or those that their keys had."""
        first_of: dict[bytes, UUID] = {}
        for entry in entries:
            if entry.key is not None:
                first_of.setdefault(entry.key, entry.id)
        chosen = [entry for entry in entries if entry.key is None or first_of[entry.key] == entry.id]
        text = statement("submit", self._connections.address.schema)
        rows = await run(connection, text, self._parameters(chosen))
        found = {entry.key or entry.id: row[0] for entry, row in zip(chosen, rows, strict=True)}
        return [str(found[entry.key or entry.id]) for entry in entries]

    def _parameters(self, entries: Sequence[Accepted]) -> dict[str, Any]:
        enqueued_at = now_rfc3339()
        return {
            "queue": self._queue_id,
            "keep": float(self._options.idempotency_retention_s),
            "ids": Uuids([entry.id for entry in entries]),
            "lanes": Ints([lane_of(entry.task.priority) for entry in entries]),
            "due": Floats([entry.run_at for entry in entries]),
            "keys": Bytes([entry.key for entry in entries]),
            "entries": Bytes([encode_entry(task_to_entry(entry.task, enqueued_at)) for entry in entries]),
        }


_LOCKS = 0x5401A1
"""The class of our advisory locks; the queue's number is the other half."""


def _chars(entry: Accepted) -> int:
    return task_chars(entry.task)
