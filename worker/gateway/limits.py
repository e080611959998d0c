"""How often a caller may ask, and how many streams may be open."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from worker.gateway.problem import Problem

_MOST_CALLERS: Final = 20_000
"""Those that were not heard of for longest are forgotten, which gives them a full bucket."""


class Allowance(Struct, frozen=True):
    """What is left to a caller."""

    limit: int
    """Requests per minute."""
    remaining: int
    reset_s: int
    """Until everything is there again."""

    def headers(self) -> dict[str, str]:
        """Source: draft-ietf-httpapi-ratelimit-headers (the three fields that clients know)."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


class _Bucket:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens = tokens
        self.at = at


class RequestLimits:
    """A token bucket for each caller, in this process."""

    def __init__(self, *, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, who: str, per_minute: int) -> Allowance | None:
        """One request of somebody's; None: without limit. Raises `Problem` 429 with `Retry-After`."""
        if per_minute <= 0:
            return None
        now, rate, most = self._clock(), per_minute / 60, float(min(self._burst, per_minute))
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = _Bucket(most, now)
            if len(self._buckets) > _MOST_CALLERS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
            bucket.tokens = min(most, bucket.tokens + (now - bucket.at) * rate)
            bucket.at = now
        if bucket.tokens < 1:
            wait_s = math.ceil((1 - bucket.tokens) / rate)
            left = Allowance(per_minute, 0, math.ceil((most - bucket.tokens) / rate))
            raise Problem(
                429,
                f"more than {per_minute} requests per minute: try again in {wait_s} s",
                code="too_many_requests",
                headers={"Retry-After": str(wait_s), **left.headers()},
            )
        bucket.tokens -= 1
        return Allowance(per_minute, int(bucket.tokens), math.ceil((most - bucket.tokens) / rate))


class StreamSlots:
    """How many event streams are open, of all callers and of each."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._open: Counter[str] = Counter()
        self.total = 0

    def check(self, who: str) -> None:
        """Raises `Problem` 429 if there is no room for one more."""
        if self.total >= self._most:
            raise _no_room(f"this gateway has {self._most} open streams, the most it may have")
        if self._open[who] >= self._most_of_one:
            raise _no_room(f"you have {self._most_of_one} open streams, the most that one caller may have")

    @contextlib.contextmanager
    def held(self, who: str) -> Iterator[None]:
        """Count one stream for as long as it is open."""
        self.total += 1
        self._open[who] += 1
        try:
            yield
        finally:
            self.total -= 1
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


class FailureLimit:
    """Who sends wrong credentials again and again is told to wait; right ones work all the same."""

    def __init__(self, *, most: int = 20, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = RequestLimits(burst=most, clock=clock)
        self._per_minute = max(1, round(most * 60 / window_s))

    def failed(self, address: str) -> None:
        """Count a failure. Raises `Problem` 429 if there were too many."""
        try:
            self._limits.take(address, self._per_minute)
        except Problem as error:
            wait_s = error.headers["Retry-After"]
            raise Problem(
                429,
                f"too many wrong credentials from your address: try again in {wait_s} s",
                code="too_many_failures",
                headers={"Retry-After": wait_s},
            ) from None


def _no_room(said: str) -> Problem:
    return Problem(
        429, f"{said}: close some, or try again later", code="too_many_streams", headers={"Retry-After": "5"}
    )
