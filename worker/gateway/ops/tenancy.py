"""What callers that are bound to a tenant may not do: whatever touches the others."""

from __future__ import annotations

from worker.gateway.operation import Call
from worker.gateway.problem import Problem


def refuse_tenants(call: Call, what: str) -> None:
    """Raise `Problem` 403 for a caller that is bound to a tenant."""
    if call.caller.tenant:
        raise Problem(
            403,
            f"{what} is about all tenants, and this caller is bound to {call.caller.tenant!r}: use a key that is not "
            "bound to one",
            code="tenant_bound",
        )
