"""Which target is asked: strategies, sessions, what is left out, and what is tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from providers import AgentConfig, AuthenticationFailed, Message, Overloaded, TurnRequest
from providers.pricing import ModelPrice, PriceBook
from providers.scripted import ScriptedProvider
from providers.turn_routing import CallEnd, Target
from queue_backends import CallOutcome, StateStore, Task
from queue_backends.errors import BackendUnavailable
from worker.routing import Route, read_route
from worker.routing.routing_metrics import RoutingMetrics
from worker.routing.run_router import RunRouter
from worker.routing.sessions import Sessions
from worker.routing.strategies import ordered
from worker.routing.target_state import TargetStates

AGENT = AgentConfig(model="", route="main")
REQUEST = TurnRequest(config=AGENT, messages=(Message.user("hi"),))
PRICES = PriceBook(
    {
        "dear": ModelPrice(input_usd=5, output_usd=20),
        "cheap": ModelPrice(input_usd=0.1, output_usd=0.4),
        "reads cheaply": ModelPrice(input_usd=0.01, output_usd=100),
    }
)


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """What a worker has for its runs, without a worker."""

    def __init__(self, route: Any, state: StateStore, *, unhealthy: Mapping[str, bool] | None = None) -> None:
        self.route: Route = read_route("main", route)
        self.clock = Clock()
        self.states = TargetStates(self.clock)
        self.sessions = Sessions(state)
        self.metrics = RoutingMetrics()
        self.unhealthy = dict(unhealthy or {})
        self.taken: list[AgentConfig] = []

    def run(self, *, session: str = "", task_id: str = "1-0", tenant: str = "", before: str = "") -> RunRouter:
        """A new run's router."""

        async def take(config: AgentConfig) -> ScriptedProvider:
            self.taken.append(config)
            return ScriptedProvider()

        return RunRouter(
            self.route,
            AGENT,
            Task(id=task_id, prompt="hi", session_id=session, tenant=tenant),
            take=take,
            states=self.states,
            sessions=self.sessions,
            prices=PRICES,
            metrics=self.metrics,
            is_healthy=lambda provider: not self.unhealthy.get(provider, False),
            answered_before=before,
        )

    def state(self, model: str) -> Any:
        """What is known of a target."""
        return self.states.of(next(target for target in self.route.targets if target.model == model))


async def answered(router: RunRouter, target: Target, first_chunk_s: float | None = 0.1) -> None:
    """The call has come to its end."""
    router.ended(target, CallEnd(outcome=CallOutcome.COMPLETED, first_chunk_s=first_chunk_s, lasted_s=1.0))
    await router.answered(target)


def failed(router: RunRouter, target: Target, error: Exception) -> Exception:
    """The call has failed."""
    router.ended(target, CallEnd(outcome=CallOutcome.FAILED, error=error, lasted_s=0.1))
    return error


async def asked_first(desk: Desk, **run: str) -> str:
    """The model that a new run asks first; it answers."""
    router = desk.run(**run)
    target = await router.first(REQUEST)
    await answered(router, target)
    return target.config.model


def names(route: Route, states: TargetStates, key: str = "") -> list[str]:
    """The models of a route in the order in which they are asked."""
    return [target.model for target in ordered(route, states, PRICES, key)]


def test_the_cheapest_is_asked_first() -> None:
    """By what reading and writing cost together; what has no known price comes last."""
    route = read_route("main", {"targets": ["unknown", "dear", "reads cheaply", "cheap"], "strategy": "cheapest"})
    assert names(route, TargetStates()) == ["cheap", "dear", "reads cheaply", "unknown"]


def test_weights_share_the_calls() -> None:
    """Each target gets its share, the same key always the same one; without a weight it only steps in for others."""
    targets = [{"model": "a", "weight": 3}, {"model": "b", "weight": 1}, {"model": "spare", "weight": 0}]
    route = read_route("main", {"targets": targets, "strategy": "weighted"})
    orders = [names(route, TargetStates(), f"task {number}") for number in range(2000)]
    first = Counter(order[0] for order in orders)
    assert 1400 < first["a"] < 1600
    assert first["a"] + first["b"] == 2000
    assert {order[-1] for order in orders} == {"spare"}
    assert orders[7] == names(route, TargetStates(), "task 7")


