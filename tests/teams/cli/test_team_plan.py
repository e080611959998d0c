"""What the flags of `shoal run` change in a plan."""

from __future__ import annotations

import pytest

from providers import AgentConfig
from worker.cli.team_plan import Wishes, needs_model, shaped
from worker.teams.plan import Plan, Role, Step, Team
from worker.tools.config import McpServer

ROLES = (
    Role(
        name="own", config=AgentConfig(model="gpt-4o", route="fast"), mcp_servers=(McpServer(name="m", url="http://x"),)
    ),
    Role(name="fleets", agent="support"),
    Role(name="played", config=AgentConfig(model="mock", provider="scripted")),
)
STEPS = (Step(name="a", role="own", model="o3"), Step(name="b", role="fleets"), Step(name="c", role="played"))
INNER = Team(name="inner", roles=(Role(name="x", config=AgentConfig(model="gpt-4o")),))
PLAN = Plan(name="outer", teams=(Team(name="outer", roles=ROLES, steps=STEPS, max_tokens=7), INNER))


def test_a_provider_is_everybodys() -> None:
    """Of each role, in the teams within too; of an agent of the fleet, in its step. Routes would lead elsewhere."""
    outer, inner = shaped(PLAN, Wishes(provider="mock")).teams
    assert [role.config.provider for role in (*outer.roles, *inner.roles)] == ["mock"] * 4
    assert outer.roles[0].config.route == ""
    assert [step.provider for step in outer.steps] == ["", "mock", ""]


def test_a_model_is_everybodys_and_really_asked() -> None:
    """A step's own model gives way, and a role that was only played is played no more."""
    outer, inner = shaped(PLAN, Wishes(model="claude-sonnet-4-5")).teams
    assert {role.config.model for role in (*outer.roles, *inner.roles)} == {"claude-sonnet-4-5"}
    assert outer.roles[2].config.provider == ""
    assert [step.model for step in outer.steps] == ["", "claude-sonnet-4-5", ""]


def test_limits_are_the_runs_alone() -> None:
    """A team within keeps its own."""
    outer, inner = shaped(PLAN, Wishes(max_tokens=100, timeout_s=5.0)).teams
    assert (outer.max_tokens, outer.timeout_s) == (100, 5.0)
    assert (inner.max_tokens, inner.timeout_s) == (0, 0.0)


def test_without_wishes_it_is_the_same_plan() -> None:
    """By its digest: no run of it differs from one that a trigger starts."""
    assert shaped(PLAN, Wishes()).digest == PLAN.digest
    assert shaped(PLAN, Wishes(no_mcp=True)).team.roles[0].mcp_servers == ()


@pytest.mark.parametrize(
    ("role", "needed"),
    [
        (Role(name="r"), True),
        (Role(name="r", agent="x"), False),
        (Role(name="r", team="x"), False),
        (Role(name="r", config=AgentConfig(model="m")), False),
        (Role(name="r", config=AgentConfig(model="", route="m")), False),
    ],
)
def test_who_needs_the_workers_own_model(role: Role, needed: bool) -> None:
    """Nothing is started, and nothing said, for a team that brings its models."""
    assert needs_model(Plan(name="t", teams=(Team(name="t", roles=(role,)),))) is needed
