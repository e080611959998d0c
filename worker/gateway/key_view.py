"""A key as people see it, by CLI or HTTP."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from worker.gateway.caller import Scope
from worker.gateway.keys import ApiKey, ApiKeys
from worker.objects import Stored


class KeyView(Struct, frozen=True, kw_only=True):
    """A key as it is shown: never with its secret."""

    id: str
    name: str
    scopes: list[Scope]
    groups: list[str]
    tenant: str
    app: str
    state: str
    """`active`, `expired` or `revoked`."""
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None
    """To within some minutes."""
    requests_per_minute: int | None
    key: str | UnsetType = UNSET
    """What its owner sends; only in the answer to its creation, and never again."""


async def view_of(keys: ApiKeys, stored: Stored[ApiKey], *, secret: str = "") -> KeyView:
    """A key for showing. Raises `BackendUnavailable`."""
    key = stored.value
    shown: dict[str, Any] = {"key": secret} if secret else {}
    return KeyView(
        id=key.slug,
        name=key.name,
        scopes=list(key.scopes),
        groups=list(key.groups),
        tenant=key.tenant,
        app=key.app,
        state=keys.state_of(key),
        created_at=stored.created_at,
        created_by=key.created_by,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=await keys.last_used_at(key.slug),
        requests_per_minute=key.requests_per_minute,
        **shown,
    )
