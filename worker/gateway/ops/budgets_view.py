"""Budgets for a page: each rule with its fullest accounts."""

from __future__ import annotations

from fnmatch import fnmatchcase

from msgspec import Struct
from msgspec.structs import replace

from queue_backends import StateStore
from worker.budgets.report import BudgetUse, budget_uses
from worker.budgets.rules import BudgetRule, Rules, Scope

MOST_ACCOUNTS = 50
"""Of each budget, the fullest ones."""


class BudgetView(Struct, frozen=True, kw_only=True):
    """One budget and what is used of it."""

    rule: BudgetRule
    accounts: list[BudgetUse]
    """The fullest first, at most `MOST_ACCOUNTS`."""
    accounts_in_all: int


class BudgetsView(Struct, frozen=True, kw_only=True):
    """All budgets in force, by name."""

    budgets: list[BudgetView]

    def for_tenant(self, tenant: str) -> BudgetsView:
        """What a caller of this tenant sees: its own accounts of budgets per tenant. An empty name sees all."""
        if not tenant:
            return self
        own = [
            replace(view, accounts=accounts, accounts_in_all=len(accounts))
            for view in self.budgets
            if view.rule.scope is Scope.TENANT and fnmatchcase(tenant, view.rule.match)
            for accounts in [[use for use in view.accounts if use.account == tenant]]
        ]
        return BudgetsView(budgets=own)


async def budgets_view(state: StateStore, rules: Rules, *, most_accounts: int = MOST_ACCOUNTS) -> BudgetsView:
    """Read all accounts. Raises `BackendUnavailable`."""
    uses: dict[str, list[BudgetUse]] = {name: [] for name in rules}
    for use in await budget_uses(state, rules):
        uses[use.budget].append(use)
    return BudgetsView(
        budgets=[
            BudgetView(rule=rules[name], accounts=uses[name][:most_accounts], accounts_in_all=len(uses[name]))
            for name in sorted(rules)
        ]
    )
