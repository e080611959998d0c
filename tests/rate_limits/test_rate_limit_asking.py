"""What one step on a limited account gives to whom: a pure function, so time is a number here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from providers import LimitWindow, VendorLimits
from worker.rate_limits.account import Account
from worker.rate_limits.asking import HOLDER_TTL_S, Answer, Ask, Wish, ask
from worker.rate_limits.learning import News, counted_tokens
from worker.rate_limits.rules import RateLimit

T0 = 1_763_700_000.0


class Fleet:
    """Workers that ask in turn, on a clock that stands still between their steps."""

    def __init__(self, **limit: Any) -> None:
        self.limit = RateLimit(name="main", **limit)
        self.account = Account()
        self.now = T0
        self.running: dict[str, int] = {}

    def ask(
        self,
        worker: str,
        wishes: Sequence[Wish] = (),
        *,
        ended: int = 0,
        used: Mapping[str, float] | None = None,
        news: Sequence[News] = (),
    ) -> Answer:
        """One step of one worker."""
        running = self.running.get(worker, 0) - ended
        said = Ask(worker=worker, now=self.now, running=running, wishes=wishes, used=used or {}, news=news)
        self.account, answer = ask(self.account, self.limit, said, random=lambda: 0.5)
        self.running[worker] = running + len(answer.granted)
        return answer

    def news(self, **fields: Any) -> News:
        """Of a call that was sent now and has ended at once."""
        moments = {"started_at": self.now, "answered_at": self.now, "ended_at": self.now + 1.0}
        return News(**{**moments, "ended_well": True, **fields})


def wish(
    name: str,
    tenant: str = "",
    *,
    tokens: float = 100.0,
    urgency: int = 1,
    since: float = T0,
    patience_s: float = 60.0,
) -> Wish:
    """A call that waits."""
    needs = counted_tokens(tokens, 50.0)
    return Wish(id=name, tenant=tenant, urgency=urgency, since=since, needs=needs, patience_s=patience_s)


def wishes(count: int, tenant: str = "", **fields: Any) -> list[Wish]:
    """Several alike, in order."""
    return [wish(f"{tenant}{number}", tenant, **{"since": T0 + number, **fields}) for number in range(count)]


def test_no_more_than_the_rate() -> None:
    """Whoever asks and however often: the burst at first, then what has come since."""
    fleet = Fleet(requests_per_min=60, burst_s=5)
    granted = len(fleet.ask("a", wishes(100)).granted)
    assert granted == 5
    for second in range(1, 61):
        fleet.now = T0 + second
        granted += sum(len(fleet.ask(worker, wishes(100)).granted) for worker in "abcd")
    assert granted == 65


def test_it_says_when_to_wake_up() -> None:
    """Whoever waits learns when there will be room for its first call, after those that come before it."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    assert fleet.ask("a", [wish("1"), wish("2")]).wake_in_s == pytest.approx(1.0)
    assert fleet.ask("b", [wish("3", since=T0 + 5)]).wake_in_s == pytest.approx(2.0)
    fleet.now += 1.0
    assert fleet.ask("b", [wish("3", since=T0 + 5)]).granted == []
    assert fleet.ask("a", [wish("2")]).granted == ["2"]


def test_every_kind_is_kept() -> None:
    """The narrowest of the limits decides."""
    fleet = Fleet(requests_per_min=6000, input_tokens_per_min=60_000, output_tokens_per_min=600_000, burst_s=1)
    answer = fleet.ask("a", wishes(50, tokens=100))
    assert len(answer.granted) == 10
    assert answer.wake_in_s == pytest.approx(0.1)


def test_what_was_not_used_comes_back() -> None:
    """A call that used less than was taken for it makes room; one that used more takes it from the next."""
    fleet = Fleet(input_tokens_per_min=60_000, burst_s=1)
    assert len(fleet.ask("a", wishes(5, tokens=200)).granted) == 5
    assert len(fleet.ask("a", wishes(9, tokens=200), used={"input_tokens": -400.0}).granted) == 2
    assert fleet.ask("a", [wish("x", tokens=200)], used={"input_tokens": 800.0}).wake_in_s == pytest.approx(1.0)


