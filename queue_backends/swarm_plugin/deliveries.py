"""What the protocol does not tell of a task that is handed out: whether anybody had it before, and how that ended.

The state store counts it, per task; it belongs to whoever configured it, not to the plugin.
"""

from __future__ import annotations

import secrets

from msgspec.structs import replace

from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, Delivery, StateStore
from queue_backends.messages import Task
from queue_backends.swarm_plugin.messages import PluginTask

_DELIVERED, _FAILED, _RELEASED = "delivered", "failed", "released"


class Deliveries:
    """Tasks in the hands of this process, and the count of all deliveries of each."""

    def __init__(self, state: StateStore, *, keep_s: float, worker: str) -> None:
        self._state = state
        self._keep_s = keep_s
        self.worker = worker
        self.held: dict[str, Delivery] = {}
        """By task id. One that the plugin has handed out again belongs to the newer delivery."""
        self._given: dict[str, PluginTask] = {}
        """By the delivery's token."""

    async def begin(self, task: Task, given: PluginTask) -> Delivery:
        """Take a task that the plugin has handed out, `given` as it came. Raises `BackendUnavailable`."""
        number = await self._add(task.id, _DELIVERED)
        before = await self._state.counters(_name(task.id)) if number > 1 else {}
        failed, released = before.get(_FAILED, 0), before.get(_RELEASED, 0)
        delivery = Delivery(
            task=_tried(task, failed),
            entry_id=task.id,
            token=secrets.token_hex(6),
            redeliveries=max(0, number - 1 - failed - released),
            first=number == 1,
            next_attempt=(number - 1) * ATTEMPTS_PER_DELIVERY,
            worker=self.worker,
        )
        if before_it := self.held.get(task.id):
            self._given.pop(before_it.token, None)
        self.held[task.id], self._given[delivery.token] = delivery, given
        return delivery

    def given(self, delivery: Delivery) -> PluginTask:
        """The task as the plugin handed it out: so it wants to hear of it again."""
        return self._given[delivery.token]

    def forget(self, delivery: Delivery) -> None:
        """It has ended."""
        self.held.pop(delivery.entry_id, None)
        self._given.pop(delivery.token, None)

    def is_held(self, delivery: Delivery) -> bool:
        """Whether it is still the latest delivery of its task here."""
        held = self.held.get(delivery.entry_id)
        return held is not None and held.token == delivery.token

    async def given_back(self, task_id: str, *, failed: bool) -> None:
        """A run has ended without a result. Raises `BackendUnavailable`."""
        await self._add(task_id, _FAILED if failed else _RELEASED)

    async def _add(self, task_id: str, field: str) -> int:
        return await self._state.add(_name(task_id), field, 1, ttl_s=self._keep_s) or 1


def _name(task_id: str) -> str:
    return f"swarm-deliveries/{task_id}"


def _tried(task: Task, failed: int) -> Task:
    return replace(task, attempt=failed) if failed else task
