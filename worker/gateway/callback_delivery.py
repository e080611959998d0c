"""Tells receivers that their tasks have ended: at least once, whatever becomes of the gateway that took the task.

One gateway of the fleet has the duty at a time; when it dies, another takes over within seconds. Which tasks have ended
it asks the queue every second, for all of them in one command: that costs less than a subscription for each, and misses
nothing. Many receivers are told at once, none of them too often.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace

from queue_backends import Backend, QueueError, StateChange, TaskResult, TaskState
from worker.background import BackgroundWork
from worker.deliveries.deliveries import Deliveries
from worker.deliveries.trying import Patience
from worker.engine.lease import TTL_S, Duty
from worker.errors import BadSetting
from worker.following import Following
from worker.gateway.callback_attempt import attempt, body_of, gave_up, wants
from worker.gateway.callbacks import DUE, HELLO, Callback, Callbacks, CallbackState, opened
from worker.gateway.ownership import read_record
from worker.net_guard import NetGuard

LOOK_EVERY_S: Final = 1.0
RECONCILE_S: Final = 60.0
AT_ONCE: Final = 64
AT_ONCE_PER_HOST: Final = 8
_PAGE: Final = 500

log = structlog.get_logger(__name__)


class CallbackDelivery(BackgroundWork):
    """Delivers, while it is entered and has the duty."""

    def __init__(
        self,
        callbacks: Callbacks,
        backend: Backend,
        guard: NetGuard,
        *,
        duty_ttl_s: float = TTL_S,
        look_every_s: float = LOOK_EVERY_S,
        patience: Patience | None = None,
    ) -> None:
        duty = Duty(backend.state, "gateway/callbacks/duty", ttl_s=duty_ttl_s)
        super().__init__(partial(duty.whenever_held, self._work), name="callbacks")
        self._callbacks = callbacks
        self._backend = backend
        self._http = guard.http()
        self._look_every_s = look_every_s
        self._patience = patience or Patience()
        self._due: dict[str, Callback] = {}
        self._changed: set[str] = set()
        """Tasks whose callback has changed since the store was last begun to be read."""
        self._deliveries = Deliveries(self._deliver, most=AT_ONCE, most_of_one=AT_ONCE_PER_HOST, what="callback")
        self._some = asyncio.Event()

    async def stop(self) -> None:
        """Deliver no more; whoever has the duty next goes on."""
        await super().stop()
        await self._http.aclose()

    async def _work(self) -> None:
        """While the duty is ours."""
        self._due.clear()
        following = Following(
            self._backend.state, DUE, HELLO, what="callbacks", changed=self._heard, keep=self._keep_whole
        )
        async with self._deliveries.going_on(), following:
            await self._look()

    def _heard(self, change: StateChange) -> None:
        task_id = change.key.removeprefix(DUE)
        self._know(task_id, opened(change.value) if change.value else None)

    def _know(self, task_id: str, callback: Callback | None) -> None:
        self._changed.add(task_id)
        if callback is None:
            self._due.pop(task_id, None)
        else:
            self._due[task_id] = callback
            self._some.set()

    async def _keep_whole(self) -> None:
        while True:
            await self._read_all()
            await self._give_up_unknown()
            await asyncio.sleep(RECONCILE_S * random.uniform(0.75, 1.25))  # noqa: S311 - not all at once

    async def _read_all(self) -> None:
        self._changed.clear()
        found = await self._callbacks.due()
        for task_id in self._changed:  # what was read of these may be older than what is known
            found.pop(task_id, None)
        self._due = found | {task_id: self._due[task_id] for task_id in self._changed if task_id in self._due}
        if self._due:
            self._some.set()

    async def _look(self) -> None:
        while True:
            if not self._due:
                self._some.clear()
                await self._some.wait()
            with contextlib.suppress(QueueError):  # the store is away: the next look may do better
                await self._look_once()
            await asyncio.sleep(self._look_every_s)

    async def _look_once(self) -> None:
        now = time.time()
        ready = [
            callback
            for task_id, callback in self._due.items()
            if task_id not in self._deliveries and (callback.next_try_at is None or callback.next_try_at <= now)
        ]
        for start in range(0, len(ready), _PAGE):
            page = ready[start : start + _PAGE]
            results = await self._backend.queue.results([callback.task_id for callback in page])
            for callback, result in zip(page, results, strict=True):
                if result is not None:
                    self._deliveries.add(callback.task_id, _host(callback))

    async def _deliver(self, task_id: str) -> None:
        callback = self._due.get(task_id)
        if callback is None:
            return
        try:
            [result] = await self._backend.queue.results([callback.task_id])
            if result is None:  # it runs again, or its result is gone: whoever looks next finds out
                return
            after = await self._tried(callback, result)
            await self._callbacks.keep(after)
        except QueueError as error:  # it is told again: a receiver knows it by its id
            log.warning("a callback's state cannot be kept", task=callback.task_id, error=str(error))
            return
        except Exception:
            log.exception("a callback has failed", task=callback.task_id)
            after = gave_up(callback, "something went wrong in the gateway; its log has the reason")
            with contextlib.suppress(QueueError):
                await self._callbacks.keep(after)
        self._know(after.task_id, after if after.state is CallbackState.PENDING else None)
        log.info("callback", task=after.task_id, state=after.state.value, tries=after.tries, status=after.last_status)

    async def _tried(self, callback: Callback, result: TaskResult) -> Callback:
        if not wants(callback, result):
            return replace(callback, state=CallbackState.SKIPPED)
        try:
            secret = self._callbacks.secret_of(callback)
        except BadSetting as error:
            return gave_up(callback, str(error))
        body = body_of(result, await read_record(self._backend.state, callback.task_id))
        return await attempt(callback, body, secret, self._http, self._patience)

    async def _give_up_unknown(self) -> None:
        """Those whose task, or whose result, is no longer kept: they would wait for ever."""
        waiting = [callback for task_id, callback in self._due.items() if task_id not in self._deliveries]
        for start in range(0, len(waiting), _PAGE):
            page: Sequence[Callback] = waiting[start : start + _PAGE]
            statuses = await self._backend.queue.status([callback.task_id for callback in page])
            for callback, status in zip(page, statuses, strict=True):
                if status.state is TaskState.UNKNOWN:
                    why = callback.last_error or "the task is not known any more"
                    await self._callbacks.keep(gave_up(callback, f"{why}; its result is no longer kept"))
                    self._know(callback.task_id, None)


def _host(callback: Callback) -> str:
    return urlsplit(callback.url).netloc.lower()
