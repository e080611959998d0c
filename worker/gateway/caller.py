"""Who asks, and what they may."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from msgspec import Struct


class Scope(enum.StrEnum):
    """What a caller may do. `admin` includes all others."""

    TASKS_READ = "tasks.read"
    """See tasks, their streams and results."""
    TASKS_WRITE = "tasks.write"
    """Submit, cancel and retry tasks."""
    AGENTS_USE = "agents.use"
    """Talk to agents: sessions, and the APIs of OpenAI and Anthropic."""
    APPROVALS_WRITE = "approvals.write"
    """Answer the questions that runs put to people."""
    OPS_READ = "ops.read"
    """See queues, workers, dead letters, usage, budgets and providers."""
    OPS_WRITE = "ops.write"
    """Drain workers, pause queues, requeue and purge dead letters."""
    ADMIN = "admin"
    """Declare agents, apps, models, data sources, plugins, groups and keys."""


class Caller(Struct, frozen=True, kw_only=True):
    """Whoever a request comes from."""

    id: str
    """Stable and unique: `key:<id>`, `oidc:<issuer>:<subject>`, or `local` without authentication."""
    name: str = ""
    scopes: frozenset[Scope] = frozenset()
    groups: frozenset[str] = frozenset()
    """Slugs of access groups."""
    tenant: str = ""
    """The namespace that it is bound to: it sees nothing of others. Empty: not bound, it sees all."""
    app: str = ""
    """Slug of the app whose key it used; then it may use only that app's models and agents."""
    expires_at: float | None = None
    """When its key or token is no longer good (Unix seconds); None: that is not known."""

    def may(self, scope: Scope) -> bool:
        """Whether it has a scope. What `ops.read` and `ops.write` open is about the whole fleet, and approvals are for
        people: an app's key has none of these, not even an admin's."""
        if self.app and scope in (Scope.OPS_READ, Scope.OPS_WRITE, Scope.APPROVALS_WRITE):
            return False
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def in_any_of(self, groups: Sequence[str]) -> bool:
        """Whether something with these access groups is open to it: none means everybody; an admin sees all."""
        return not groups or Scope.ADMIN in self.scopes or not self.groups.isdisjoint(groups)
