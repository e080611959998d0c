"""What is shown of a trigger: when it fired, when it will, what became of it."""

from __future__ import annotations

from msgspec import Struct

from worker.objects import Stored
from worker.teams.triggers.firing import Dispatch, Firing, FiringState
from worker.teams.triggers.ledger import FAILED, FIRED, SKIPPED, Ledger
from worker.teams.triggers.model import Trigger
from worker.teams.triggers.timetable import Timetable
from worker.teams.triggers.tokens import TriggerTokens

RECENT = 20
_LOOKED_AT = 200


class FiringView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A firing that is over."""

    id: str
    source: str
    fired_at: float
    """The tick, or the moment of what fired it. Unix seconds."""
    state: FiringState
    reason: str = ""
    """Why nothing was started."""
    targets: tuple[Dispatch, ...] = ()
    error: str = ""


class TriggerStatus(Struct, frozen=True, kw_only=True):
    """A trigger as it stands."""

    slug: str
    namespace: str
    type: str
    is_suspended: bool
    fired: int
    """How often it has fired."""
    skipped: int
    failed: int
    """Firings of which at least one target could not be run."""
    last_fired_at: float | None = None
    """Unix seconds, as the other ones."""
    next_fire_at: float | None = None
    """`cron` alone."""
    last_error: str = ""
    last_error_at: float | None = None
    webhook_path: str = ""
    has_token: bool | None = None
    """`webhook` alone: whether there is a token that opens it."""
    firings: tuple[FiringView, ...] = ()
    """The last ones, the newest first."""


async def status_of(
    stored: Stored[Trigger], ledger: Ledger, timetable: Timetable, tokens: TriggerTokens, *, now: float
) -> TriggerStatus:
    """What is known of a trigger. Raises `BackendUnavailable`."""
    trigger = stored.value
    where = (trigger.namespace, trigger.slug)
    counts = await ledger.counts(*where, stored.id)
    history = [each for each in await ledger.history(*where, limit=_LOOKED_AT) if each.object_id == stored.id]
    fired = next((each for each in history if each.state is FiringState.FIRED), None)
    failed = next((each for each in history if each.error), None)
    is_webhook = trigger.type == "webhook"
    return TriggerStatus(
        slug=trigger.slug,
        namespace=trigger.namespace,
        type=trigger.type,
        is_suspended=trigger.suspended,
        fired=counts.get(FIRED, 0),
        skipped=counts.get(SKIPPED, 0),
        failed=counts.get(FAILED, 0),
        last_fired_at=fired.fired_at if fired else None,
        next_fire_at=timetable.next_tick(stored, now),
        last_error=failed.error if failed else "",
        last_error_at=failed.fired_at if failed else None,
        webhook_path=webhook_path(trigger) if is_webhook else "",
        has_token=await tokens.has(stored) if is_webhook else None,
        firings=tuple(view_of(each) for each in history[:RECENT]),
    )


def webhook_path(trigger: Trigger) -> str:
    """Where a webhook is fired, on any gateway."""
    query = f"?namespace={trigger.namespace}" if trigger.namespace else ""
    return f"/v1/triggers/{trigger.slug}/fire{query}"


def view_of(firing: Firing) -> FiringView:
    """A firing as it is shown."""
    return FiringView(
        id=firing.id,
        source=firing.source,
        fired_at=firing.fired_at,
        state=firing.state,
        reason=firing.reason,
        targets=firing.dispatches,
        error=firing.error,
    )
