"""`TaskQueue` on a kubeswarm queue plugin. What its protocol lacks: `queue_backends.swarm_plugin.gaps`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from queue_backends.errors import (
    BackendMisconfigured,
    BackendUnavailable,
    InvalidTask,
    LeaseLost,
    QueueError,
    WaitTimeout,
)
from queue_backends.interfaces import CancelOutcome, Delivery, QueueStats, Spent, TaskState, TaskStatus
from queue_backends.messages import RUN_CANCELLED, DeadLetter, Task, TaskResult
from queue_backends.swarm_plugin.calls import CALL_LIMIT_S, QueueCalls
from queue_backends.swarm_plugin.deliveries import Deliveries
from queue_backends.swarm_plugin.messages import (
    AckRequest,
    CancelRequest,
    Empty,
    NackRequest,
    PluginTask,
    PollRequest,
    PollResponse,
    ResultsRequest,
    ResultsResponse,
    SubmitResponse,
)
from queue_backends.swarm_plugin.task_form import result_of, task_of, to_submit

PERMANENT_PREFIX = "permanent failure: "
"""kubeswarm: a reason that begins so means that the task is not to be tried again."""
POLL_S = 2.0
"""kubeswarm's workers ask the plugin to wait so long."""
_AT_ONCE_MS = 1
_LAST_POLL_S = POLL_S + 1.0
_WAITS_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_PING_S = 5.0


