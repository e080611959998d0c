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
    Holders,
    chunk_items,
    encode_spent,
    keep_of,
    result_json,
)


class Committer:
    """Writes outcomes, and knows which deliveries this process holds."""

    __slots__ = ("_client", "_held", "_keys", "_numbering", "_options")

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
        records, holders = RecordPacker(table, keys), Holders()
        items: list[Any] = []
        for outcome in outcomes:
            self._pack(items, outcome, table, records, holders)
        payload = (
            GROUP,
            keep_of(self._options),
            round(self._options.result_retention_s * 1000),
            self._options.dead_limit,
            keys.done_prefix,
            holders.found,
            records.tallies,
            items,
        )
        lost: list[int] = await self._client.script("commit", table.names, table.arguments(payload))
        return lost

    def _pack(
        self, items: list[Any], outcome: Progress, table: CallTable, records: RecordPacker, holders: Holders
    ) -> None:
        """Append what commit.lua takes of an outcome."""
        delivery, chunks = outcome.delivery, outcome.chunks
        task, kind, start = delivery.task, type(outcome), len(items)
        first_seq, cut_before, encoded = self._numbering.encode(delivery, chunks)
        items += (
            0,
            _KINDS[kind],
            holders.position(delivery.token),
            delivery.entry_id,
            task.id != delivery.entry_id and task.id,
            _json(outcome, table),
            table.position(self._keys.chunks(task.id)),
            table.position(task.stream_key) if task.stream_key else 0,
            first_seq,
            cut_before,
            bool(chunks) and chunks[-1].is_final,
            len(chunks),
            len(outcome.records),
        )
        items += chunk_items(task, chunks, encoded, table)
        records.pack(items, outcome.records, is_over=kind is Ack)
        if kind is not Ack and kind is not Checkpoint:
            items += _rest(outcome)
        items[start] = len(items) - start


_KINDS: dict[type[Progress], str] = {
    Ack: "ack",
    Retry: "retry",
    Dead: "dead",
    Release: "release",
    Checkpoint: "checkpoint",
}


def _json(outcome: Progress, table: CallTable) -> str | int:
    """The result, or what the task has used so far; False if there is none."""
    if isinstance(outcome, Ack | Dead):
        return table.text(result_json(outcome.result))
    if isinstance(outcome, Checkpoint) or outcome.spent is None:
        return False
    return table.text(encode_spent(outcome.spent).encode())


def _rest(outcome: Progress) -> tuple[int, int, int, str]:
    """What the kinds have of their own: delay in ms, attempt, next attempt, error."""
    delivery = outcome.delivery
    attempt, next_attempt = delivery.task.attempt, delivery.next_attempt
    if isinstance(outcome, Retry):
        delay_ms = round(outcome.retry_in_s * 1000)
        return delay_ms, attempt + outcome.counts, max(outcome.next_attempt, next_attempt), ""
    if isinstance(outcome, Dead):
        return 0, attempt + 1, max(outcome.next_attempt, next_attempt), outcome.result.error
    if isinstance(outcome, Release):
        return 0, attempt, max(outcome.next_attempt, next_attempt), ""
    return 0, attempt, next_attempt, ""
