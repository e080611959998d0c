"""Costs agree with the price library, the caller's prices win, and what is not known is None and said once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from providers import pricing
from providers.pricing import ModelPrice, PriceBook, cost_usd
from queue_backends import TokenUsage

SIZES = (1000, 150_000, 300_000, 1_200_000)


@pytest.fixture
def forgotten_prices() -> Iterator[None]:
    """The price data is looked up afresh, before and after."""
    pricing._snapshot.cache_clear()
    yield
    pricing._snapshot.cache_clear()


def _usage(total: int) -> TokenUsage:
    return TokenUsage(
        input_tokens=total,
        output_tokens=total // 7,
        cache_read_tokens=total // 3,
        cache_write_tokens=total // 5,
        reasoning_tokens=total // 70,
    )


@pytest.mark.parametrize(
    "provider", ["anthropic", "openai", "google", "aws", "groq", "deepseek", "perplexity", "openrouter"]
)
def test_costs_equal_those_of_the_price_library(provider: str) -> None:
    """Our compiled prices give the library's total for every model and size, tiers, caches and reasoning included."""
    genai_prices = pytest.importorskip("genai_prices")
    from genai_prices.data_snapshot import get_snapshot

    # Given every model of a provider that is sold by the token
    listed = next(item for item in get_snapshot().providers if item.id == provider)
    book, compared = PriceBook(), 0
    for model in listed.models:
        for total in SIZES:
            usage = _usage(total)
            with capture_logs():
                ours = book.cost_usd(provider, model.id, usage)
            if ours is None:
                continue
            # When the library prices the same call
            theirs = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=total,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cache_read_tokens,
                    cache_write_tokens=usage.cache_write_tokens,
                    output_reasoning_tokens=usage.reasoning_tokens,
                ),
                model.id,
                provider_id=provider,
            )
            # Then both agree
            assert ours == pytest.approx(float(theirs.total_price), rel=1e-9, abs=1e-12), model.id
            compared += 1
    assert compared > 20


def test_a_cache_read_is_cheaper_than_fresh_input_and_a_cache_write_dearer() -> None:
    """Cached tokens are part of the input and pay their own price, not the input's price on top."""
    fresh = cost_usd("anthropic", "claude-sonnet-4-5", TokenUsage(input_tokens=1000, output_tokens=0))
    read = cost_usd(
        "anthropic", "claude-sonnet-4-5", TokenUsage(input_tokens=1000, output_tokens=0, cache_read_tokens=1000)
    )
    written = cost_usd(
        "anthropic", "claude-sonnet-4-5", TokenUsage(input_tokens=1000, output_tokens=0, cache_write_tokens=1000)
    )
    assert read is not None
    assert fresh is not None
    assert written is not None
    assert 0 < read < fresh < written


def test_an_unknown_model_has_no_cost_and_is_named_once() -> None:
    """A made-up price would be worse than none; one line in the log says which model it is."""
    book = PriceBook()
    with capture_logs() as lines:
        costs = [book.cost_usd("openai", "nobody-1", TokenUsage(input_tokens=5)) for _ in range(3)]
    assert costs == [None, None, None]
    assert [(line["provider"], line["model"]) for line in lines] == [("openai", "nobody-1")]


@pytest.mark.parametrize("provider", ["mock", "scripted", "ollama"])
def test_a_local_model_has_no_list_price_and_nothing_is_said(provider: str) -> None:
    """Nobody bills a local model, so its missing price is no news."""
    with capture_logs() as lines:
        assert PriceBook().cost_usd(provider, "gpt-4o", TokenUsage(input_tokens=5)) is None
    assert lines == []


def test_unknown_token_counts_have_no_cost() -> None:
    """None tokens cost None, while zero tokens cost zero."""
    assert cost_usd("openai", "gpt-4o", TokenUsage()) is None
    assert cost_usd("openai", "gpt-4o", TokenUsage(input_tokens=0, output_tokens=0)) == 0.0
    assert cost_usd("openai", "gpt-4o", TokenUsage(output_tokens=1_000_000)) == pytest.approx(10.0)


