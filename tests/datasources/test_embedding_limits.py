"""Vectors are made within the fleet's budgets and rate limits, like everything that a model is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from providers import RateLimited
from providers.pricing import PriceBook
from providers.retry import RetryPolicy
from providers.transport import Transport
from queue_backends import CallOutcome, open_backend
from tests.datasources.harness import Process, enter
from worker.budgets.report import budget_uses
from worker.budgets.rules import read_rules
from worker.call_estimates import CallEstimates
from worker.datasources.documents import Document
from worker.datasources.embedding_call import Behalf
from worker.datasources.errors import IngestFailed, QueryFailed
from worker.datasources.model import Datasource
from worker.gates import open_gates
from worker.live_settings import LiveSettings
from worker.metrics import Metrics
from worker.rate_limits.rules import read_limits
from worker.settings import Settings
from worker.usage import UsageReport

LONG = "mice and cheese " * 50
ACME = Behalf(task_id="t1", call_id="c1", agent="helper", tenant="acme")


@asynccontextmanager
async def process(**sections: Any) -> AsyncIterator[Process]:
    """One with data source `notes`, whose vectors cost something, and `words`, whose vectors do not."""
    settings = Settings(
        budgets=read_rules(sections.get("budgets", {})),
        limits=read_limits(sections.get("limits", {})),
        limit_wait_s=0.01,
    )
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend("memory://"))
        live = await stack.enter_async_context(LiveSettings(backend.state))
        http = Transport()
        stack.push_async_callback(http.aclose)
        gates = await stack.enter_async_context(
            open_gates(
                settings,
                backend.state,
                live,
                http,
                prices=PriceBook(),
                estimates=CallEstimates(),
                metrics=Metrics(),
            )
        )
        here = await enter(stack, backend, gates)
        for slug, model in (("notes", "embed-1"), ("words", "lexical")):
            await here.definitions.datasources.create(
                Datasource(slug=slug, embed_provider="scripted", embed_model=model)
            )
        yield here


async def test_a_question_is_charged_to_its_tenants_budget() -> None:
    """What it used is on the account, under the name of the provider and its model."""
    budgets = {"acme": {"scope": "tenant", "tokens": 1000, "where": {"model": "embed-*", "provider": "scripted"}}}
    async with process(budgets=budgets) as here:
        await here.datasources.query("notes", "mice", behalf=ACME)
        [record] = await UsageReport(here.backend.state).recent()
        [use] = await budget_uses(here.backend.state, read_rules(budgets))
        assert (use.account, use.tokens_used) == ("acme", record.usage.total_tokens)


async def test_without_budget_nothing_is_asked() -> None:
    """The first question uses it up; the next one is refused before it is sent, with the budget's own words. Vectors
    that are made of the words alone go on."""
    async with process(budgets={"acme": {"scope": "tenant", "tokens": 2}}) as here:
        await here.datasources.query("notes", LONG, behalf=ACME)
        with pytest.raises(QueryFailed, match='budget "acme" of tenant acme is used up') as refused:
            await here.datasources.query("notes", "mice", behalf=ACME)
        assert not refused.value.retryable
        assert len(here.provider.asked) == 1
        await here.datasources.query("words", "mice", behalf=ACME)
        await here.datasources.query("notes", "mice")


async def test_documents_wait_until_there_is_room() -> None:
    """One call fits at a time: the others are postponed, come again, and are all made."""
    async with process(limits={"slow": {"requests_per_min": 1200, "burst_s": 0.05}}) as here:
        for number in range(3):
            await here.datasources.ingest("notes", [Document(id=str(number), text=LONG)])
        assert len(here.provider.asked) == 3


async def test_without_room_for_long_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """As something that may be repeated. No call is sent, and no record written; the limit is named."""
    monkeypatch.setattr("worker.datasources.embeddings._RETRIES", RetryPolicy(longest_wait_s=0.0))
    async with process(limits={"slow": {"requests_per_min": 1, "burst_s": 60}}) as here:
        await here.datasources.ingest("notes", [Document(id="1", text=LONG)])
        with pytest.raises(IngestFailed, match="slow") as refused:
            await here.datasources.ingest("notes", [Document(id="2", text=LONG)])
        assert refused.value.retryable
        assert len(here.provider.asked) == 1
        assert len(await UsageReport(here.backend.state).recent()) == 1


async def test_a_refusal_by_the_vendor_is_told_to_the_fleet() -> None:
    """It is repeated by us alone, and leaves a record that costs nothing; the reservation is given back."""
    async with process(budgets={"all": {"scope": "fleet", "tokens": 10_000}}) as here:
        here.provider.failures.append(RateLimited("slow down", provider="scripted", retry_after_s=0.0))
        await here.datasources.query("notes", "mice", behalf=ACME)
        records = await UsageReport(here.backend.state).recent()
        assert sorted(record.outcome for record in records) == [CallOutcome.COMPLETED, CallOutcome.FAILED]
        [use] = await budget_uses(here.backend.state, read_rules({"all": {"scope": "fleet", "tokens": 10_000}}))
        assert use.tokens_used == sum(record.usage.total_tokens for record in records)
