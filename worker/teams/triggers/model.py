"""`Trigger`: what starts runs by itself, and which. Source: SwarmEvent and ArkEvent; `time_zone`,
`starting_deadline_s`, `token_env` and the policy `Replace` are ours."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

MOST_TARGETS = 20
"""Of one trigger. The number is kubeswarm's."""

SourceType = Literal["cron", "webhook", "team-output"]
"""ArkEvent's `pipeline-output` is `team-output`."""
ConcurrencyPolicy = Literal["Allow", "Forbid", "Replace"]
"""What happens when it fires while a run that it started has not ended: both run, the new one is left out, or the old
one is cancelled."""
OnPhase = Literal["Succeeded", "Failed", "Cancelled", "TimedOut", "Ended"]
"""`TimedOut` is a failure whose reason is the time limit (`Failed` means that one too); `Ended` is any end."""


class Target(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is run when the trigger fires: a team, or an agent with a prompt. Exactly one of the two is named."""

    team: str = ""
    """Name of a stored team. ArkEvent calls it `pipeline`."""
    agent: str = ""
    """Name of a stored team file's agent, or of an agent that the fleet has declared."""
    prompt: str = ""
    """For an agent: a template over `.trigger.name`, `.firedAt`, `.body` and `.output`."""
    input: dict[str, str] = {}
    """For a team: parameter -> template, as the prompt. They come before the team's own values."""


class Trigger(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A trigger as it is stored."""

    slug: str = ""
    """Its address: the document's `metadata.name`."""
    name: str = ""
    """For people; empty: the slug."""
    namespace: str = ""
    """Whose it is (a tenant); empty: everybody's. Not the Kubernetes namespace of the document."""
    description: str = ""
    type: SourceType = "cron"
    cron: str = ""
    """`cron`: five fields (minute, hour, day of month, month, weekday) or `@hourly`, `@daily`, …"""
    time_zone: str = "UTC"
    """`cron`: IANA name, such as `Europe/Berlin`."""
    starting_deadline_s: float = 3600.0
    """`cron`: a tick that nobody could fire in time is made up for at most so much later."""
    token_env: str = ""
    """`webhook`: environment variable of the gateways that holds the token; empty: `shoal trigger token` makes one."""
    watched_team: str = ""
    """`team-output`: the team whose runs are watched."""
    on_phase: OnPhase = "Succeeded"
    """`team-output`: how they have to end."""
    targets: tuple[Target, ...] = ()
    concurrency: ConcurrencyPolicy = "Allow"
    suspended: bool = False

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or self.slug
