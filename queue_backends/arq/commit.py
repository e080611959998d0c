"""Group commit: how any number of runs ended, or how far they have come, in one fenced script call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_backends.arq.names import ArqKeys
from queue_backends.arq.results import ending_of
from queue_backends.arq.wire import Scripts, fence_of
from queue_backends.interfaces import Ack, BackendOptions, Checkpoint, Dead, Progress, Release, Retry
from queue_backends.redis.chunks import Numbering
from queue_backends.redis.client import RedisClient
from queue_backends.redis.commit import Committer
from queue_backends.redis.records import RecordPacker
from queue_backends.redis.wire import CallTable, chunk_items, encode_spent


class Tally:
    """How runs of this process ended, for arq's health check."""

    def __init__(self) -> None:
        self.complete = 0
        self.failed = 0
        self.retried = 0

    def count(self, outcome: Progress) -> None:
        """One more of its kind."""
        match outcome:
            case Ack(result=result) if result.ok:
                self.complete += 1
            case Ack() | Dead():
                self.failed += 1
            case Retry() | Release():
                self.retried += 1
            case Checkpoint():
                return


class ArqCommitter(Committer):
    """Writes outcomes, and knows which deliveries this process holds."""

    def __init__(
        self, client: RedisClient, keys: ArqKeys, scripts: Scripts, numbering: Numbering, options: BackendOptions
    ) -> None:
        super().__init__(client, keys, numbering, options)
        self._scripts = scripts
        self.tally = Tally()

    @property
    def held(self) -> int:
        """How many deliveries this process has."""
        return len(self._held)

    async def _write(self, outcomes: Sequence[Progress]) -> list[int]:
        table = CallTable()
        records = RecordPacker(table, self._keys)
        items: list[Any] = []
        packed = [self._packed(outcome, table, records, items) for outcome in outcomes]
        lost: list[int] = await self._scripts.call("commit", packed, records.tallies, items, table=table)
        for position, outcome in enumerate(outcomes):
            if position not in lost:
                self.tally.count(outcome)
        return lost

    def _packed(self, outcome: Progress, table: CallTable, records: RecordPacker, items: list[Any]) -> tuple[Any, ...]:
        delivery, chunks = outcome.delivery, outcome.chunks
        task = delivery.task
        start = len(items) + 1
        records.pack(items, outcome.records)  # ids of jobs come back: their logs are never over for good
        first_seq, cut_before, encoded = self._numbering.encode(delivery, chunks)
        return (
            _kind(outcome),
            *fence_of(delivery),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            cut_before,
            chunk_items(task, chunks, encoded, table),
            bool(chunks) and chunks[-1].is_final,
            _payload(outcome),
            round(outcome.retry_in_s * 1000) if isinstance(outcome, Retry) else 0,
            task.attempt + 1,
            max(outcome.next_attempt, delivery.next_attempt) if isinstance(outcome, Retry | Release | Dead) else 0,
            len(outcome.records),
            start,
        )


_KINDS: dict[type[Progress], str] = {
    Ack: "ack",
    Retry: "retry",
    Dead: "dead",
    Release: "release",
    Checkpoint: "checkpoint",
}


def _kind(outcome: Progress) -> str:
    return "postpone" if isinstance(outcome, Retry) and not outcome.counts else _KINDS[type(outcome)]


def _payload(outcome: Progress) -> tuple[Any, ...]:
    match outcome:
        case Ack(result=result):
            return ending_of(result)
        case Dead(result=result, delivery=delivery):
            return (*ending_of(result), result.error, delivery.task.prompt)
        case Retry(spent=spent) | Release(spent=spent) if spent is not None:
            return (encode_spent(spent),)
        case _:
            return ()