def test_a_call_larger_than_the_burst_is_sent() -> None:
    """It waits for a full bucket, and those behind it for what it took: none is passed over for ever."""
    fleet = Fleet(input_tokens_per_min=60_000, burst_s=1)
    fleet.ask("a", [wish("1", tokens=500)])
    answer = fleet.ask("a", [wish("large", tokens=5_000), wish("small", tokens=1, since=T0 + 1)])
    assert answer.granted == []
    assert answer.wake_in_s == pytest.approx(0.5)
    fleet.now += 0.5
    answer = fleet.ask("a", [wish("large", tokens=5_000), wish("small", tokens=1, since=T0 + 1)])
    assert answer.granted == ["large"]
    assert answer.wake_in_s == pytest.approx(4.001)


def test_tenants_take_turns() -> None:
    """A tenant with one call is not behind the thousand of another, wherever they wait."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    fleet.ask("a", wishes(100, "large"))
    fleet.ask("b", [wish("one", "small", since=T0 + 9999)])
    fleet.now += 1.0
    assert fleet.ask("a", wishes(100, "large")).granted == []
    assert fleet.ask("b", [wish("one", "small", since=T0 + 9999)]).granted == ["one"]


def test_equal_tenants_get_equal_shares() -> None:
    """Two tenants in two workers, one with far more calls: in the long run each gets half; a weight of 3 gets three
    quarters."""
    for weights, share in (({}, 0.5), ({"b": 3.0}, 0.25)):
        fleet = Fleet(requests_per_min=600, burst_s=1, weights=weights)
        got = {"a": 0, "b": 0}
        for _ in range(400):
            fleet.now += 0.1
            got["a"] += len(fleet.ask("one", wishes(90, "a")).granted)
            got["b"] += len(fleet.ask("two", wishes(5, "b")).granted)
        assert got["a"] / (got["a"] + got["b"]) == pytest.approx(share, abs=0.03)


def test_tenants_take_turns_within_one_step() -> None:
    """Room for ten: half of it for whoever has few calls, and came later."""
    fleet = Fleet(requests_per_min=600, burst_s=1)
    granted = fleet.ask("a", [*wishes(90, "large"), *wishes(20, "small", since=T0 + 999)]).granted
    assert sorted(name[:5] for name in granted) == ["large"] * 5 + ["small"] * 5


def test_within_a_tenant_by_urgency_and_age() -> None:
    """The urgent one first, then the oldest, over all workers."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    fleet.ask("a", [wish("first")])
    fleet.ask("a", [wish("old", since=T0 - 60)])
    fleet.ask("b", [wish("urgent", urgency=0), wish("young")])
    order = []
    for _ in range(3):
        fleet.now += 1.0
        for worker, waiting in (("a", ["old"]), ("b", ["urgent", "young"])):
            left = [name for name in waiting if name not in order]
            calls = {"old": wish("old", since=T0 - 60), "urgent": wish("urgent", urgency=0), "young": wish("young")}
            order += fleet.ask(worker, [calls[name] for name in left]).granted
    assert order == ["urgent", "old", "young"]


