"""`Notify`: who is told of what, and how. Source: SwarmNotify. Addresses and headers that are secrets stand in
environment variables, and the policy names those."""

from __future__ import annotations

import enum
from typing import Literal

from msgspec import Struct

DEFAULT_RATE_LIMIT_S = 300
MOST_CHANNELS = 20


class NotifyEvent(enum.StrEnum):
    """What a policy may tell of. The words are kubeswarm's; `TeamCancelled` is ours."""

    TEAM_SUCCEEDED = "TeamSucceeded"
    TEAM_FAILED = "TeamFailed"
    TEAM_TIMED_OUT = "TeamTimedOut"
    TEAM_CANCELLED = "TeamCancelled"
    BUDGET_WARNING = "BudgetWarning"
    BUDGET_EXCEEDED = "BudgetExceeded"
    DAILY_LIMIT_REACHED = "DailyLimitReached"
    AGENT_DEGRADED = "AgentDegraded"


OF_BUDGETS = frozenset({NotifyEvent.BUDGET_WARNING, NotifyEvent.BUDGET_EXCEEDED, NotifyEvent.DAILY_LIMIT_REACHED})


class Header(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A header of a webhook's requests."""

    name: str
    value: str = ""
    value_env: str = ""
    """Environment variable of the gateways with the value: it comes before `value`."""


class Channel(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where a notification goes: any webhook, or a Slack incoming webhook."""

    type: Literal["webhook", "slack"] = "webhook"
    url: str = ""
    """A webhook's address. Slack's is a secret: name its variable."""
    url_env: str = ""
    """Environment variable of the gateways with the address: it comes before `url`."""
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    headers: tuple[Header, ...] = ()
    template: str = ""
    """A Go template over the payload. `webhook`: the request's whole body; `slack`: the message's text. Empty: the
    payload as JSON; a text with title, facts and output."""


class Notify(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A notification policy as it is stored."""

    slug: str = ""
    """Its address: the document's `metadata.name`."""
    name: str = ""
    namespace: str = ""
    """Whose it is (a tenant); empty: everybody's."""
    description: str = ""
    on: tuple[NotifyEvent, ...] = ()
    """Empty: all events."""
    channels: tuple[Channel, ...] = ()
    rate_limit_s: int = DEFAULT_RATE_LIMIT_S
    """Least time between two notifications of the same team and event; 0: no limit."""
    is_for_all: bool = False
    """Whether it also tells of teams that do not name it (`notifyRef`), and of what belongs to no team."""
    is_active: bool = True

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or self.slug
