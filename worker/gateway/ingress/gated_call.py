"""A model call of the gateway's own, which has to pass the fleet's budgets and rate limits like any other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from providers import BudgetExceeded
from worker.call_gates import CallGate, ModelCallIntent
from worker.errors import Postponed
from worker.gate_row import enter_all
from worker.gateway.ingress.failures import problem_of_failure
from worker.gateway.ingress.narration import Failed
from worker.gateway.problem import ErrorStyle, Problem


async def enter(gates: Sequence[CallGate], intent: ModelCallIntent) -> None:
    """Reserve what the call needs. Raises `Problem` 429 if there is no budget, or no room for it now."""
    try:
        await enter_all(gates, intent)
    except BudgetExceeded as error:
        failed = Failed(message=str(error), error_type=BudgetExceeded.__name__)
        raise problem_of_failure(failed, ErrorStyle.OPENAI) from error
    except Postponed as error:
        after = {"Retry-After": str(math.ceil(error.retry_in_s))}
        raise Problem(429, str(error), code="rate_limit_exceeded", headers=after) from error