def test_a_worker_that_is_silent_loses_its_turn() -> None:
    """It had a call waiting and died: others go on without it a moment later."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    fleet.ask("dead", [wish("1"), wish("2", "a")])
    fleet.ask("b", [wish("3", "b", since=T0 + 1)])
    fleet.now += 1.0
    assert fleet.ask("b", [wish("3", "b", since=T0 + 1)]).granted == []
    fleet.now += 3.5
    assert fleet.ask("b", [wish("3", "b", since=T0 + 1)]).granted == ["3"]


def test_calls_at_once() -> None:
    """So many in the fleet; when one ends, whoever waits elsewhere is rung for."""
    fleet = Fleet(concurrent=3, learn=False)
    assert len(fleet.ask("a", wishes(2)).granted) == 2
    assert len(fleet.ask("b", wishes(2, "b")).granted) == 1
    answer = fleet.ask("a", ended=1)
    assert answer.ring
    assert len(fleet.ask("b", wishes(1, "b")).granted) == 1


def test_calls_of_a_dead_worker_are_free_again() -> None:
    """After the time in which any living worker would have been heard of."""
    fleet = Fleet(concurrent=2, learn=False)
    assert len(fleet.ask("dead", wishes(2)).granted) == 2
    fleet.now += HOLDER_TTL_S - 1
    assert fleet.ask("b", wishes(2, "b")).granted == []
    fleet.now += 2
    assert len(fleet.ask("b", wishes(2, "b")).granted) == 2


def test_a_refusal_closes_the_account_for_all() -> None:
    """Nobody calls until the vendor may be willing again; then a little slower, and slowly faster."""
    fleet = Fleet(requests_per_min=600, burst_s=1)
    assert len(fleet.ask("a", wishes(1)).granted) == 1
    fleet.ask("a", ended=1, news=[fleet.news(refused=True, ended_well=False, retry_after_s=20.0)])
    answer = fleet.ask("b", wishes(3))
    assert answer.granted == []
    assert answer.closed_s == pytest.approx(20.0)
    assert answer.wake_in_s is not None
    fleet.now += 20.0
    assert len(fleet.ask("b", wishes(600)).granted) == 9
    assert fleet.account.pace == pytest.approx(0.93, abs=0.01)
    fleet.now += 120.0
    fleet.ask("b")
    assert fleet.account.pace == 1.0


def test_refusals_that_came_together_count_once() -> None:
    """Calls that were under way already tell nothing new: the pace falls once, the longest wish for rest counts."""
    fleet = Fleet(requests_per_min=600)
    fleet.ask("a", wishes(3))
    refusals = [fleet.news(refused=True, ended_well=False, retry_after_s=after_s) for after_s in (5.0, 30.0, 1.0)]
    fleet.now += 1.0
    fleet.ask("a", ended=3, news=refusals)
    assert fleet.account.pace == pytest.approx(0.9)
    assert fleet.ask("b", wishes(1)).closed_s == pytest.approx(30.0)
    assert fleet.account.refused_calls == 3


def test_refusals_in_a_row_close_it_for_longer() -> None:
    """A vendor that says nothing of how long is asked less and less often, and again as before once it answers."""
    fleet = Fleet(requests_per_min=600)
    closed: list[float] = []
    for _ in range(4):
        fleet.now += closed[-1] if closed else 0.0
        fleet.ask("a", wishes(1))
        closed.append(fleet.ask("a", ended=1, news=[fleet.news(refused=True, ended_well=False)]).closed_s)
    assert closed == pytest.approx([1.0, 2.0, 4.0, 8.0])
    fleet.now += 8.0
    fleet.ask("a", ended=1, news=[fleet.news()])
    fleet.now += 1.0
    assert fleet.ask("a", news=[fleet.news(refused=True, ended_well=False)]).closed_s == pytest.approx(1.0)


def _told(limit: int, **fields: Any) -> VendorLimits:
    return VendorLimits(requests=LimitWindow(limit=limit, window_s=60.0, **fields))


def test_limits_are_learned_from_the_vendor() -> None:
    """What it tells counts where nothing is set, and where it is less than what is set; never more."""
    for own, told, rate in ((None, 120, 120), (600, 120, 120), (60, 120, 60)):
        fleet = Fleet(requests_per_min=own)
        fleet.ask("a", wishes(1))
        fleet.ask("a", ended=1, news=[fleet.news(limits=_told(told))])
        assert fleet.account.rates == {"requests": float(rate)}


def test_a_limit_that_is_not_per_minute_is_not_learned() -> None:
    """A bucket that takes longer than a minute to be whole again is no limit per minute, nor one of unknown span."""
    fleet = Fleet()
    for limits in (_told(14_400, reset_s=180.0), VendorLimits(requests=LimitWindow(limit=5))):
        fleet.ask("a", news=[fleet.news(limits=limits)])
    assert fleet.account.rates == {}


def test_what_the_vendor_has_left_is_all_there_is() -> None:
    """Somebody else uses the key too: the level falls to what is left, and what has come since."""
    fleet = Fleet(requests_per_min=60, burst_s=30)
    fleet.ask("a", wishes(1))
    news = fleet.news(limits=_told(60, remaining=3))
    fleet.now += 2.0
    assert len(fleet.ask("a", wishes(30), ended=1, news=[news]).granted) == 5


def test_a_new_key_is_tried_carefully() -> None:
    """Nobody knows any limit: a few calls first, and one more for each answer, until limits are told."""
    fleet = Fleet()
    assert len(fleet.ask("a", wishes(50)).granted) == 2
    assert len(fleet.ask("b", wishes(50)).granted) == 0
    assert len(fleet.ask("a", wishes(50), ended=2, news=[fleet.news(), fleet.news()]).granted) == 2
    assert len(fleet.ask("b", wishes(50)).granted) == 2
    told = fleet.news(limits=_told(6000))
    assert len(fleet.ask("a", wishes(50), ended=1, news=[told]).granted) == 50


def test_a_limit_nobody_tells_is_guessed() -> None:
    """The vendor refuses and never says how much it allows: the fleet goes a little slower than it had gone."""
    fleet = Fleet()
    fleet.account.answers, fleet.account.born_at = 1_000, T0
    for second in range(30):
        fleet.now = T0 + second
        assert len(fleet.ask("a", wishes(10), ended=min(second, 1) * 10).granted) == 10
    fleet.ask("a", news=[fleet.news(refused=True, ended_well=False, retry_after_s=1.0)])
    assert fleet.account.rates["requests"] == pytest.approx(0.9 * 600, rel=0.06)


def test_whoever_would_wait_too_long_comes_back_later() -> None:
    """Tasks are sent away at once, and come back spread over the time in which there is room for them."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    fleet.ask("a", ended=0, news=[fleet.news(output_tokens=50)])
    answer = fleet.ask("a", wishes(100, patience_s=3.0))
    assert (len(answer.granted), len(answer.postponed)) == (1, 96)
    later = sorted(answer.postponed.values())
    assert later[0] >= 1.0
    assert 30 < later[-1] < 100
    assert 10 <= sum(seconds < 20 for seconds in later) <= 40


