"""What flags of `shoal run` change in a team's plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from worker.teams.plan import Plan, Role, Step, Team

_PRETENDERS = ("mock", "scripted")


class Wishes(Struct, frozen=True, kw_only=True):
    """What shall differ from the file. Empty, 0: nothing."""

    provider: str = ""
    """For all model calls."""
    model: str = ""
    """For all model calls."""
    max_tokens: int = 0
    """Of the run."""
    timeout_s: float = 0.0
    """Of the run."""
    no_mcp: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Wishes:
        """Those that the command line has."""
        return cls(
            provider=options["provider"] or "",
            model=options["model"] or "",
            max_tokens=options["max_tokens"] or 0,
            timeout_s=options["timeout_s"] or 0.0,
            no_mcp=options["no_mcp"],
        )


def shaped(plan: Plan, wishes: Wishes) -> Plan:
    """The plan as the wishes have it. Limits are those of the run, not of the teams within it."""
    return replace(plan, teams=tuple(_team(team, wishes, is_run=team.name == plan.name) for team in plan.teams))


def _team(team: Team, wishes: Wishes, *, is_run: bool) -> Team:
    team = replace(
        team,
        roles=tuple(_role(role, wishes) for role in team.roles),
        steps=tuple(_step(step, team.role(step.role), wishes) for step in team.steps),
    )
    if is_run and wishes.max_tokens:
        team = replace(team, max_tokens=wishes.max_tokens)
    if is_run and wishes.timeout_s:
        team = replace(team, timeout_s=wishes.timeout_s)
    return team


def _role(role: Role, wishes: Wishes) -> Role:
    config = role.config
    if wishes.provider:
        config = replace(config, provider=wishes.provider, base_url="", api_key_env="")
    elif wishes.model and config.provider in _PRETENDERS:
        config = replace(config, provider="")  # whoever names a model wants its answers
    if wishes.model:
        config = replace(config, model=wishes.model)
    if wishes.provider or wishes.model:
        config = replace(config, route="")
    return replace(role, config=config, mcp_servers=() if wishes.no_mcp else role.mcp_servers)


def _step(step: Step, role: Role | None, wishes: Wishes) -> Step:
    """A role that is one of the fleet's agents has its model from there: what differs stands in the step."""
    is_fleets = role is not None and bool(role.agent)
    provider = wishes.provider if is_fleets and wishes.provider else "" if wishes.provider else step.provider
    model = wishes.model if is_fleets and wishes.model else "" if wishes.model else step.model
    return replace(step, provider=provider, model=model)


def needs_model(plan: Plan) -> bool:
    """Whether a role has no model of its own, and takes the worker's."""
    roles = [role for team in plan.teams for role in team.roles]
    return any(not (role.config.model or role.config.route or role.agent or role.team) for role in roles)
