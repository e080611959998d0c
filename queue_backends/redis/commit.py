"""Group commit: how any number of runs ended, or how far they have come, in one fenced script call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from queue_backends.batching import batches, once_each, outcome_chars
from queue_backends.interfaces import Ack, BackendOptions, Checkpoint, Dead, Delivery, P, Progress, Release, Retry
from queue_backends.redis.chunks import Numbering, key_of
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import GROUP, Keys
from queue_backends.redis.records import RecordPacker
from queue_backends.redis.wire import (
    CallTable,
    encode_result,
    encode_spent,
    keep_of,
    parts_of,
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

    def lose(self, delivery: Delivery) -> None:
        """Note that the server says it is somebody else's."""
        self._held.discard((delivery.entry_id, delivery.token))
        self._numbering.lose(delivery)

    def holds_entry(self, lane: int, entry: str) -> bool:
        """Whether a run of this process has that entry. Two lanes may have given the same id."""
        in_lane = f"{lane}/"
        return any(held == entry and token.startswith(in_lane) for held, token in self._held)

    async def commit(self, outcomes: Sequence[P]) -> list[P]:
        """Write them; returns those whose lease was lost, of which nothing was written."""
        lost: list[P] = []
        for batch in batches(outcomes, outcome_chars):
            for part in once_each(batch, lambda outcome: key_of(outcome.delivery)):
                lost += await self._commit(part)
        return lost

    async def _commit(self, outcomes: Sequence[P]) -> list[P]:
        held = [outcome for outcome in outcomes if not self._numbering.is_lost(outcome.delivery)]
        if len(held) < len(outcomes):
            lost_ids = {id(outcome) for outcome in (await self._commit(held) if held else ())}
            written = {id(outcome) for outcome in held} - lost_ids
            return [outcome for outcome in outcomes if id(outcome) not in written]
        await self._numbering.prepare([outcome.delivery for outcome in outcomes if outcome.chunks])
        lost = await self._write(outcomes)
        for position, outcome in enumerate(outcomes):
            if position in lost:
                self.lose(outcome.delivery)
            elif not isinstance(outcome, Checkpoint):
                self.drop(outcome.delivery)
            elif outcome.chunks:
                self._numbering.advance(outcome.delivery, len(outcome.chunks))
        return [outcomes[position] for position in lost]

    async def _write(self, outcomes: Sequence[Progress]) -> list[int]:
        """One script call; positions of what is lost."""
        keys = self._keys
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
        records = RecordPacker(table, keys)
        payload = (
            GROUP,
            keep_of(self._options),
            round(self._options.result_retention_s * 1000),
            self._options.dead_limit,
            keys.done_prefix,
            [self._pack(outcome, table, records) for outcome in outcomes],
            records.sets,
        )
        lost: list[int] = await self._client.script("commit", table.names, table.arguments(payload))
        return lost

    def _pack(self, outcome: Progress, table: CallTable, records: RecordPacker) -> tuple[Any, ...]:
        delivery, chunks = outcome.delivery, outcome.chunks
        task = delivery.task
        lane, deliveries, consumer = parts_of(delivery.token)
        first_seq, encoded = self._numbering.encode(delivery, chunks)
        return (
            _KINDS[type(outcome)],
            lane,
            delivery.entry_id,
            consumer,
            deliveries,
            task.id,
            table.position(self._keys.chunks(task.id)),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            encoded,
            bool(chunks) and chunks[-1].is_final,
            records.pack(outcome.records),
            *_payload(outcome),
        )


_KINDS: dict[type[Progress], str] = {
    Ack: "ack",
    Retry: "retry",
    Dead: "dead",
    Release: "release",
    Checkpoint: "checkpoint",
}


def _payload(outcome: Progress) -> tuple[Any, ...]:
    """What the kinds have of their own, as far as they have it: JSON, delay in ms, attempt, next attempt, error."""
    if isinstance(outcome, Ack):
        return (encode_result(outcome.result),)
    if isinstance(outcome, Checkpoint):
        return (False,)
    delivery = outcome.delivery
    attempt, next_attempt = delivery.task.attempt, max(outcome.next_attempt, delivery.next_attempt)
    if isinstance(outcome, Dead):
        return encode_result(outcome.result), 0, attempt + 1, next_attempt, outcome.result.error
    spent = outcome.spent is not None and encode_spent(outcome.spent)
    if isinstance(outcome, Retry):
        return spent, round(outcome.retry_in_s * 1000), attempt + outcome.counts, next_attempt
    return spent, 0, attempt, next_attempt