def test_half_of_the_limits_alone() -> None:
    """A worker that cannot ask the others keeps to its part."""
    limit = RateLimit(requests_per_min=600, burst_s=1, concurrent=6)
    _, answer = ask(Account(), limit, Ask(worker="a", now=T0, wishes=wishes(20), share=0.5))
    assert len(answer.granted) == 3


def test_a_clock_that_goes_back_gives_nothing_twice() -> None:
    """Clocks of workers differ: the fastest one counts, and no time passes twice."""
    fleet = Fleet(requests_per_min=60, burst_s=1)
    fleet.now = T0 + 30
    granted = len(fleet.ask("fast", wishes(9)).granted)
    for late_s in range(30):
        fleet.now = T0 + late_s
        granted += len(fleet.ask("slow", wishes(9)).granted)
    assert granted == 1


def test_the_account_stays_small() -> None:
    """Thousands of tenants and workers pass by, and leave nothing behind but a bounded rest."""
    fleet = Fleet(requests_per_min=6000, concurrent=1000)
    for number in range(2_000):
        fleet.now += 1.0
        fleet.ask(f"w{number}", [wish("1", f"tenant {number}")])
        if number % 2:  # the others die
            fleet.ask(f"w{number}", ended=1)
    assert len(fleet.account.holders) <= HOLDER_TTL_S
    assert len(fleet.account.served) <= 500
