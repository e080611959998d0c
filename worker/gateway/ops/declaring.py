"""How the operations under `/v1/ops` are declared: what reads needs `ops.read`, what changes something `ops.write`."""

from __future__ import annotations

from typing import Any

from worker.gateway.caller import Scope
from worker.gateway.operation import Handler, Operation

_TAG = "Ops"


def reading(path: str, handler: Handler, summary: str, **more: Any) -> Operation:
    """A GET; `more` are further fields of the operation."""
    return Operation(method="GET", path=path, handler=handler, summary=summary, scope=Scope.OPS_READ, tag=_TAG, **more)


def writing(path: str, handler: Handler, summary: str, **more: Any) -> Operation:
    """A POST; `more` are further fields of the operation."""
    return Operation(
        method="POST", path=path, handler=handler, summary=summary, scope=Scope.OPS_WRITE, tag=_TAG, **more
    )
