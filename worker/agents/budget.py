"""Agents' own budgets: the rule that an agent object has is one of the fleet's budgets, about that agent alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import structlog
from msgspec.structs import replace

from worker.agents.model import Agent
from worker.budgets.rules import BudgetRule, Scope, read_rule
from worker.errors import BadSetting

_GIVEN_BY_AGENT = ("scope", "match", "name", "except_tenants")

log = structlog.get_logger(__name__)


def rule_name(agent: Agent) -> str:
    """The name of an agent's rule among the budgets: `agent/<slug>`, or `agent/<namespace>/<slug>`."""
    return "/".join(filter(None, ("agent", agent.namespace, agent.slug)))


def budget_rule(agent: Agent) -> BudgetRule | None:
    """The rule that an agent's `budget` is; None if it has none. Raises `BadSetting`."""
    if not agent.budget:
        return None
    if own := [name for name in _GIVEN_BY_AGENT if name in agent.budget]:
        raise BadSetting(f"budget: {', '.join(own)}: leave it out, the budget is about this agent alone")
    where = agent.budget.get("where", {})
    if isinstance(where, Mapping) and not where.keys().isdisjoint({"agent", "tenant"}):
        raise BadSetting("budget.where: leave out agent and tenant, the budget is about this agent alone")
    try:
        rule = read_rule("agent", {**agent.budget, "scope": Scope.AGENT, "match": agent.slug})
    except BadSetting as error:
        raise BadSetting(str(error).replace("budgets.agent", "budget", 1)) from error
    if agent.namespace:
        rule = replace(rule, where={**rule.where, "tenant": agent.namespace})
    return replace(rule, name=rule_name(agent))


def budget_rules(agents: Iterable[Agent]) -> dict[str, BudgetRule]:
    """The rules of all agents that have one. What everybody's agent may spend is not spent by a namespace's own agent
    of the same slug."""
    agents = list(agents)
    own: dict[str, list[str]] = {}
    for agent in agents:
        if agent.namespace:
            own.setdefault(agent.slug, []).append(agent.namespace)
    rules: dict[str, BudgetRule] = {}
    for agent in agents:
        try:
            rule = budget_rule(agent)
        except BadSetting as error:
            log.warning("an agent's budget cannot be read and is not kept", agent=agent.slug, error=str(error))
            continue
        if rule is not None:
            others = () if agent.namespace else tuple(sorted(own.get(agent.slug, ())))
            rules[rule.name] = replace(rule, except_tenants=others)
    return rules