def test_a_target_that_comes_moves_only_the_keys_that_it_wins() -> None:
    """The sessions of all others stay where their caches are."""
    few = read_route("main", {"targets": ["a", "b"], "strategy": "weighted"})
    more = read_route("main", {"targets": ["a", "b", "c"], "strategy": "weighted"})
    for number in range(300):
        before, after = (names(route, TargetStates(), str(number))[0] for route in (few, more))
        assert after in (before, "c")


async def test_the_fastest_is_found_and_found_again(memory: StateStore) -> None:
    """Those that nobody has measured are tried by one call each; then the quickest gets all; after a while the others
    are tried again."""
    desk = Desk({"targets": ["a", "b", "c"], "strategy": "fastest"}, memory)
    routers = [desk.run() for _ in range(3)]
    targets = [await router.first(REQUEST) for router in routers]
    assert [target.config.model for target in targets] == ["a", "b", "c"]
    for router, target, took_s in zip(routers, targets, (0.9, 0.2, 0.5), strict=True):
        await answered(router, target, took_s)
    assert [await asked_first(desk) for _ in range(3)] == ["b", "b", "b"]
    desk.clock.now += 1000
    assert await asked_first(desk) == "a"


async def test_the_least_busy_is_asked(memory: StateStore) -> None:
    """In proportion to the weights; a call that has ended counts no more."""
    targets = [{"model": "a", "weight": 2}, {"model": "b", "weight": 1}]
    desk = Desk({"targets": targets, "strategy": "least_busy"}, memory)
    routers = [desk.run() for _ in range(6)]
    held = [await router.first(REQUEST) for router in routers]
    assert Counter(target.config.model for target in held) == {"a": 4, "b": 2}
    for router, target in zip(routers, held, strict=True):
        if target.config.model == "b":
            await answered(router, target)
    assert await asked_first(desk) == "b"


async def test_a_session_stays_where_it_was(memory: StateStore) -> None:
    """Its next task begins at the target that answered the last one, in another worker too, though the route's first
    is well again; other sessions, and the same name at another tenant, do not. After a silence it begins anew."""
    desk, elsewhere = (Desk({"targets": ["a", "b"], "sticky_s": 100}, memory) for _ in range(2))
    router = desk.run(session="s")
    error = failed(router, await router.first(REQUEST), Overloaded("busy"))
    second = await router.next(error)
    assert second is not None
    await answered(router, second)
    assert await asked_first(elsewhere, session="s") == "b"
    assert await asked_first(elsewhere, session="other") == "a"
    assert await asked_first(elsewhere, session="s", tenant="acme") == "a"
    assert await asked_first(elsewhere, task_id="2-0") == "a"


async def test_a_session_leaves_a_target_that_does_not_work(memory: StateStore) -> None:
    """And stays where it went instead."""
    desk = Desk(["a", "b"], memory)
    assert await asked_first(desk, session="s") == "a"
    for _ in range(5):
        router = desk.run(session="s")
        error = failed(router, await router.first(REQUEST), Overloaded("busy"))
        if (target := await router.next(error)) is not None:
            await answered(router, target)
    assert await asked_first(desk, session="s") == "b"


