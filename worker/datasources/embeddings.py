"""Vectors of texts, from any provider: in batches, a few at once, repeated where that helps, within budgets and rate
limits, and accounted.

Each call to a provider leaves one usage record.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterator, Sequence

import providers
from providers import AgentConfig, Embedder, LLMProvider, ProviderError, RateLimited
from providers.lexical_vectors import MODEL as LEXICAL
from providers.pricing import PriceBook
from providers.retry import RetryPolicy
from queue_backends import CallOutcome, StateStore
from worker.call_gates import CallGate
from worker.datasources.chunking import tokens_of
from worker.datasources.embedding_call import NOBODY, Behalf, EmbeddingCall, turn_of
from worker.datasources.model import Datasource
from worker.errors import Postponed
from worker.gate_row import enter_all, leave_all, now_active
from worker.providers_in_use import ProvidersInUse
from worker.usage import UsageLedger

MOST_TEXTS = 96
MOST_TOKENS = 60_000
"""In one call."""
AT_ONCE = 4
"""Calls of this process for all its data sources."""
CALL_LIMIT_S = 120.0
_RETRIES = RetryPolicy(max_retries=3, base_s=0.5, cap_s=10.0, longest_wait_s=60.0)
_OFFLINE = "scripted"


class Embeddings:
    """Makes vectors with the providers of this process."""

    def __init__(
        self,
        providers_in_use: ProvidersInUse,
        state: StateStore,
        ledger: UsageLedger,
        prices: PriceBook | None = None,
        gates: Sequence[CallGate] = (),
    ) -> None:
        """`gates`: budgets and rate limits; calls that cost nothing pass none."""
        self._providers = providers_in_use
        self._state = state
        self._ledger = ledger
        self._prices = prices or PriceBook()
        self._gates = gates
        self._room = asyncio.Semaphore(AT_ONCE)

    def made_by(self, source: Datasource) -> str:
        """What makes the vectors of a data source: two that differ cannot be compared."""
        config = config_of(source)
        options = f" {sorted(source.embed_options.items())}" if source.embed_options else ""
        return f"{self._providers.name_of(config)}/{source.embed_model}{options}"

    async def embed(self, source: Datasource, texts: Sequence[str], behalf: Behalf = NOBODY) -> list[list[float]]:
        """One vector per text, in order.

        Raises a `ProviderError` (`InvalidRequest` if the provider has no embeddings, `BudgetExceeded`, `RateLimited`),
        `BackendUnavailable`.
        """
        config = config_of(source)
        base = behalf.task_id or f"embedding-{uuid.uuid4().hex}"
        async with self._providers.lease(config) as provider:
            embedder = _embedder(provider)
            batches = [
                EmbeddingCall(
                    id=f"{base}:embed-{behalf.call_id or 'documents'}-{number}",
                    task_id=base,
                    provider=provider.name,
                    config=config,
                    texts=batch,
                    behalf=behalf,
                )
                for number, batch in enumerate(_batches(texts))
            ]
            try:
                async with asyncio.TaskGroup() as group:
                    asked = [group.create_task(self._vectors(embedder, batch), name="embed") for batch in batches]
            except BaseExceptionGroup as errors:
                raise _first_of(errors) from None
        return [vector for task in asked for vector in task.result()]

    async def _vectors(self, embedder: Embedder, batch: EmbeddingCall) -> list[list[float]]:
        for attempt in range(_RETRIES.max_retries + 1):
            failed: ProviderError
            try:
                return await self._call(embedder, batch, f"{batch.id}:{attempt}")
            except Postponed as error:  # nothing was sent
                failed = RateLimited(str(error), provider=batch.provider, retry_after_s=error.retry_in_s)
            except ProviderError as error:
                failed = error
            wait_s = _RETRIES.wait_s(attempt, failed.retry_after_s, random.random) if failed.retryable else None
            if wait_s is None:
                raise failed
            await asyncio.sleep(wait_s)
        raise failed

    async def _call(self, embedder: Embedder, batch: EmbeddingCall, call_id: str) -> list[list[float]]:
        gates = () if batch.is_free else now_active(self._gates)
        intent = batch.intent(call_id)
        async with self._room:
            await enter_all(gates, intent)
            started_at, outcome, failed = time.time(), CallOutcome.FAILED, None
            try:
                vectors = await _bounded(embedder, batch.provider, batch.config, batch.texts)
                outcome = CallOutcome.COMPLETED
            except asyncio.CancelledError:
                outcome = CallOutcome.CANCELLED
                raise
            except ProviderError as error:
                failed = error
                raise
            finally:
                entry = intent.receipt.noted_in(batch.entry(call_id, started_at, outcome, self._prices))
                await leave_all(gates, intent, turn_of(entry, failed), entry)
                await self._state.append_once([self._ledger.log_record(entry)])
        return vectors


def config_of(source: Datasource) -> AgentConfig:
    """How a provider is asked for the vectors of a data source."""
    options = dict(source.embed_options)
    if source.embed_model:
        options["embedding_model"] = source.embed_model
    provider = source.embed_provider
    if source.embed_model == LEXICAL and not provider:
        provider = _OFFLINE
    elif not provider and source.embed_model:
        provider = providers.detect(source.embed_model, "")
    return AgentConfig(
        model=source.embed_model,
        provider=provider,
        base_url=source.embed_base_url,
        api_key_env=source.embed_api_key_env,
        options=options,
    )


async def _bounded(embedder: Embedder, name: str, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
    limit = asyncio.timeout(CALL_LIMIT_S)
    try:
        async with limit:
            vectors = await embedder.embed(config, texts)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise providers.ProviderTimeout(
            f"{name} gave no embeddings within {CALL_LIMIT_S:g} s", provider=name
        ) from error
    if len(vectors) != len(texts):
        raise providers.BadResponse(f"{name}: {len(vectors)} vectors came for {len(texts)} texts", provider=name)
    return vectors


def _embedder(provider: LLMProvider) -> Embedder:
    if not isinstance(provider, Embedder):
        raise providers.InvalidRequest(
            f"provider {provider.name} has no embeddings: use another one for the data source", provider=provider.name
        )
    return provider


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    tokens = 0
    for text in texts:
        size = tokens_of(text)
        if batch and (len(batch) >= MOST_TEXTS or tokens + size > MOST_TOKENS):
            yield batch
            batch, tokens = [], 0
        batch.append(text)
        tokens += size
    if batch:
        yield batch


def _first_of(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
