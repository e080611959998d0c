"""Notifications: what the rest of the program tells them, and what is shown of them."""

from __future__ import annotations

import secrets
import time

from msgspec import Struct

from queue_backends import StateStore
from worker.budgets.warning import BudgetWarning
from worker.objects import Stored
from worker.teams.notify.degradation import Degradation
from worker.teams.notify.model import Notify, NotifyEvent
from worker.teams.notify.outbox import Happening, Message, Outbox, happening_id
from worker.teams.notify.payload import (
    NotifyPayload,
    event_of,
    payload_of_budget,
    payload_of_degradation,
    payload_of_run,
)
from worker.teams.runs import Run
from worker.teams.triggers.firing import rfc3339

_LOOKED_AT = 500
_SAME_S = 60.0
"""What several processes find within this time is one happening."""


class DispatchView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the last message to a channel."""

    channel: int
    """Its index in the policy."""
    type: str
    event: str = ""
    """Empty: nothing has been sent yet."""
    team: str = ""
    run: str = ""
    succeeded: bool = False
    tries: int = 0
    status: int | None = None
    """HTTP status of the last answer."""
    error: str = ""
    at: float | None = None
    """Unix seconds."""


class Notifications:
    """Tells of runs, budgets and agents. It only writes down; a gateway delivers."""

    def __init__(self, state: StateStore) -> None:
        self.outbox = Outbox(state)

    async def on_run_end(self, run: Run) -> None:
        """A run has ended. Telling it again does nothing more. Raises `BackendUnavailable`."""
        event = event_of(run.state)
        await self.outbox.put(
            Happening(
                id=happening_id("run", run.header.id),
                payload=payload_of_run(run, event),
                policy=run.plan.find(run.header.team).notify,
            )
        )

    async def on_budget(self, warning: BudgetWarning) -> None:
        """A budget has reached its soft limit, or its limit: a hook for `BudgetGate`. Raises `BackendUnavailable`."""
        now = time.time()
        await self.outbox.put(
            Happening(
                id=happening_id("budget", warning.budget, warning.account, str(now), secrets.token_hex(4)),
                payload=payload_of_budget(warning, now),
            )
        )

    async def on_degraded(self, what: Degradation) -> None:
        """An agent lacks what it needs. Each worker of a fleet may say so. Raises `BackendUnavailable`."""
        now = time.time()
        when = str(int(now // _SAME_S))
        await self.outbox.put(
            Happening(
                id=happening_id("degraded", what.tenant, what.agent, what.cause, when),
                payload=payload_of_degradation(what, now),
                policy=what.policy,
            )
        )

    async def test(self, stored: Stored[Notify]) -> None:
        """Send a message to all channels of a policy, to see whether they work. Raises `BackendUnavailable`."""
        policy = stored.value
        payload = NotifyPayload(
            event=NotifyEvent.TEAM_FAILED,
            team="test-team",
            namespace=policy.namespace,
            phase="Failed",
            run_name="test-run",
            message=f"This is a test of notification policy {policy.slug!r}",
            timestamp=rfc3339(time.time()),
        )
        number = happening_id("test", policy.namespace, policy.slug, secrets.token_hex(8))
        await self.outbox.put(Happening(id=number, payload=payload, policy=policy.slug, is_test=True))

    async def dispatches(self, stored: Stored[Notify]) -> tuple[DispatchView, ...]:
        """What became of the last message to each channel of a policy. Raises `BackendUnavailable`."""
        policy = stored.value
        last: dict[int, Message] = {}
        for message in await self.outbox.history(policy.namespace, policy.slug, limit=_LOOKED_AT):
            if message.object_id == stored.id:
                last.setdefault(message.index, message)
        return tuple(_view(index, channel.type, last.get(index)) for index, channel in enumerate(policy.channels))


def _view(index: int, kind: str, message: Message | None) -> DispatchView:
    if message is None:
        return DispatchView(channel=index, type=kind)
    return DispatchView(
        channel=index,
        type=kind,
        event=message.payload.event.value,
        team=message.payload.team,
        run=message.payload.run_name,
        succeeded=message.state == "delivered",
        tries=message.tries,
        status=message.last_status,
        error=message.last_error,
        at=message.last_tried_at,
    )