async def test_a_store_that_is_away_costs_a_session_its_cache_only(memory: StateStore) -> None:
    """The run goes on as one without a session."""

    class Away:
        async def get(self, key: str) -> bytes:
            raise BackendUnavailable("away")

        async def set(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
            raise BackendUnavailable("away")

    desk = Desk(["a", "b"], Away())  # type: ignore[arg-type]  # all that is asked of it
    assert await asked_first(desk, session="s") == "a"


async def test_a_redelivered_task_begins_where_it_was_answered(memory: StateStore) -> None:
    """What the journal says counts more than the order, and than the session's last target."""
    desk = Desk(["a", "b"], memory)
    assert (await desk.run(before="openai/b").first(REQUEST)).config.model == "b"
    assert (await desk.run(before="openai/gone").first(REQUEST)).config.model == "a"


async def test_an_unhealthy_provider_gets_no_call(memory: StateStore) -> None:
    """Nor does the switch go unsaid; well again, it is asked again."""
    desk = Desk(["claude-a", "gpt-b"], memory, unhealthy={"anthropic": True})
    target = await desk.run().first(REQUEST)
    assert target.config.model == "gpt-b"
    assert target.switch is not None
    assert (target.switch.before, target.switch.reason) == ("anthropic/claude-a", "unhealthy")
    assert desk.metrics.failovers == {("main", "anthropic/claude-a", "openai/gpt-b", "unhealthy"): 1}
    desk.unhealthy["anthropic"] = False
    assert await asked_first(desk) == "claude-a"


async def test_one_call_probes_a_target_whose_time_is_up(memory: StateStore) -> None:
    """While it is under way all others go past; its success brings them back."""
    desk = Desk({"targets": ["a", "b"], "breaker": {"failures": 1, "open_s": 10}}, memory)
    router = desk.run()
    failed(router, await router.first(REQUEST), Overloaded("busy"))
    assert await asked_first(desk) == "b"
    desk.clock.now += 10
    probing = desk.run()
    probe = await probing.first(REQUEST)
    assert probe.config.model == "a"
    assert await asked_first(desk) == "b"
    await answered(probing, probe)
    assert await asked_first(desk) == "a"


async def test_requests_wait_less_where_another_target_can_be_asked(memory: StateStore) -> None:
    """The last one that is left is given all the patience that the agent has."""
    desk = Desk({"targets": ["a", "b"], "retry_wait_s": 1.5}, memory)
    router = desk.run()
    first = await router.first(REQUEST)
    last = await router.next(failed(router, first, Overloaded("busy")))
    assert last is not None
    assert (first.config.max_retry_wait_s, last.config.max_retry_wait_s) == (1.5, 60.0)


async def test_a_route_of_one_target_never_hedges(memory: StateStore) -> None:
    """There is nobody to ask."""
    assert Desk({"targets": ["a"], "hedge_after_s": 1}, memory).run().hedge_after_s is None
    assert Desk({"targets": ["a", "b"], "hedge_after_s": 1}, memory).run().hedge_after_s == 1


async def test_a_hedge_never_goes_to_the_target_that_is_being_asked(memory: StateStore) -> None:
    """Nor to one that has failed in this turn; if that leaves none, there is no hedge."""
    desk = Desk({"targets": ["a", "b"], "hedge_after_s": 1}, memory)
    router = desk.run()
    first = await router.first(REQUEST)
    second = await router.second(0)
    assert second is not None
    assert (second.config.model, second.switch.beside if second.switch else None) == ("b", 0)
    assert await router.second(0) is None
    failed(router, second, Overloaded("busy"))
    assert await router.second(0) is None
    await answered(router, first)
    assert [desk.state(model).in_flight for model in ("a", "b")] == [0, 0]


async def test_a_provider_with_new_settings_is_tried_again(memory: StateStore) -> None:
    """A corrected key need not wait for the circuit's next probe."""
    desk = Desk({"targets": ["a"], "breaker": {"failures": 1, "open_s": 999, "most_open_s": 999}}, memory)
    router = desk.run()
    failed(router, await router.first(REQUEST), Overloaded("busy"))
    assert not desk.state("a").breaker.admits
    desk.states.forget("openai")
    assert await asked_first(desk) == "a"


async def test_a_slow_loser_counts_as_slow(memory: StateStore) -> None:
    """A call that was ended before its first chunk took at least so long."""
    desk = Desk({"targets": ["a", "b"], "strategy": "fastest"}, memory)
    desk.state("b").took(0.5)
    router = desk.run()
    target = await router.first(REQUEST)
    router.ended(target, CallEnd(outcome=CallOutcome.CANCELLED, lasted_s=3.0))
    assert await asked_first(desk) == "b"


async def test_a_run_with_old_settings_says_nothing_against_the_new(memory: StateStore) -> None:
    """It keeps the instance that it began with, and the key that was taken back: its failures open no circuit that the
    new key has closed."""
    desk = Desk(["gpt-a", "gpt-b"], memory)
    old = desk.run()
    await answered(old, await old.first(REQUEST))
    desk.states.forget("openai")
    for _ in range(2):
        target = await old.first(REQUEST)
        assert target.config.model == "gpt-a"
        spare = await old.next(failed(old, target, AuthenticationFailed("revoked")))
        assert spare is not None
        failed(old, spare, AuthenticationFailed("revoked"))
    assert await asked_first(desk, task_id="2-0") == "gpt-a"
