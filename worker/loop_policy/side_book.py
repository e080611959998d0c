"""The account of one model call beside a run's own turns: gated, journalled and paid for as they are."""

from __future__ import annotations

from msgspec.structs import replace

from providers import AgentConfig, LimitReached, TurnRequest
from providers.tool_loop import TurnRecord
from providers.turn_routing import Target
from queue_backends import Delivery, TokenUsage
from worker.journal import SIDE_TURNS
from worker.metrics import AgentMetrics
from worker.part_chunks import PartChunks
from worker.recall import Past
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.turn_book import TurnBook, billed


class SideBook(TurnBook):
    """The `LoopObserver` of such a call. What it spends is part of what the run spends."""

    __slots__ = ("_run", "_turn")

    def __init__(
        self,
        number: int,
        run: TurnBook,
        *,
        around: Surroundings,
        delivery: Delivery,
        config: AgentConfig,
        provider: str,
        chunks: ChunkWriter,
        metrics: AgentMetrics,
    ) -> None:
        self._turn = SIDE_TURNS + number
        self._run = run
        super().__init__(
            around, delivery, config, provider, PartChunks(chunks, self._turn), metrics, Past(has_entries=True)
        )
        self.budgets = run.budgets

    def goes_to(self, request: TurnRequest, target: Target) -> None:
        """Of a route."""
        super().goes_to(self._numbered(request), target)

    def speaks(self, request: TurnRequest) -> None:
        """Of two calls of a route."""
        super().speaks(self._numbered(request))

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """As the run's own; raises `LimitReached` if the run has used all the tokens that it may."""
        most, run = self._run.config.max_run_tokens, self._run
        if most is not None and run.usage.total_tokens >= most:
            raise LimitReached(f"the run has used {run.usage.total_tokens} of max_run_tokens {most}")
        await super().before_turn(self._numbered(request), run.usage)
        run.next_attempt = max(run.next_attempt, request.attempt + 1)

    async def after_turn(self, record: TurnRecord) -> None:
        """Nothing of the run ends with it: its answer is stored at once."""
        numbered = replace(record, turn=self._turn, is_last=False)
        before = self.cost_usd
        try:
            await super().after_turn(numbered)
        finally:
            is_priced = self.cost_usd is not None and before is not None
            self._run.charge(billed(record)[0], (self.cost_usd or 0.0) - (before or 0.0) if is_priced else None)

    def _numbered(self, request: TurnRequest) -> TurnRequest:
        return replace(request, turn=self._turn)
