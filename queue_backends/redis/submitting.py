"""Accepting tasks: those that are submitted at a time go together, in script calls that follow each other closely."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.exceptions

from queue_backends.batching import batches, task_chars
from queue_backends.errors import BackendUnavailable, QueueError, QueueFull
from queue_backends.gathering import Batch, Gatherer
from queue_backends.interfaces import BackendOptions, QueueStats
from queue_backends.messages import MOST_VALUE_CHARS, Task, check_run_at, check_task, now_rfc3339, other_fields
from queue_backends.redis.client import (
    COMMAND_TIMEOUT_S,
    SMALLEST_LONGEST_ARGUMENT,
    RedisClient,
    may_have_arrived,
)
from queue_backends.redis.keys import GROUP, LANES, Keys
from queue_backends.redis.line import Link
from queue_backends.redis.watchdog import Watchdog
from queue_backends.redis.wire import pack

SUBMIT_LIMIT_S = 15.0
FIRST_DELAY_S = 0.05
REMEMBERED_MS = 60_000
LONGEST_AT_ONCE = SMALLEST_LONGEST_ARGUMENT // 4
"""A character of text has at most four bytes."""
UNKNOWN_OUTCOME = "whether the tasks were accepted is not known, so submit them again only with their idempotency_key"


Submission = tuple[Task, float | None]
"""A task on its way in, and when it becomes ready."""
Script = tuple[str, Sequence[str], Sequence[bytes | str]]
"""A script's name, KEYS and ARGV."""


class Call:
    """A script call, under the name and number by which the server knows it when it is repeated."""

    __slots__ = ("began_at", "each", "name", "number", "tasks")

    def __init__(self, name: str, number: int, tasks: Sequence[Submission], *, each: bool) -> None:
        """`each`: accept those for which there is room, not all or none."""
        self.name = name
        self.number = number
        self.tasks = tasks
        self.each = each
        self.began_at = time.monotonic()


class _Sent:
    """A batch's call that was sent without waiting: the `Receiver` of its reply."""

    __slots__ = ("batch", "call", "is_awaited", "submitter")

    def __init__(self, submitter: Submitter, call: Call, batch: Batch[Submission]) -> None:
        self.submitter = submitter
        self.call = call
        self.batch = batch
        self.is_awaited = True

    def take(self, reply: Any) -> bool:
        if isinstance(reply, Exception):
            self.lose(reply)
        elif self.is_awaited:
            self.is_awaited = False
            self.submitter.answered(self, reply)
        return True

    def lose(self, error: Exception) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self.submitter.failed(self, error)


