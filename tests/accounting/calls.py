"""Model calls as gates see them."""

from __future__ import annotations

import time
from typing import Any

from providers import AgentConfig, Message, TurnRequest
from providers.tool_loop import TurnRecord
from queue_backends import CallOutcome, Task, TokenUsage, UsageRecord
from worker.call_gates import ModelCallIntent


def model_call(
    task_id: str = "t1",
    *,
    turn: int = 0,
    attempt: int = 0,
    prompt: str = "x" * 400,
    provider: str = "scripted",
    team: str = "",
    task: dict[str, Any] | None = None,
    **config: Any,
) -> ModelCallIntent:
    """A call that is about to be sent; `task` and `config` are further fields of its task and agent."""
    agent = AgentConfig(**{"model": "mock", "name": "writer", "max_tokens": 100, **config})
    return ModelCallIntent(
        id=f"{task_id}:{turn}:{attempt}",
        task=Task(id=task_id, prompt=prompt, **(task or {})),
        config=agent,
        request=TurnRequest(config=agent, messages=(Message.user(prompt),), turn=turn, attempt=attempt),
        provider=provider,
        team=team,
    )


def call_record(outcome: CallOutcome = CallOutcome.COMPLETED) -> TurnRecord:
    """How a call went."""
    return TurnRecord(turn=0, attempt=0, outcome=outcome, usage=TokenUsage(), started_at=time.time(), duration_ms=1)


def used(
    intent: ModelCallIntent,
    usage: TokenUsage,
    cost_usd: float | None = None,
    *,
    at: float | None = None,
    outcome: CallOutcome = CallOutcome.COMPLETED,
) -> UsageRecord:
    """What a call has used that has ended just now, or at a moment; as its run would write it down."""
    entry = UsageRecord(
        id=intent.id,
        task_id=intent.task.id,
        provider=intent.provider,
        model=intent.config.model,
        usage=usage,
        cost_usd=cost_usd,
        started_at=time.time() if at is None else at,
        duration_ms=0,
        outcome=outcome,
    )
    return intent.receipt.noted_in(entry)
