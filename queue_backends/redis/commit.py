"""Group commit: how any number of runs ended, or how far they have come, in one fenced script call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_backends.batching import batches, once_each, outcome_chars
from queue_backends.interfaces import Ack, BackendOptions, Checkpoint, Dead, Delivery, P, Progress, Release, Retry
from queue_backends.redis.chunks import Numbering
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.wire import (
    CallTable,
    encode_result,
    encode_spent,
    fence_of,
    keep_of,
    pack_records,
)


class Committer:
    """Writes outcomes, and knows which deliveries this process holds."""

    def __init__(self, client: RedisClient, keys: Keys, numbering: Numbering, options: BackendOptions) -> None:
        self._client = client
        self._keys = keys
        self._numbering = numbering
        self._options = options
        self._held: set[tuple[str, str]] = set()

    def hold(self, delivery: Delivery) -> None:
        """Note that a delivery was handed out."""
        self._held.add((delivery.entry_id, delivery.token))

    def drop(self, delivery: Delivery) -> None:
        """Note that a delivery is over, whatever its end."""
        self._held.discard((delivery.entry_id, delivery.token))
        self._numbering.forget(delivery)

    def holds_entry(self, entry: str) -> bool:
        """Whether a run of this process has that entry."""
        return any(held == entry for held, _ in self._held)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Write them; returns those whose lease was lost, of which nothing was written."""
        lost: list[P] = []
        for batch in batches(outcomes, outcome_chars):
            for part in once_each(batch, lambda outcome: outcome.delivery.entry_id):
                lost += await self._commit(part)
        return lost

    async def _commit(self, outcomes: Sequence[P]) -> list[P]:
        keys = self._keys
        await self._numbering.prepare([outcome.delivery for outcome in outcomes if outcome.chunks])
        table = CallTable(
            *keys.lanes,
            keys.results,
            keys.results_expiry,
            keys.dead,
            keys.delayed,
            keys.delayed_entries,
            keys.moved,
            keys.cancelled,
        )
        payload = (
            GROUP,
            keep_of(self._options),
            round(self._options.result_retention_s * 1000),
            self._options.dead_limit,
            keys.done_prefix,
            [self._pack(outcome, table) for outcome in outcomes],
        )
        lost = await self._client.script("commit", table.names, table.arguments(payload))
        for position, outcome in enumerate(outcomes):
            if not isinstance(outcome, Checkpoint) or position in lost:
                self.drop(outcome.delivery)
            elif outcome.chunks:
                self._numbering.advance(outcome.delivery, len(outcome.chunks))
        return [outcomes[position] for position in lost]

    def _pack(self, outcome: Progress, table: CallTable) -> tuple[Any, ...]:
        delivery, chunks = outcome.delivery, outcome.chunks
        task = delivery.task
        fence = fence_of(delivery)
        first_seq = self._numbering.next_seq(delivery)
        return (
            _KINDS[type(outcome)],
            fence.lane,
            fence.entry,
            fence.consumer,
            fence.deliveries,
            task.id,
            table.position(self._keys.chunks(task.id)),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            self._numbering.encode(delivery, chunks),
            bool(chunks) and chunks[-1].is_final,
            pack_records(outcome.records, table, self._keys) if outcome.records else (),
            _payload(outcome),
            round(outcome.retry_in_s * 1000) if isinstance(outcome, Retry) else 0,
            task.attempt + 1 if isinstance(outcome, Retry | Dead) else task.attempt,
            max(outcome.next_attempt, delivery.next_attempt) if isinstance(outcome, Retry | Release | Dead) else 0,
        )


_KINDS: dict[type[Progress], str] = {
    Ack: "ack",
    Retry: "retry",
    Dead: "dead",
    Release: "release",
    Checkpoint: "checkpoint",
}


def _payload(outcome: Progress) -> tuple[bytes | str, ...]:
    match outcome:
        case Ack(result=result):
            return (encode_result(result),)
        case Dead(result=result):
            return (encode_result(result), result.error)
        case Retry(spent=spent) | Release(spent=spent) if spent is not None:
            return (encode_spent(spent),)
        case _:
            return ()
