"""One timer for many waits: each ends at its own time, unless it is forgotten before."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import Any

import pytest

from queue_backends.redis.watchdog import Watchdog

LIMIT_S = 10


class Waiting:
    """Notes what it is told."""

    is_awaited = True

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def take(self, reply: Any) -> bool:
        raise AssertionError("a watchdog has no replies")

    def lose(self, error: Exception) -> None:
        self.lost.set_result(error)


class Leading(Waiting):
    """Whose loss ends another's wait."""

    def __init__(self, watchdog: Watchdog, other: Waiting) -> None:
        super().__init__()
        self._watchdog = watchdog
        self._other = other

    def lose(self, error: Exception) -> None:
        self._watchdog.forget(self._other)
        super().lose(error)


def _note(ended: list[float], limit_s: float, _: object) -> None:
    ended.append(limit_s)


async def _end_of(waiting: Waiting) -> Exception:
    async with asyncio.timeout(LIMIT_S):
        return await waiting.lost


async def test_who_waits_too_long_is_told() -> None:
    """The reply has not come in time."""
    waiting, watchdog = Waiting(), Watchdog()
    watchdog.watch(waiting, 0.01)
    assert isinstance(await _end_of(waiting), TimeoutError)


@pytest.mark.parametrize("order", list(itertools.permutations([0.01, 0.05, 60.0])))
async def test_each_at_its_own_time(order: tuple[float, ...]) -> None:
    """Whichever was first: the short ones end, in their order, and the long one goes on."""
    watchdog, ended = Watchdog(), list[float]()
    waits = {limit_s: Waiting() for limit_s in order}
    for limit_s, waiting in waits.items():
        waiting.lost.add_done_callback(functools.partial(_note, ended, limit_s))
        watchdog.watch(waiting, limit_s)
    await _end_of(waits[0.05])
    await asyncio.sleep(0)  # the note of it is made
    assert ended == [0.01, 0.05]
    watchdog.close()


async def test_who_is_forgotten_is_not_told() -> None:
    """Its reply has come; those that follow are watched all the same."""
    answered, next_one, watchdog = Waiting(), Waiting(), Watchdog()
    watchdog.watch(answered, 0.01)
    watchdog.forget(answered)
    watchdog.watch(next_one, 0.02)
    assert isinstance(await _end_of(next_one), TimeoutError)
    assert not answered.lost.done()


async def test_one_loss_may_end_other_waits() -> None:
    """Those that are forgotten because of it are not told, and the rest are watched as before."""
    watchdog, second, third = Watchdog(), Waiting(), Waiting()
    first = Leading(watchdog, second)
    for waiting, limit_s in ((first, 0.0), (second, 0.0), (third, 0.05)):
        watchdog.watch(waiting, limit_s)
    assert isinstance(await _end_of(first), TimeoutError)
    assert isinstance(await _end_of(third), TimeoutError)
    assert not second.lost.done()


async def test_a_closed_one_leaves_no_timer() -> None:
    """Nothing of it keeps the event loop, or what waited, alive."""
    waiting, later, watchdog = Waiting(), Waiting(), Watchdog()
    watchdog.watch(waiting, 0.01)
    watchdog.close()
    Watchdog().watch(later, 0.05)
    await _end_of(later)
    assert not waiting.lost.done()