class Submitter:
    """Adds tasks to one queue."""

    def __init__(
        self, client: RedisClient, keys: Keys, options: BackendOptions, stats: Callable[[], Awaitable[QueueStats]]
    ) -> None:
        self._client = client
        self._keys = keys
        self._options = options
        self._stats = stats
        self._gatherer = Gatherer(self._begin, _submission_chars, may_follow=self._may_follow)
        self._names: list[str] = []
        """Under which nobody is calling now."""
        self._calls = 0
        self._fixed_names = (*keys.lanes, keys.delayed, keys.delayed_entries, keys.moved)
        """KEYS of every call."""
        self._watchdog = Watchdog()
        self._known_link: Link | None = None
        """Whose server has the script."""
        self._settling: set[asyncio.Task[None]] = set()
        """Batches whose calls could not be sent at once, or have to be repeated."""
        self._unsettled = 0

    def submit(self, task: Task, run_at: float | None) -> asyncio.Future[str]:
        """Accept one task, in the same round trip as others that are submitted at this time."""
        check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        if run_at is not None:
            check_run_at(run_at)
        return self._gatherer.submit((task, run_at))

    async def submit_many(self, tasks: Sequence[Task], run_at: float | None) -> list[str]:
        """Accept several tasks, all checked before the first is added."""
        check_run_at(run_at)
        for task in tasks:
            check_task(task, max_prompt_bytes=self._options.max_prompt_bytes)
        depth, parts = self._options.max_depth, list(batches(tasks, task_chars))
        if depth and len(parts) > 1:  # several script calls: decide for all of them before the first
            stats = await self._stats()
            if stats.ready + stats.delayed + len(tasks) > depth:
                raise self._full()
        ids: list[str] = []
        for batch in parts:
            call = self._new_call([(task, run_at) for task in batch], each=False)
            reply = await self._repeated(call)
            if reply == b"full":
                raise self._full()
            ids += [task_id.decode() for task_id in reply]
        return ids

    async def close(self) -> None:
        """Let what is on its way arrive."""
        await self._gatherer.close(SUBMIT_LIMIT_S)
        self._watchdog.close()

    def _new_call(self, tasks: Sequence[Submission], *, each: bool) -> Call:
        """Under a name that nobody else uses until its outcome is known: the server remembers the last call of each."""
        self._calls += 1
        return Call(self._names.pop() if self._names else uuid.uuid4().hex, self._calls, tasks, each=each)

    # Batches of single tasks

    def _may_follow(self) -> bool:
        """On one connection the server takes calls in the order in which they are sent. One that has to be repeated
        ends that."""
        return not self._unsettled and self._link_at_once() is not None

    def _link_at_once(self) -> Link | None:
        """The connection, if a call can be sent over it without waiting, and its server has been seen to know the
        script: else the second of two calls could be carried out without the first."""
        link = self._client.link_at_once()
        return link if link is self._known_link else None

    def _begin(self, batch: Batch[Submission]) -> None:
        call = self._new_call(batch.items, each=True)
        link = self._link_at_once()
        if link is not None and not self._unsettled:
            name, keys, arguments = self._script(call)
            if max(map(len, arguments)) < LONGEST_AT_ONCE:
                sent = _Sent(self, call, batch)
                self._watchdog.watch(sent, COMMAND_TIMEOUT_S)
                self._client.send_script(link, name, keys, arguments, sent)
                return
        self._settle(batch, call, None)

    def answered(self, sent: _Sent, reply: Any) -> None:
        """The server has carried it out."""
        self._watchdog.forget(sent)
        self._client.availability.answered(began_at=sent.call.began_at)
        try:
            outcomes = self._outcomes(sent.call, reply)
        except QueueError as error:
            sent.batch.refuse(error)
        else:
            self._names.append(sent.call.name)
            sent.batch.end(outcomes)

    def failed(self, sent: _Sent, error: Exception) -> None:
        """No reply, or none of the script's own."""
        self._watchdog.forget(sent)
        failure: QueueError | None = None
        if not isinstance(error, redis.exceptions.NoScriptError):
            failure = self._client.met(error, began_at=sent.call.began_at)
            failure.__cause__ = error
        self._settle(sent.batch, sent.call, failure)

    def _settle(self, batch: Batch[Submission], call: Call, failure: QueueError | None) -> None:
        self._unsettled += 1
        task = asyncio.create_task(self._end(batch, call, failure), name="submit")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _end(self, batch: Batch[Submission], call: Call, failure: QueueError | None) -> None:
        try:
            outcomes = await self._settled(batch, call, failure)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are to hear of it
            batch.refuse(error)
        except BaseException:
            batch.cancel()
            raise
        else:
            self._known_link = self._client.link_at_once()
            batch.end(outcomes)

    async def _settled(
        self, batch: Batch[Submission], call: Call, failure: QueueError | None
    ) -> list[str | QueueError]:
        try:
            await batch.turn()  # the one before it may have to be repeated yet
            return self._outcomes(call, await self._repeated(call, failure))
        finally:
            self._unsettled -= 1

    def _outcomes(self, call: Call, reply: Any) -> list[str | QueueError]:
        if not isinstance(reply, list) or len(reply) != len(call.tasks):
            shown = repr(reply)[:MOST_VALUE_CHARS]
            raise QueueError(f"the queue's server has answered {len(call.tasks)} tasks with {shown}: {UNKNOWN_OUTCOME}")
        return [self._full() if task_id is None else task_id.decode() for task_id in reply]

    # Calls

    async def _repeated(self, call: Call, failure: QueueError | None = None) -> Any:
        """The call's reply. It is repeated under the same number while it is not known whether it was carried out;
        `failure` is what the first try met."""
        deadline, delay_s, may_be_there = call.began_at + SUBMIT_LIMIT_S, FIRST_DELAY_S, False
        while True:
            if failure is None:
                limit_s = min(COMMAND_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
                try:
                    reply = await self._client.script(*self._script(call), timeout_s=limit_s)
                except QueueError as error:
                    failure = error
                else:
                    self._names.append(call.name)
                    return reply
            may_be_there = may_be_there or (isinstance(failure, BackendUnavailable) and may_have_arrived(failure))
            if not may_be_there:
                raise failure
            if not isinstance(failure, BackendUnavailable) or time.monotonic() + delay_s > deadline:
                raise type(failure)(f"{failure}; {UNKNOWN_OUTCOME}") from failure
            await asyncio.sleep(delay_s)
            delay_s, failure = min(2 * delay_s, 1.0), None

    def _script(self, call: Call) -> Script:
        keys, options = self._keys, self._options
        names = [*self._fixed_names, keys.submitter(call.name)]
        heads: list[int | list[str]] = []
        dates, prompts = [now_rfc3339()], list[str]()
        for task, run_at in call.tasks:
            due_ms = round(run_at * 1000) if run_at is not None else 0
            key, date = 0, 1
            if task.idempotency_key:
                names.append(keys.idempotency(task.idempotency_key))
                key = len(names)
            if task.enqueued_at:
                dates.append(task.enqueued_at)
                date = len(dates)
            heads += (LANES.index(task.priority) + 1, due_ms, key, date, other_fields(task) or False)
            prompts.append(task.prompt)
        idempotency_ms = round(options.idempotency_retention_s * 1000)
        depth, number, each = options.max_depth, call.number, call.each
        head = pack((GROUP, depth, idempotency_ms, number, REMEMBERED_MS, each, len(dates), heads))
        return "submit", names, [head, *dates, *prompts]

    def _full(self) -> QueueFull:
        depth = self._options.max_depth
        return QueueFull(
            f"queue {self._keys.queue!r} has reached its max_depth of {depth} waiting tasks: try again later"
        )


def _submission_chars(submission: Submission) -> int:
    return task_chars(submission[0])
