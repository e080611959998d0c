"""Who may declare what: whose namespace, and of which kind."""

from __future__ import annotations

from typing import Any

from worker.gateway.caller import Caller
from worker.gateway.problem import Problem

_OPERATORS_OWN = {
    "app": "an app says which tools and models of the fleet may be used",
    "llm": "a model says where calls go, and with which key",
    "datasource": "a data source says where its texts go, and with which key",
    "team": "a team says which models its roles use, and which servers they call",
    "plugin": "a plugin is a program that workers start for everybody",
}


def namespace_for(caller: Caller, asked: str) -> str:
    """The namespace that a request is about. Raises `Problem` 403 for another one than the caller is bound to."""
    if caller.tenant and asked not in ("", caller.tenant):
        raise Problem(403, f"you are bound to the namespace {caller.tenant!r}", code="access_denied")
    return caller.tenant or asked


def check_may_declare(caller: Caller, kind: str) -> None:
    """Raise `Problem` 403 for kinds that are not a tenant's, or an app's, to declare."""
    if caller.app:
        raise Problem(403, f"this key belongs to app {caller.app!r}: it declares nothing", code="access_denied")
    if caller.tenant and kind in _OPERATORS_OWN:
        raise Problem(
            403,
            f"{_OPERATORS_OWN[kind]}: only an administrator of the whole fleet declares one",
            code="access_denied",
        )


def check_fenced(caller: Caller, value: Any) -> None:
    """Raise `Problem` 403 for an agent without an app where that would open the whole fleet to a tenant."""
    if caller.tenant and hasattr(value, "plugin") and not value.app:
        raise Problem(
            403,
            f"agent {value.slug!r} has no app: an agent of a namespace needs one, which says what it may use",
            code="access_denied",
        )
