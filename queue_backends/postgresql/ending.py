"""Ending a task that waits, and asking for the end of one that runs: in one transaction, whoever pulls meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from queue_backends.interfaces import CancelOutcome, Delivery
from queue_backends.messages import Task
from queue_backends.postgresql.names import id_of
from queue_backends.postgresql.rows import TaskRow, decode_spent
from queue_backends.postgresql.sessions import Connection
from queue_backends.postgresql.writing import Writer, cancelled_end


async def end_waiting(
    connection: Connection, *, writer: Writer, queue_id: int, task_id: str
) -> tuple[CancelOutcome, Sequence[bytes]]:
    """What the request met; for a task that was ended, with the chunks that were written."""
    found = id_of(task_id)
    if found is None:
        return CancelOutcome.UNKNOWN, ()
    token = uuid.uuid4()
    async with connection.transaction():
        rows = await writer.run(connection, "take_to_end", {"id": found, "token": token})
        if not rows:
            ended = await writer.run(connection, "has_ended", {"id": found})
            return (CancelOutcome.FINISHED if ended else CancelOutcome.UNKNOWN), ()
        *fields, was_running, spent = rows[0]
        if was_running:
            return CancelOutcome.REQUESTED, ()
        row = TaskRow(*fields)
        delivery = Delivery(task=Task(id=task_id, prompt=""), entry_id=row.entry_id, token=str(token), first=False)
        return CancelOutcome.CANCELLED, await writer.end_in(connection, cancelled_end(delivery, decode_spent(spent)))
