"""What a model call costs.

List prices come from genai-prices (extra `prices`), whose data is inside the package: nothing is downloaded. A price is
compiled once per provider and model into plain numbers, because this runs after every model call. What is not known is
None, never zero: a model without a price keeps its token counts and is named in the log once.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from msgspec import Struct

from providers.listed_names import listed_names
from queue_backends import TokenUsage

UNPRICED_PROVIDERS = frozenset({"mock", "scripted", "ollama", "(route)"})
"""Providers whose models have no list price, so that its absence is not worth a line in the log."""

_CONDITIONAL_PRICE_TTL_S = 60.0
_CACHE_LIMIT = 4096

_log = structlog.get_logger(__name__)


class ModelPrice(Struct, frozen=True, kw_only=True):
    """What a model costs, in USD per million tokens. A cache or reasoning price of None: as the rest of its side."""

    input_usd: float
    output_usd: float
    cache_read_usd: float | None = None
    cache_write_usd: float | None = None
    reasoning_usd: float | None = None
    request_usd: float = 0.0
    """In USD per call, on top of its tokens."""

    def cost_usd(self, usage: TokenUsage) -> float | None:
        """The price of this usage; None if neither input nor output was reported."""
        fresh, output = usage.input_tokens, usage.output_tokens
        if fresh is None and output is None:
            return None
        fresh, output, usd = fresh or 0, output or 0, 0.0
        if self.cache_read_usd is not None and (part := usage.cache_read_tokens):
            fresh -= part
            usd += part * self.cache_read_usd
        if self.cache_write_usd is not None and (part := usage.cache_write_tokens):
            fresh -= part
            usd += part * self.cache_write_usd
        if self.reasoning_usd is not None and (part := usage.reasoning_tokens):
            output -= part
            usd += part * self.reasoning_usd
        usd += max(fresh, 0) * self.input_usd + max(output, 0) * self.output_usd
        return usd / 1e6 + self.request_usd


class _PriceList(Struct, frozen=True):
    """A model's prices by the size of its input. A tier's price counts for all tokens of a call above `tiers[i][0]`."""

    base: ModelPrice
    tiers: tuple[tuple[int, ModelPrice], ...] = ()
    valid_until: float = math.inf

    def cost_usd(self, usage: TokenUsage) -> float | None:
        for above_tokens, price in self.tiers:
            if (usage.input_tokens or 0) > above_tokens:
                return price.cost_usd(usage)
        return self.base.cost_usd(usage)


class PriceBook:
    """Prices by provider and model: the caller's own first, then the list prices.

    A key of `overrides` is a model (`my-model`) or, for one provider's, `provider/model`; both must match exactly.
    """

    __slots__ = ("_clock", "_known", "_overrides")

    def __init__(
        self, overrides: Mapping[str, ModelPrice] | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._overrides = dict(overrides or {})
        self._clock = clock
        self._known: dict[tuple[str, str], _PriceList | None] = {}

    def cost_usd(self, provider: str, model: str, usage: TokenUsage) -> float | None:
        """What a call with this usage costs, or None if the model's price or its token counts are not known."""
        try:
            prices = self._known[provider, model]
        except KeyError:
            prices = self._look_up(provider, model)
        if prices is None:
            return None
        if prices.valid_until != math.inf and self._clock() >= prices.valid_until:
            prices = self._look_up(provider, model)
            if prices is None:
                return None
        return prices.cost_usd(usage)

    def prepare(self, provider: str) -> None:
        """Load the list prices now, if calls of this provider have any: that takes 0.15 s, which an event loop with
        streams had better not spend at the end of the first of them. Blocks, may be called in a thread, raises nothing.
        """
        if provider not in UNPRICED_PROVIDERS:
            _snapshot()

    def _look_up(self, provider: str, model: str) -> _PriceList | None:
        own = self._overrides.get(f"{provider}/{model}") or self._overrides.get(model)
        prices = _PriceList(own) if own else _list_price(provider, model, self._clock())
        if prices is None and provider not in UNPRICED_PROVIDERS:
            _log.warning(
                "no price is known for this model: its tokens are counted, its cost is not",
                provider=provider,
                model=model,
            )
        if len(self._known) >= _CACHE_LIMIT:
            self._known.clear()
        self._known[provider, model] = prices
        return prices


def cost_usd(provider: str, model: str, usage: TokenUsage) -> float | None:
    """What a call costs by list price in USD, or None if the model's price or its token counts are not known."""
    return _list_book().cost_usd(provider, model, usage)


@functools.cache
def _list_book() -> PriceBook:
    return PriceBook()


@functools.cache
def _snapshot() -> Any:
    """genai-prices' bundled data, or None if the package is not installed, or not fit for use."""
    try:
        from genai_prices.data_snapshot import get_snapshot  # an optional extra, and 0.15 s to import

        return get_snapshot()
    except ImportError:
        _log.warning("genai-prices is not installed: costs stay unknown until you install shoal[prices]")
    except Exception as error:  # noqa: BLE001 - no worker or run may fail for want of prices, whatever is wrong with them
        _log.warning(
            "genai-prices does not work: costs stay unknown until you install another version", error=str(error)
        )
    return None


def _list_price(provider: str, model: str, now: float) -> _PriceList | None:
    if provider in UNPRICED_PROVIDERS or (snapshot := _snapshot()) is None:
        return None
    provider_id, model = listed_names(provider, model)
    try:
        _, found = snapshot.find_provider_model(model, None, provider_id, None)
    except LookupError:
        return None
    is_conditional = isinstance(found.prices, list)
    valid_until = now + _CONDITIONAL_PRICE_TTL_S if is_conditional else math.inf
    return _compile(found.get_prices(datetime.fromtimestamp(now, UTC)), valid_until)


def _compile(listed: Any, valid_until: float) -> _PriceList | None:
    if listed.input_mtok is None and listed.output_mtok is None:
        return None  # priced by the picture, the second or the request, which no TokenUsage tells
    keys = (listed.input_mtok, listed.output_mtok, listed.cache_read_mtok, listed.cache_write_mtok)
    starts = {tier.start for price in keys for tier in getattr(price, "tiers", ())}
    tiers = tuple((start, _model_price(listed, start + 1)) for start in sorted(starts, reverse=True))
    return _PriceList(_model_price(listed, 0), tiers, valid_until)


def _model_price(listed: Any, input_tokens: int) -> ModelPrice:
    """The flat prices that a call with so many input tokens pays."""
    return ModelPrice(
        input_usd=_flat(listed.input_mtok, input_tokens) or 0.0,
        output_usd=_flat(listed.output_mtok, input_tokens) or 0.0,
        cache_read_usd=_flat(listed.cache_read_mtok, input_tokens),
        cache_write_usd=_flat(listed.cache_write_mtok, input_tokens),
        reasoning_usd=_flat(listed.output_reasoning_mtok, input_tokens),
        request_usd=(_flat(listed.requests_kcount, input_tokens) or 0.0) / 1000,
    )


def _flat(price: Any, input_tokens: int) -> float | None:
    if price is None:
        return None
    flat = getattr(price, "base", price)
    for tier in getattr(price, "tiers", ()):  # in ascending order of `start`
        if input_tokens > tier.start:
            flat = tier.price
    return float(flat)
