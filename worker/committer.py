"""Group commit: whatever ended since the last round trip is written in the next one."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Collection, Sequence

import structlog
from msgspec import structs

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    ChunkDraft,
    ChunkType,
    Dead,
    Outcome,
    QueueError,
    Retry,
    TaskResult,
)
from queue_backends.batching import batches, outcome_chars
from worker.metrics import WorkerMetrics
from worker.persistence import LONGEST_DELAY_S, persistently

TURNS_FOR_THE_PULL = 5
"""Turns of the event loop that a commit leaves to the pull which the same runs have made room for. Sent first, it is
answered first, and the server writes the results while we run the next tasks: measured, a third more tasks per second.
They are counted from when the pull can be sent: an answer may have come behind the same runs, and its tasks go first.
"""

log = structlog.get_logger(__name__)

OnCommitted = Callable[[Sequence[Outcome], Collection[int]], None]
"""Called with outcomes that were written, or refused because their lease was lost: the latter by `id`."""


class Committer:
    """Writes outcomes; at once when idle, and in batches as large as the round trips make them."""

    __slots__ = ("_backend", "_complaint", "_empty", "_metrics", "_on_committed", "_pending", "_pull_is_due", "_wake")

    def __init__(
        self, backend: Backend, metrics: WorkerMetrics, on_committed: OnCommitted, pull_is_due: Callable[[], bool]
    ) -> None:
        self._backend = backend
        self._metrics = metrics
        self._on_committed = on_committed
        self._pull_is_due = pull_is_due
        self._pending: list[Outcome] = []
        self._wake = asyncio.Event()
        self._complaint = ""
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, outcome: Outcome) -> None:
        """Write this outcome with the next batch."""
        if not self._pending:
            self._wake.set()
            self._empty.clear()
        self._pending.append(outcome)

    async def drained(self) -> None:
        """Return when nothing is left to write."""
        await self._empty.wait()

    async def run(self) -> None:
        """Commit until cancelled."""
        while True:
            await self._wake.wait()
            turns = 0
            while turns < TURNS_FOR_THE_PULL:
                await asyncio.sleep(0)
                turns = 0 if self._pull_is_due() else turns + 1
            self._wake.clear()
            batch, self._pending = self._pending, []
            for part in batches(batch, outcome_chars):
                await self._commit(part)
            if not self._pending:
                self._empty.set()

    async def _commit(self, batch: Sequence[Outcome]) -> None:
        try:
            lost = await persistently(lambda: self._backend.commit(batch), "commit results")
        except QueueError as error:
            await self._commit_singly(batch, error)
            return
        self._settle(batch, lost)

    async def _commit_singly(self, batch: Sequence[Outcome], error: QueueError) -> None:
        """One outcome that the broker refuses must not take the others with it."""
        if len(batch) == 1:
            await self._commit_instead(batch[0], error)
            return
        for outcome in batch:
            await self._commit([outcome])

    async def _commit_instead(self, outcome: Outcome, error: QueueError) -> None:
        """What the broker refuses for good, it would refuse after another run too: the task ends with that error.

        If it refuses even that, it is the set-up, which somebody will mend: both are tried again.
        """
        task_id = outcome.delivery.task.id
        substitute = given_up(outcome, f"the result cannot be stored: {error}")
        candidates: tuple[Outcome, ...] = (substitute,)
        while True:
            for candidate in candidates:
                try:
                    lost = await persistently(functools.partial(self._backend.commit, [candidate]), "commit")
                except BackendMisconfigured as refusal:
                    error = refusal
                except QueueError as refusal:
                    log.error("the broker refused a result; delivered again", task=task_id, error=str(refusal))  # noqa: TRY400 - no trace
                    self._on_committed([outcome], {id(outcome)})
                    return
                else:
                    if candidate is substitute:
                        log.error("the broker refused a result: the task is given up", task=task_id, error=str(error))
                    self._settle([candidate], lost)
                    return
            self._complain(error)
            await asyncio.sleep(LONGEST_DELAY_S)
            candidates = (outcome, substitute)

    def _complain(self, error: QueueError) -> None:
        if str(error) != self._complaint:
            self._complaint = str(error)
            log.error("the broker lets nobody write results, trying again", error=self._complaint)

    def _settle(self, batch: Sequence[Outcome], lost: Sequence[Outcome]) -> None:
        metrics = self._metrics
        metrics.commit_batch.observe(len(batch))
        gone = {id(outcome) for outcome in lost}
        for outcome in batch:
            if gone and id(outcome) in gone:
                metrics.lease_lost += 1
                continue
            metrics.chunks_published += len(outcome.chunks)
            if type(outcome) is Ack:
                continue
            if type(outcome) is Retry:
                if outcome.counts:
                    metrics.retried += 1
                else:
                    metrics.postponed += 1
            elif type(outcome) is Dead:
                metrics.dead += 1
            else:
                log.info("task handed back", task=outcome.delivery.task.id)
        self._on_committed(batch, gone)


def given_up(outcome: Outcome, error: str) -> Dead:
    """The end of a task whose own end cannot be written: no output, none of its last chunks, but what it has cost.

    ark's list is left out, because its name, which is the task's, may be what is refused.
    """
    delivery = outcome.delivery
    said = outcome.result if isinstance(outcome, Ack | Dead) else TaskResult(task_id=delivery.task.id)
    last = outcome.chunks[-1] if outcome.chunks else None
    result = structs.replace(said, output="", structured=None, artifacts={}, error=error, finished_at=time.time())
    return Dead(
        delivery=structs.replace(delivery, task=structs.replace(delivery.task, stream_key="")),
        result=result,
        chunks=(
            ChunkDraft(
                type=ChunkType.ERROR,
                content=error,
                turn=last.turn if last else 0,
                attempt=last.attempt if last else delivery.next_attempt,
                is_final=True,
            ),
        ),
        records=outcome.records,
    )
