"""A tenant's id on the wire is a UUID5 of its name."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("f9f3a4d4-2c64-5b9e-9e25-8a8b6f6f6f6f")


def tenant_id(slug: str) -> str:
    """The id of the tenant of that name: `acme` is `824a1531-d24a-549c-8003-23b0f2d206cd`. An id stays itself, and the
    tenant without a name has none."""
    text = slug.strip().lower()
    if not text or _is_uuid(text):
        return text
    return str(uuid.uuid5(_NAMESPACE, f"tenant:{text}"))


DEFAULT_TENANT = "default"
"""The SDKs want a name: a plugin of this one serves everybody."""


def may_meet(one: str, other: str) -> bool:
    """Whether two tenants' ids are not in contradiction: one that is empty stands for everybody's."""
    return not one or not other or one == other


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


DEFAULT_TENANT_ID = tenant_id(DEFAULT_TENANT)
