"""What a route is, as operators write it: targets in an order or with weights, and how to choose among them."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import providers
from providers import AgentConfig, Thinking
from queue_backends.messages import JsonObject
from worker.errors import BadSetting

MOST_ROUTES = 1000
MOST_TARGETS = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_FORM = '{"targets": [{"provider": "anthropic", "model": "claude-sonnet-4-5"}, {"model": "gpt-4o"}]}'


class Strategy(enum.StrEnum):
    """Which target is asked first; the others follow in the order that it gives them."""

    ORDERED = "ordered"
    """As they are written."""
    WEIGHTED = "weighted"
    """By their weights: the same one for all runs of a session, in all workers."""
    CHEAPEST = "cheapest"
    """By price; what has no known price comes last."""
    FASTEST = "fastest"
    """By the time to the first chunk, as this worker has lately seen it."""
    LEAST_BUSY = "least_busy"
    """By the calls that this worker has under way there, in proportion to the weights."""


class RouteTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One place where a call may go. What it leaves open is the agent's own; but for `base_url`, `api_key_env` and
    `options`, which belong to the agent's own model."""

    model: str
    provider: str = ""
    """Registry name; empty: found from the model's name."""
    name: str = ""
    """In chunks, metrics and errors; empty: `provider/model`."""
    base_url: str = ""
    api_key_env: str = ""
    options: JsonObject = {}
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    thinking: Thinking | None = None
    connect_timeout_s: float | None = None
    first_event_timeout_s: float | None = None
    idle_timeout_s: float | None = None
    max_retries: int | None = None
    weight: float = 1.0
    """Its share of the calls, for `weighted` and `least_busy`. 0: only when others fail."""
    max_context: int | None = None
    """Tokens of its window; None: as is known of the model."""

    def config_for(self, agent: AgentConfig) -> AgentConfig:
        """The agent's configuration for a call to this target."""
        own = {name: value for name in _OVERRIDES if (value := getattr(self, name)) is not None}
        return replace(
            agent,
            provider=self.provider,
            model=self.model,
            base_url=self.base_url,
            api_key_env=self.api_key_env,
            options=self.options,
            **own,
        )

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What its health goes by: targets of several routes that are the same place share a circuit."""
        return self.provider, self.model, self.base_url, self.api_key_env


_OVERRIDES = (
    "max_tokens",
    "temperature",
    "top_p",
    "thinking",
    "connect_timeout_s",
    "first_event_timeout_s",
    "idle_timeout_s",
    "max_retries",
)


class BreakerPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a target's circuit opens, so that no call is tried there, and when one is tried again."""

    failures: int = 5
    """So many calls in a row have failed."""
    error_rate: float = 0.5
    """Or this share of the calls of the last `window_s`, if there were at least `min_calls`."""
    min_calls: int = 20
    window_s: float = 60.0
    open_s: float = 15.0
    """Then no call goes there for so long; after that one is tried, and each time it fails the wait doubles."""
    most_open_s: float = 120.0


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named set of targets."""

    targets: tuple[RouteTarget, ...]
    strategy: Strategy = Strategy.ORDERED
    hedge_after_s: float | None = None
    """When a call has said nothing for so long, the next target is called too; the first to speak wins."""
    sticky_s: float = 600.0
    """So long after its last run a session goes on where it was, for the vendor's cache. 0: only within a run."""
    retry_wait_s: float = 2.0
    """A vendor that wants a longer wait before a request is repeated is left for the next target at once."""
    breaker: BreakerPolicy = BreakerPolicy()
    name: str = ""


def read_route(name: str, value: Any) -> Route:
    """A route from plain values, as in `shoal.yaml` or the JSON of a live setting. A list stands for its targets, and
    a text in it for a model.

    Raises `BadSetting`: one line with the route's name, what is wrong and what is allowed.
    """
    where = f"routes.{name}"
    if not _NAME.fullmatch(name):
        raise BadSetting(f"routes: {name[:100]!r} is no route's name: use letters, digits, _, - and ., at most 100")
    if isinstance(value, Route):
        value = msgspec.to_builtins(value)
    if isinstance(value, list | tuple):
        value = {"targets": value}
    if not isinstance(value, Mapping):
        raise BadSetting(f"{where}: expected a list of targets, or keys such as {_FORM}, got {type(value).__name__}")
    listed = value.get("targets")
    if isinstance(listed, list | tuple):
        value = {**value, "targets": [_spelled_out(f"{where}.targets[{n}]", item) for n, item in enumerate(listed)]}
    try:
        route = msgspec.convert({**value, "name": name}, Route, strict=False)
    except msgspec.ValidationError as error:
        raise BadSetting(f"{where}: {error}; it looks like {_FORM}") from error
    route = replace(route, targets=tuple(_named(target) for target in route.targets))
    _check(where, route)
    return route