def test_own_prices_win_over_list_prices() -> None:
    """A contract's price replaces the list's, for one provider or for a model wherever it is served."""
    book = PriceBook(
        {
            "gpt-4o": ModelPrice(input_usd=1.0, output_usd=2.0),
            "azure/gpt-4o": ModelPrice(input_usd=10.0, output_usd=20.0, cache_read_usd=0.0, request_usd=0.5),
        }
    )
    usage = TokenUsage(input_tokens=1_000_000, output_tokens=500_000, cache_read_tokens=400_000)
    assert book.cost_usd("openai", "gpt-4o", usage) == pytest.approx(2.0)
    assert book.cost_usd("azure", "gpt-4o", usage) == pytest.approx(16.5)


def test_cache_parts_beyond_the_input_never_make_a_call_cheaper_than_nothing() -> None:
    """A vendor's odd counts cannot turn into a negative price."""
    price = ModelPrice(input_usd=1.0, output_usd=1.0, cache_read_usd=0.1)
    cost = price.cost_usd(TokenUsage(input_tokens=10, output_tokens=0, cache_read_tokens=1_000_000))
    assert cost == pytest.approx(0.1)


def test_a_price_that_changes_by_date_is_looked_up_again() -> None:
    """A model with dated prices follows the clock while the worker runs."""
    from genai_prices import types
    from genai_prices.data_snapshot import get_snapshot

    # Given a model whose price has a start date
    provider, model, start = next(
        (provider.id, model.id, price.constraint.start_date)
        for provider in get_snapshot().providers
        for model in provider.models
        if isinstance(model.prices, list) and model.prices[0].prices != model.prices[-1].prices
        for price in [model.prices[-1]]
        if isinstance(price.constraint, types.StartDateConstraint) and price.prices.input_mtok is not None
    )
    change = datetime.combine(start, time(), UTC).timestamp()
    now = [change - 3600.0]
    book, usage = PriceBook(clock=lambda: now[0]), TokenUsage(input_tokens=300_000, output_tokens=0)
    # When that date passes
    before = book.cost_usd(provider, model, usage)
    now[0] = change + 61.0
    # Then the next call pays the new price
    assert before is not None
    assert book.cost_usd(provider, model, usage) != before


@pytest.mark.usefixtures("forgotten_prices")
def test_without_the_price_library_costs_are_unknown_and_it_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage goes on without the optional package, and the log says which extra to install."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with capture_logs() as lines:
        assert PriceBook().cost_usd("openai", "gpt-4o", TokenUsage(input_tokens=5)) is None
        assert PriceBook().cost_usd("anthropic", "claude-sonnet-4-5", TokenUsage(input_tokens=5)) is None
    assert len([line for line in lines if "shoal[prices]" in line["event"]]) == 1


@pytest.mark.usefixtures("forgotten_prices")
def test_a_price_library_that_does_not_work_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker fails to start for it, and no run: costs are unknown, and the log says why."""

    def broken() -> None:
        raise TypeError("made for another pydantic")

    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", SimpleNamespace(get_snapshot=broken))
    with capture_logs() as lines:
        book = PriceBook()
        book.prepare("openai")
        assert book.cost_usd("openai", "gpt-4o", TokenUsage(input_tokens=5)) is None
    assert [line["error"] for line in lines if "genai-prices" in line["event"]] == ["made for another pydantic"]


def test_prices_can_be_loaded_before_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker loads them as it starts, and only where its provider has any."""
    loads: list[str] = []
    monkeypatch.setattr(pricing, "_snapshot", lambda: loads.append("list"))
    book = PriceBook()
    for provider in pricing.UNPRICED_PROVIDERS:
        book.prepare(provider)
    assert loads == []
    book.prepare("openai")
    assert loads == ["list"]
