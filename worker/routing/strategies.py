"""In which order a route's targets are asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from providers.pricing import PriceBook
from queue_backends import TokenUsage
from worker.routing.route import Route, RouteTarget, Strategy
from worker.routing.target_state import TargetState, TargetStates

_SAMPLE = TokenUsage(input_tokens=3000, output_tokens=1000)
"""What prices are compared by: three times as much is read as is written."""


def ordered(route: Route, states: TargetStates, prices: PriceBook, key: str) -> list[RouteTarget]:
    """All targets, the one to ask first at the front. `key` is what shall get the same answer: a session, or a task."""
    targets = route.targets
    match route.strategy:
        case Strategy.ORDERED:
            return list(targets)
        case Strategy.WEIGHTED:
            return sorted(targets, key=lambda target: -_draw(key, target))
        case Strategy.CHEAPEST:
            return sorted(targets, key=lambda target: _price(prices, target))
        case Strategy.FASTEST:
            return _by_speed(targets, states)
        case Strategy.LEAST_BUSY:
            return sorted(targets, key=lambda target: _load(target, states.of(target)))


def _draw(key: str, target: RouteTarget) -> float:
    """Rendezvous hashing: each target draws a number for the key, and the highest wins as often as its weight says.
    When a target comes or goes, only those keys move that it wins or held."""
    if target.weight == 0:
        return -math.inf
    digest = hashlib.blake2b(f"{key}\0{target.name}".encode(), digest_size=8).digest()
    uniform = ((int.from_bytes(digest) >> 11) + 0.5) / 2**53  # never 0, never 1
    return target.weight / -math.log(uniform)


def _price(prices: PriceBook, target: RouteTarget) -> float:
    known = prices.cost_usd(target.provider, target.model, _SAMPLE)
    return math.inf if known is None else known


def _by_speed(targets: Sequence[RouteTarget], states: TargetStates) -> list[RouteTarget]:
    """What nobody has measured lately is tried, by one call at a time."""

    def latency(target: RouteTarget) -> float:
        state = states.of(target)
        known = state.latency_s
        if known is not None:
            return known
        return math.inf if state.in_flight else -1.0

    return sorted(targets, key=latency)


def _load(target: RouteTarget, state: TargetState) -> float:
    return math.inf if target.weight == 0 else state.in_flight / target.weight
