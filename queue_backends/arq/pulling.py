"""Taking jobs: due ones, those whose lease has run out, and those whose reply got lost."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog

from queue_backends.arq.commit import ArqCommitter
from queue_backends.arq.jobs import read_job, task_of
from queue_backends.arq.names import RETRY_KEPT_S, ArqKeys
from queue_backends.arq.results import ending_of
from queue_backends.arq.wire import Fence, Scripts
from queue_backends.errors import InvalidTask, QueueError
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, BackendOptions, Delivery, Release
from queue_backends.messages import Task, TaskResult
from queue_backends.redis.client import RedisClient
from queue_backends.redis.pulling import LONGEST_BLOCK_S, REPLY_WITHIN_S, consumer_name

log = structlog.get_logger(__name__)

EXPIRED = "job expired: it was not started within its lifetime (arq's _expires), and nothing of it is left but its id"
LETTER_PROMPT_CHARS = 1000
MOST_PER_CLAIM = 500
"""Jobs claimed by one script call: the server does nothing else meanwhile."""


class Claimed(NamedTuple):
    """A job that is ours, as the script gives it."""

    lane: int
    task_id: bytes
    token: bytes
    job: bytes | None
    """None: it has expired."""
    tries: int
    crashes: int
    next_attempt: int
    claims: int
    first: int
    cancel_asked: int

    @property
    def fence(self) -> Fence:
        """What writes are checked against."""
        return Fence(self.lane, self.task_id.decode(), self.token.decode())


class Puller:
    """Takes jobs for one worker process."""

    def __init__(
        self,
        client: RedisClient,
        keys: ArqKeys,
        scripts: Scripts,
        committer: ArqCommitter,
        options: BackendOptions,
        poll_s: float,
        cancel_asked: Callable[[str], None],
    ) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._committer = committer
        self._options = options
        self._poll_s = poll_s
        self._cancel_asked = cancel_asked
        self._number = 1
        """Of the next claim; one without a reply is repeated under its number, and gives what was claimed then."""
        self._serial = 0
        """No two tokens of this process have the same."""
        self._is_in_doubt = False
        """A claim may have been carried out whose reply we do not have."""
        self._server_ahead_ms: float | None = None
        """The server's clock minus our own, measured with each claim."""
        self.surplus: deque[Delivery] = deque()
        """Taken for a pull that was given up: the next one has them first, and renewals keep them until then."""
        self.consumer = consumer_name(options.consumer)

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Take due jobs: what is there at once, else the first that come."""
        deadline = time.monotonic() + wait_s
        while True:
            deliveries, rest_s, is_refusing = await self._taken(limit)
            remaining = deadline - time.monotonic()
            if deliveries or (remaining <= 0 and not is_refusing):
                return deliveries
            if not is_refusing:
                await self._rest(min(rest_s, remaining))

    async def _taken(self, limit: int) -> tuple[list[Delivery], float, bool]:
        """Deliveries; else how long to wait for some, and whether there was something that had to be refused."""
        if self.surplus:
            return [self.surplus.popleft() for _ in range(min(limit, len(self.surplus)))], 0.0, False
        paused, next_due_ms, claimed = await self._to_its_end(limit)
        deliveries = await self._deliveries(claimed)
        rest_s = self._poll_s if paused or next_due_ms < 0 else min(self._poll_s, max(next_due_ms, 1) / 1000)
        return deliveries, rest_s, bool(claimed) and not deliveries

    async def _to_its_end(self, limit: int) -> tuple[int, int, list[Claimed]]:
        """Let a claim end even if the pull is cancelled: what comes of it then waits for the next pull."""
        job = asyncio.create_task(self._claim(limit), name="claim")
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            try:
                await asyncio.wait([job], timeout=LONGEST_BLOCK_S)
            finally:
                job.cancel()  # no effect on one that has ended; else its number is asked for again
            if job.done() and not job.cancelled() and job.exception() is None:
                self.surplus.extend(await self._deliveries(job.result()[2]))
            raise

    async def _claim(self, limit: int) -> tuple[int, int, list[Claimed]]:
        """Whether the queue is paused, when the next job is due, and what is ours from now on.

        While the server was away nobody could renew. So when it is back, nothing is taken over for half a lease: until
        then all who live have renewed.
        """
        availability = self._client.availability
        may_take_over = not availability.is_away and availability.since_silence_s() >= self._options.lease_s / 2
        self._is_in_doubt = True
        paused, next_due_ms, server_ms, rows = await self._scripts.call(
            "pull",
            self.consumer,
            min(limit, MOST_PER_CLAIM),
            self._number,
            self._serial,
            may_take_over,
            self._server_ms(),
        )
        self._is_in_doubt = False
        self._number += 1
        self._serial += len(rows)
        self._server_ahead_ms = server_ms - time.monotonic() * 1000
        return paused, next_due_ms, [Claimed(*row) for row in rows]

    def _server_ms(self) -> int:
        """The server's clock at this moment, as far as its last answer tells; 0 before the first one."""
        return 0 if self._server_ahead_ms is None else round(time.monotonic() * 1000 + self._server_ahead_ms)

    async def _rest(self, limit_s: float) -> None:
        """Until somebody wakes one who waits, or the time to look again has come: arq's own clients wake nobody."""
        wait = ("BLPOP", self._keys.wake, f"{max(0.001, limit_s):.3f}")
        await self._client.pipeline([wait], timeout_s=limit_s + REPLY_WITHIN_S)

    async def _deliveries(self, claimed: Sequence[Claimed]) -> list[Delivery]:
        """What was claimed, as deliveries; what cannot be read is refused."""
        found = [await self._accept(each) for each in claimed]
        return [delivery for delivery in found if delivery is not None]

    async def _accept(self, claimed: Claimed) -> Delivery | None:
        try:
            task = await self._read(claimed)
        except InvalidTask as error:
            try:
                await self._refuse(claimed, str(error))
            except QueueError as failed:  # its lease runs out, and somebody meets it again
                log.warning("cannot refuse an unreadable job yet", job=claimed.fence.task_id, error=str(failed))
            return None
        delivery = Delivery(
            task=task,
            entry_id=f"{task.id}#{claimed.claims}",
            token=claimed.fence.token,
            redeliveries=claimed.crashes,
            first=bool(claimed.first),
            next_attempt=claimed.next_attempt + claimed.crashes * ATTEMPTS_PER_DELIVERY,
            worker=self.consumer,
        )
        self._committer.hold(delivery)
        if claimed.cancel_asked:
            self._cancel_asked(task.id)
        return delivery

    async def _read(self, claimed: Claimed) -> Task:
        if claimed.job is None:
            raise InvalidTask(EXPIRED)
        job = read_job(claimed.job)
        if job.job_try > claimed.tries:  # the engine has counted tries before, and arq goes on from there
            tries = job.job_try
            await self._client.command("SET", self._keys.retry(claimed.fence.task_id), tries, "EX", RETRY_KEPT_S)
        return task_of(
            claimed.fence.task_id,
            job,
            tries=max(claimed.tries, job.job_try),
            max_prompt_bytes=self._options.max_prompt_bytes,
        )

    async def _refuse(self, claimed: Claimed, reason: str) -> None:
        log.warning("unreadable job goes to the dead letters", job=claimed.fence.task_id, reason=reason)
        result = TaskResult(task_id=claimed.fence.task_id, error=reason, finished_at=time.time())
        prompt, is_readable = _beginning(claimed.job)
        await self._scripts.call(
            "refuse",
            *claimed.fence,
            ending_of(result),
            reason,
            prompt,
            claimed.tries,
            claimed.next_attempt,
            is_readable,
        )

    async def leave(self) -> None:
        """Give back what no run ever saw."""
        if self._is_in_doubt:
            _, _, claimed = await self._claim(1)
            self.surplus.extend(await self._deliveries(claimed))
        await self._committer.commit([Release(delivery=delivery) for delivery in self.surplus])
        self.surplus.clear()


def _beginning(data: bytes | None) -> tuple[str, bool]:
    """The beginning of the prompt of a job that cannot run, and whether it is one at all."""
    try:
        job = read_job(data or b"")
    except InvalidTask:
        return "", False
    first: Any = job.args[0] if job.args else job.kwargs.get("prompt", "")
    return (first[:LETTER_PROMPT_CHARS] if isinstance(first, str) else ""), True
