"""What a team and its roles may use in any 24 hours, as budgets of the fleet: all runs of the team count together."""

from __future__ import annotations

import functools
import hashlib

from worker.budgets.rules import TEAM_PREFIX, BudgetRule, Period, Scope
from worker.teams.plan import Role, Team

_LONGEST_NAME_CHARS = 100


def team_budgets(team: Team | None, role: Role | None, tenant: str) -> tuple[BudgetRule, ...]:
    """The budgets that a task of this role is charged to, beside the fleet's own. The role's is named
    `team/<team>/<role>`, the team's `team/<team>`, with the tenant in between if there is one."""
    if team is None or role is None or not (team.max_daily_tokens or role.daily_tokens):
        return ()
    return _rules(team.name, team.max_daily_tokens, role.name, role.daily_tokens, tenant)


@functools.lru_cache(maxsize=1000)
def _rules(team: str, team_tokens: int, role: str, role_tokens: int, tenant: str) -> tuple[BudgetRule, ...]:
    found = []
    if team_tokens:
        found.append(_rule(team_tokens, tenant, team))
    if role_tokens:
        found.append(_rule(role_tokens, tenant, team, role))
    return tuple(found)


def _rule(tokens: int, *names: str) -> BudgetRule:
    name = TEAM_PREFIX + "/".join(each.replace(":", "_") for each in names if each)
    if len(name) > _LONGEST_NAME_CHARS:
        digest = hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:16]
        name = f"{name[: _LONGEST_NAME_CHARS - 17]}…{digest}"
    return BudgetRule(name=name, scope=Scope.TEAM, period=Period.DAY, tokens=tokens)
