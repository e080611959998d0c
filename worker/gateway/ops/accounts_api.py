"""Budgets and rate limits: what may be used, and what is."""

from __future__ import annotations

from worker.gateway.operation import Call, Operation
from worker.gateway.ops.budgets_view import BudgetsView
from worker.gateway.ops.declaring import reading
from worker.gateway.ops.limits_view import LimitsView


async def _budgets(call: Call) -> BudgetsView:
    return (await call.gateway.ops.budgets()).for_tenant(call.caller.tenant)


async def _limits(call: Call) -> LimitsView:
    return (await call.gateway.ops.limits()).for_tenant(call.caller.tenant)


OPERATIONS: tuple[Operation, ...] = (
    reading("/v1/ops/budgets", _budgets, "Budgets, what is used of them and what is reserved", result=BudgetsView),
    reading("/v1/ops/limits", _limits, "Rate limits and how much of them is used", result=LimitsView),
)
