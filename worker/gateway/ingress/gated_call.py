"""A model call of the gateway's own, which has to pass the fleet's budgets and rate limits like any other."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from providers import BudgetExceeded
from providers.tool_loop import TurnRecord
from queue_backends import UsageRecord
from worker.call_gates import CallGate, ModelCallIntent
from worker.errors import Postponed
from worker.gateway.ingress.failures import problem_of_failure
from worker.gateway.ingress.narration import Failed
from worker.gateway.problem import ErrorStyle, Problem


async def enter(gates: Sequence[CallGate], intent: ModelCallIntent) -> None:
    """Reserve what the call needs. Raises `Problem` 429 if there is no budget, or no room for it now."""
    entered: list[CallGate] = []
    try:
        for gate in gates:
            await gate.enter(intent)
            entered.append(gate)
    except BaseException as error:
        for gate in reversed(entered):
            gate.abandon(intent)
        if isinstance(error, BudgetExceeded):
            failed = Failed(message=str(error), error_type=BudgetExceeded.__name__)
            raise problem_of_failure(failed, ErrorStyle.OPENAI) from error
        if isinstance(error, Postponed):
            after = {"Retry-After": str(math.ceil(error.retry_in_s))}
            raise Problem(429, str(error), code="rate_limit_exceeded", headers=after) from error
        raise


async def leave(gates: Sequence[CallGate], intent: ModelCallIntent, record: TurnRecord, entry: UsageRecord) -> None:
    """The call has ended: settle what was reserved."""
    inside = list(gates)
    try:
        while inside:
            await inside[-1].leave(intent, record, entry)
            inside.pop()
    except asyncio.CancelledError:
        for gate in reversed(inside):
            gate.note(intent, record, entry)
        raise
