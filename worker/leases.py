"""Keeps the leases of what this worker holds, whatever its event loop is busy with.

A task that blocks the loop, with a plain computation in an `async def` say, must not cost its neighbours their leases.
So they are renewed from a thread beside the loop, over a connection of its own, where the backend allows that; and the
same thread watches the loop and hears of cancels that got lost on their way. A backend that lives in the loop itself
(`memory://`) is renewed there.

There is an end to it: a loop that stands still for longer than any run may take would hold its tasks for ever. Then the
leases are let go, and other workers run them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import structlog

from queue_backends import Backend, BackendUnavailable, Delivery, LeaseRenewer, QueueError
from worker.health import HealthState
from worker.loop_watch import LoopWatch
from worker.metrics import WorkerMetrics
from worker.side_loop import SideLoop

LOOK_FOR_CANCELS_S = 1.0
SHORTEST_TRY_S = 1.0

DeliveryKey = tuple[str, str]

Renew = Callable[[Sequence[Delivery]], Awaitable[list[Delivery]]]

log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Renews what it was given to `hold`, until it is told to `drop` it.

    Both callbacks come in the event loop that `run` was called in: `on_lost` with deliveries that are no longer ours,
    `on_cancel` with ids of tasks, of this worker or another, that were asked to end.
    """

    __slots__ = (
        "_backend",
        "_has_let_go",
        "_held",
        "_held_lock",
        "_home",
        "_is_failing",
        "_lease_s",
        "_longest_block_s",
        "_on_cancel",
        "_on_lost",
        "_watch",
    )

    def __init__(
        self,
        backend: Backend,
        metrics: WorkerMetrics,
        health: HealthState,
        *,
        lease_s: float,
        longest_run_s: float,
        on_lost: Callable[[Sequence[Delivery]], None],
        on_cancel: Callable[[Sequence[str]], None],
    ) -> None:
        self._backend = backend
        self._lease_s = lease_s
        self._longest_block_s = health.longest_block_s = longest_run_s + lease_s
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._watch = LoopWatch(metrics, health, lease_s=lease_s)
        self._held: dict[DeliveryKey, Delivery] = {}
        self._held_lock = threading.Lock()
        self._home: asyncio.AbstractEventLoop | None = None
        self._has_let_go = self._is_failing = False

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, delivery: Delivery, key: DeliveryKey | None = None) -> None:
        """Renew it from now on. Who has its key already saves another one's memory."""
        with self._held_lock:
            self._held[key or key_of(delivery)] = delivery

    def drop(self, *deliveries: Delivery) -> None:
        """They are over, or lost."""
        with self._held_lock:
            for delivery in deliveries:
                self._held.pop(key_of(delivery), None)

    def _all_held(self) -> list[Delivery]:
        with self._held_lock:
            return list(self._held.values())

    async def run(self) -> None:
        """Keep leases until cancelled."""
        self._home = asyncio.get_running_loop()
        renewer = self._backend.lease_renewer()
        with self._watch.watching():
            async with SideLoop("leases") as side, asyncio.TaskGroup() as duties:
                duties.create_task(side.run(self._watch.run()), name="loop watch")
                if renewer is None:
                    duties.create_task(self._renew(self._backend.queue.renew), name="lease renewal")
                else:
                    duties.create_task(side.run(self._keep(renewer)), name="lease keeper")

    async def _keep(self, renewer: LeaseRenewer) -> None:
        try:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._renew(renewer.renew), name="lease renewal")
                duties.create_task(self._look_for_cancels(renewer), name="cancel requests")
        finally:
            await renewer.close()

    async def _renew(self, renew: Renew) -> None:
        regular_s = pause_s = self._lease_s / 3
        while True:
            await asyncio.sleep(pause_s)
            held, pause_s = self._all_held(), regular_s
            if held and not self._lets_go(len(held)) and not await self._has_renewed(held, renew):
                pause_s = min(SHORTEST_TRY_S, regular_s)  # the leases run on: be there as soon as the broker is back

    async def _has_renewed(self, held: Sequence[Delivery], renew: Renew) -> bool:
        """One try, and what comes of it."""
        try:
            async with asyncio.timeout(max(SHORTEST_TRY_S, self._lease_s / 3)):
                lost = await renew(held)
        except BackendUnavailable:
            return False  # the backend says so itself, once
        except Exception as error:  # noqa: BLE001 - whatever it is: without renewals every task would be lost
            if not self._is_failing:
                text = str(error) or type(error).__name__
                log.warning("cannot renew leases, trying on", tasks=len(held), error=text)
            self._is_failing = True
            return False
        if self._is_failing:
            log.info("leases are renewed again", tasks=len(held))
        self._is_failing = False
        if lost:
            self._tell(self._on_lost, lost)
        return True

    def _lets_go(self, tasks: int) -> bool:
        """Whether the loop has stood still for so long that nobody should wait for it any more."""
        lets_go = self._watch.blocked_s > self._longest_block_s
        if lets_go and not self._has_let_go:
            log.error(
                "event loop blocked for longer than any run may take: its leases are let go, other workers will run "
                "its tasks",
                tasks=tasks,
                blocked_s=round(self._watch.blocked_s, 1),
            )
        self._has_let_go = lets_go
        return lets_go

    async def _look_for_cancels(self, renewer: LeaseRenewer) -> None:
        """A cancel is announced, and an announcement can get lost: while there is something to cancel, look."""
        while True:
            await asyncio.sleep(LOOK_FOR_CANCELS_S)
            if not self._held:
                continue
            try:
                asked = await renewer.cancel_requests()
            except QueueError:
                continue  # renewals complain
            if asked:
                self._tell(self._on_cancel, asked)

    def _tell(self, what: Callable[..., None], news: object) -> None:
        assert self._home is not None  # noqa: S101 - duties run while `run` does
        self._home.call_soon_threadsafe(what, news)


def key_of(delivery: Delivery) -> DeliveryKey:
    """One delivery, among all that a worker ever has."""
    return delivery.entry_id, delivery.token
