"""`approval` of steps and roles -> `Approval`."""

from __future__ import annotations

from typing import Any

from worker.teams.kinds.objects import Fields
from worker.teams.plan import Approval


def approval_of(found: Any) -> Approval | None:
    """An approval; None if none is wanted. `true` is one with the defaults."""
    if not isinstance(found, Fields):
        return Approval() if found else None
    return Approval(
        message=found.text("message"),
        timeout_s=float(found.get("timeoutSeconds", 86_400.0)),
        fallback=found.get("fallback", "reject"),
        webhook=found.text("webhook"),
        webhook_env=found.text("webhookEnv"),
    )