def read_routes(values: Any) -> dict[str, Route]:
    """All routes of a `routes:` section. Raises `BadSetting`."""
    if not isinstance(values, Mapping):
        raise BadSetting(f"routes: expected names and routes such as {_FORM}, got {type(values).__name__}")
    if len(values) > MOST_ROUTES:
        raise BadSetting(f"routes: {len(values)} are too many, at most {MOST_ROUTES} are allowed")
    return {str(name): read_route(str(name), value) for name, value in values.items()}


def _spelled_out(where: str, item: Any) -> Any:
    if not isinstance(item, str):
        return item
    if "/" in item:
        provider, _, model = item.partition("/")
        raise BadSetting(
            f"{where}: {item!r} may mean two things: write {{provider: {provider}, model: {model}}}, or "
            f"{{model: {item}}} if that is the model's whole name"
        )
    return {"model": item}


def _named(target: RouteTarget) -> RouteTarget:
    provider = target.provider or (providers.detect(target.model) if target.model else "")
    return replace(target, provider=provider, name=target.name or f"{provider}/{target.model}")


def _check(where: str, route: Route) -> None:
    if not 0 < len(route.targets) <= MOST_TARGETS:
        raise BadSetting(f"{where}.targets: {len(route.targets)} targets: a route has 1 to {MOST_TARGETS}")
    seen: set[str] = set()
    for index, target in enumerate(route.targets):
        _check_target(f"{where}.targets[{index}]", target)
        if target.name in seen:
            raise BadSetting(f"{where}.targets[{index}]: {target.name!r} is there twice: give one of them another name")
        seen.add(target.name)
    if route.strategy is Strategy.WEIGHTED and not any(target.weight for target in route.targets):
        raise BadSetting(f"{where}: all weights are 0: give at least one target a weight")
    _above(f"{where}.hedge_after_s", route.hedge_after_s, 0)
    _at_least(f"{where}.sticky_s", route.sticky_s, 0)
    _at_least(f"{where}.retry_wait_s", route.retry_wait_s, 0)
    breaker, place = route.breaker, f"{where}.breaker"
    _at_least(f"{place}.failures", breaker.failures, 1)
    _at_least(f"{place}.min_calls", breaker.min_calls, 1)
    _above(f"{place}.window_s", breaker.window_s, 0)
    _above(f"{place}.open_s", breaker.open_s, 0)
    _at_least(f"{place}.most_open_s", breaker.most_open_s, breaker.open_s)
    if not 0 < breaker.error_rate <= 1:
        raise BadSetting(f"{place}.error_rate: {breaker.error_rate:g} is no share: use more than 0 and at most 1")


def _check_target(where: str, target: RouteTarget) -> None:
    if not target.model.strip():
        raise BadSetting(f"{where}: the model is empty: give the model's name as its provider has it")
    if len(target.name) > 200 or not target.name.isprintable():
        raise BadSetting(f"{where}.name: {target.name[:200]!r}: use at most 200 printable characters")
    _at_least(f"{where}.weight", target.weight, 0)
    for name in ("max_tokens", "max_context"):
        _at_least(f"{where}.{name}", getattr(target, name), 1)
    for name in ("connect_timeout_s", "first_event_timeout_s", "idle_timeout_s"):
        _above(f"{where}.{name}", getattr(target, name), 0)
    _at_least(f"{where}.max_retries", target.max_retries, 0)


def _at_least(where: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < float("inf"):
        raise BadSetting(f"{where} is {value:g}: use {least:g} or more")


def _above(where: str, value: float | None, least: float) -> None:
    if value is not None and not least < value < float("inf"):
        raise BadSetting(f"{where} is {value:g}: use more than {least:g}")