class SwarmQueue:
    """A queue that somebody else keeps."""

    def __init__(self, calls: QueueCalls, deliveries: Deliveries) -> None:
        self._calls = calls
        self._deliveries = deliveries
        self._strays: list[PluginTask] = []
        """Handed out to a pull that was cancelled meanwhile."""
        self._begun: list[Delivery] = []
        """The same, and already counted."""
        self._cancelled: set[str] = set()
        """Running here, and asked to end."""
        self._cancels: asyncio.Queue[str] = asyncio.Queue()

    @property
    def consumer(self) -> str:
        """This process' name among the workers."""
        return self._deliveries.worker

    # In

    async def submit(self, task: Task, *, run_at: float | None = None) -> str:
        """Queue one task. Raises `InvalidTask` for one that shall wait for a moment."""
        if run_at is not None:
            raise InvalidTask("a kubeswarm queue plugin takes no task for later: submit it when its time has come")
        return (await self._calls.call("Submit", to_submit(task), SubmitResponse)).task_id

    async def submit_many(self, tasks: Sequence[Task], *, run_at: float | None = None) -> list[str]:
        """One after the other: the protocol has no batches."""
        return [await self.submit(task, run_at=run_at) for task in tasks]

    # Out

    async def pull(self, limit: int, wait_s: float) -> list[Delivery]:
        """Poll until there is a task or `wait_s` is over; then take what else is there at once."""
        give_up_at = time.monotonic() + wait_s
        found, self._begun = self._begun[:limit], self._begun[limit:]
        while len(found) < limit:
            left_s = 0.0 if found else max(0.0, min(POLL_S, give_up_at - time.monotonic()))
            try:
                task = self._strays.pop() if self._strays else await self._poll(left_s)
                delivery = await self._delivery(task) if task is not None else None
            except asyncio.CancelledError:
                self._begun += found
                raise
            except BackendUnavailable:
                if not found:
                    raise
                break
            if delivery is not None:
                found.append(delivery)
            elif task is None and (found or time.monotonic() >= give_up_at):
                break
        return found

    async def _poll(self, wait_s: float) -> PluginTask | None:
        """A poll that is under way is never cancelled: it may bring a task, which nobody else would get then."""
        timeout_ms = max(_AT_ONCE_MS, round(wait_s * 1000))
        poll = asyncio.create_task(
            self._calls.call(
                "Poll", PollRequest(timeout_ms=timeout_ms), PollResponse, limit_s=timeout_ms / 1000 + CALL_LIMIT_S
            ),
            name="poll of a queue plugin",
        )
        try:
            answer = await asyncio.shield(poll)
        except asyncio.CancelledError:
            await asyncio.wait([poll], timeout=_LAST_POLL_S)
            if not poll.done():
                poll.cancel()
                await asyncio.wait([poll])
            elif poll.exception() is None and (task := _given(poll.result())) is not None:
                self._strays.append(task)
            raise
        return _given(answer)

    async def _delivery(self, given: PluginTask) -> Delivery | None:
        try:
            task = task_of(given.prompt, given.meta, given.id)
        except InvalidTask as error:
            await self._nack(given, f"{PERMANENT_PREFIX}{error}")
            return None
        try:
            return await self._deliveries.begin(task, given)
        except BaseException:
            self._strays.append(given)
            raise

    # Leases, of which the protocol has none

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that the plugin has handed out to this process again. Nothing tells of those that others got."""
        return [delivery for delivery in deliveries if not self._deliveries.is_held(delivery)]

    async def ack(self, delivery: Delivery, result: TaskResult) -> None:
        """End the task; one that was cancelled, or failed for good, as one that is not to be tried again."""
        self._check(delivery)
        if result.error:
            await self._end(delivery, _permanent(result.error))
            return
        request = AckRequest(
            task=self._deliveries.given(delivery),
            result=result.output,
            input_tokens=result.usage.input_tokens or 0,
            output_tokens=result.usage.output_tokens or 0,
        )
        await self._calls.call("Ack", request, Empty)
        self._forget(delivery)

    async def nack(
        self,
        delivery: Delivery,
        error: str,
        *,
        retry_in_s: float | None = None,
        dead: bool = False,
        next_attempt: int = 0,
        spent: Spent | None = None,
        result: TaskResult | None = None,
        counts: bool = True,
    ) -> None:
        """Give the task back. When it comes again is up to the plugin."""
        self._check(delivery)
        if dead:
            await self._end(delivery, _permanent(result.error if result is not None else error))
            return
        await self._deliveries.given_back(delivery.entry_id, failed=counts and retry_in_s is not None)
        await self._end(delivery, error or "released by its worker")

    def _check(self, delivery: Delivery) -> None:
        if not self._deliveries.is_held(delivery):
            raise LeaseLost(f"task {delivery.entry_id} was given to somebody else")

    async def _end(self, delivery: Delivery, reason: str) -> None:
        self._check(delivery)
        try:
            await self._nack(self._deliveries.given(delivery), reason)
        except BackendUnavailable:
            raise
        except QueueError:
            if delivery.entry_id not in self._cancelled:  # else the plugin has ended it already
                raise
        self._forget(delivery)

    async def _nack(self, task: PluginTask, reason: str) -> None:
        await self._calls.call("Nack", NackRequest(task=task, reason=reason), Empty)

    def _forget(self, delivery: Delivery) -> None:
        self._deliveries.forget(delivery)
        self._cancelled.discard(delivery.entry_id)

    # Looking

    async def results(self, ids: Sequence[str]) -> list[TaskResult | None]:
        """The results that the plugin has."""
        answer = await self._calls.call("Results", ResultsRequest(task_ids=tuple(ids)), ResultsResponse)
        found = {result.task_id: result_of(result) for result in answer.results}
        return [found.get(task_id) for task_id in ids]

    async def wait(self, task_id: str, timeout_s: float) -> TaskResult:
        """Ask until there is a result: the protocol has no other way. Raises `WaitTimeout`."""
        give_up_at = time.monotonic() + timeout_s
        tries = 0
        while True:
            (result,) = await self.results([task_id])
            if result is not None:
                return result
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                raise WaitTimeout(f"task {task_id} has no result after {timeout_s} s: wait again, or cancel it")
            await asyncio.sleep(min(left_s, _WAITS_S[min(tries, len(_WAITS_S) - 1)]))
            tries += 1

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        """Ask the plugin to end tasks, and end those that run here. It does not say what it did."""
        await self._calls.call("Cancel", CancelRequest(task_ids=tuple(ids)), Empty)
        for task_id in ids:
            if task_id in self._deliveries.held:
                self._cancelled.add(task_id)
                self._cancels.put_nowait(task_id)
        return [CancelOutcome.REQUESTED for _ in ids]

    async def wake(self, ids: Sequence[str]) -> list[bool]:
        """Nothing is delayed here."""
        return [False for _ in ids]

    async def cancellations(self) -> AsyncIterator[str]:
        """Of tasks that run here and were cancelled through this process."""
        while True:
            yield await self._cancels.get()

    async def status(self, ids: Sequence[str]) -> list[TaskStatus]:
        """Running here, ended, or not known."""
        results = await self.results(ids)
        return [self._status(task_id, result) for task_id, result in zip(ids, results, strict=True)]

    def _status(self, task_id: str, result: TaskResult | None) -> TaskStatus:
        if result is not None:
            state = TaskState.SUCCEEDED if result.ok else TaskState.FAILED
            if RUN_CANCELLED in result.error:
                state = TaskState.CANCELLED
            return TaskStatus(id=task_id, state=state, result=result)
        held = self._deliveries.held.get(task_id)
        if held is not None:
            return TaskStatus(id=task_id, state=TaskState.RUNNING, task=held.task, worker=held.worker)
        return TaskStatus(id=task_id, state=TaskState.UNKNOWN)

    async def list_tasks(self, *, limit: int = 50, states: Sequence[TaskState] = ()) -> list[TaskStatus]:
        """Those that run here."""
        if states and TaskState.RUNNING not in states:
            return []
        return [self._status(task_id, None) for task_id in list(self._deliveries.held)[:limit]]

    async def stats(self) -> QueueStats:
        """How many run here; the plugin tells nothing of those that wait."""
        return QueueStats(running=len(self._deliveries.held))

    async def dead_letters(self, *, limit: int = 50) -> list[DeadLetter]:
        """They are the plugin's."""
        return []

    async def requeue(self, letter_ids: Sequence[str]) -> list[str]:
        """They are the plugin's."""
        return []

    async def purge(self, letter_ids: Sequence[str]) -> int:
        """They are the plugin's."""
        return 0

    async def pause(self) -> None:
        """Raises `BackendMisconfigured`: the protocol has no such thing."""
        raise BackendMisconfigured("a kubeswarm queue plugin cannot be paused: stop its workers instead")

    async def resume(self) -> None:
        """Raises `BackendMisconfigured`, as `pause`."""
        raise BackendMisconfigured("a kubeswarm queue plugin cannot be paused, so there is nothing to resume")

    async def ping(self) -> None:
        """Return if the plugin can be reached."""
        try:
            async with asyncio.timeout(_PING_S):
                await self._calls.ready()
        except TimeoutError as error:
            raise BackendUnavailable(
                f"no kubeswarm queue plugin answers at {self._calls.address} within {_PING_S:g} s"
            ) from error

    async def close(self) -> None:
        """Give back what nobody has begun, then end the connection."""
        strays = [*self._strays, *(self._deliveries.given(delivery) for delivery in self._begun)]
        self._strays, self._begun = [], []
        for task in strays:
            with contextlib.suppress(QueueError):
                await self._deliveries.given_back(task.id, failed=False)
                await self._nack(task, "released by its worker")
        await self._calls.close()


def _given(answer: PollResponse) -> PluginTask | None:
    return answer.task if answer.task is not None and answer.task.id else None


def _permanent(reason: str) -> str:
    return reason if reason.startswith(PERMANENT_PREFIX) else PERMANENT_PREFIX + reason
