"""One call for vectors, as budgets, rate limits and the usage ledger see it.

Providers do not tell what an embedding has used, so its tokens are estimated and the record says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from providers import AgentConfig, Message, ProviderError, RateLimited, TurnRequest
from providers.lexical_vectors import MODEL as LEXICAL
from providers.pricing import PriceBook
from providers.tool_loop import TurnRecord
from queue_backends import CallOutcome, Task, TokenUsage, UsageRecord
from worker.call_gates import ModelCallIntent
from worker.datasources.chunking import tokens_of

_UNNAMED = "(embedding)"


class Behalf(Struct, frozen=True, kw_only=True):
    """On whose account embeddings go."""

    task_id: str = ""
    """Empty: of no task."""
    call_id: str = ""
    """Within the task; a call that is repeated under the same id is counted once."""
    agent: str = ""
    tenant: str = ""
    session_id: str = ""
    team: str = ""
    role: str = ""


NOBODY = Behalf()


class EmbeddingCall(Struct, frozen=True, kw_only=True):
    """Some texts whose vectors a provider is asked for in one call."""

    id: str
    """Without its attempt."""
    task_id: str
    provider: str
    config: AgentConfig
    texts: Sequence[str]
    behalf: Behalf

    @property
    def is_free(self) -> bool:
        """Whether the vectors are made here, of the words alone."""
        return self.config.model == LEXICAL

    def intent(self, call_id: str) -> ModelCallIntent:
        """The call, as budgets and rate limits know calls: it has no output to speak of."""
        behalf = self.behalf
        config = replace(self.config, model=self.config.model or _UNNAMED, provider=self.provider, max_tokens=1)
        task = Task(id=self.task_id, prompt="-", agent=behalf.agent, tenant=behalf.tenant, session_id=behalf.session_id)
        said = tuple(Message.user(text) for text in self.texts)
        return ModelCallIntent(
            id=call_id,
            task=task,
            config=config,
            request=TurnRequest(config=config, messages=said, task_id=task.id, tenant=task.tenant),
            provider=self.provider,
            team=behalf.team,
            role=behalf.role,
        )

    def entry(self, call_id: str, started_at: float, outcome: CallOutcome, prices: PriceBook) -> UsageRecord:
        """What is written down of it, once it has ended."""
        cost_usd: float | None
        if outcome is CallOutcome.FAILED:
            usage, cost_usd = TokenUsage(), 0.0  # no vendor bills a call that was refused
        else:
            usage = TokenUsage(input_tokens=sum(map(tokens_of, self.texts)), output_tokens=0)
            cost_usd = 0.0 if self.is_free else prices.cost_usd(self.provider, self.config.model, usage)
        behalf = self.behalf
        return UsageRecord(
            id=call_id,
            task_id=self.task_id,
            provider=self.provider,
            model=self.config.model or _UNNAMED,
            usage=usage,
            outcome=outcome,
            started_at=started_at,
            duration_ms=round((time.time() - started_at) * 1000),
            cost_usd=cost_usd,
            estimated=True,
            agent=behalf.agent,
            tenant=behalf.tenant,
            session_id=behalf.session_id,
            team=behalf.team,
            role=behalf.role,
        )


def turn_of(entry: UsageRecord, failed: ProviderError | None) -> TurnRecord:
    """What gates want to know of a call that has ended."""
    return TurnRecord(
        turn=0,
        attempt=0,
        outcome=entry.outcome,
        usage=entry.usage,
        started_at=entry.started_at,
        duration_ms=entry.duration_ms,
        error="" if failed is None else str(failed),
        is_last=True,
        limits=None if failed is None else failed.limits,
        rate_limited=isinstance(failed, RateLimited),
        retry_after_s=None if failed is None else failed.retry_after_s,
    )
