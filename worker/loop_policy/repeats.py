"""No tool call is made twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from providers import ToolCall, ToolOutcome
from worker.loop_policy.fingerprints import fingerprint

SKIPPED = "[skipped: duplicate tool call]"
"""What a model reads instead of a second answer. ark's text."""


class Repeats:
    """The calls of one run. One that has failed may be made again; of two at the same time, the second waits for how
    the first one ends."""

    def __init__(self, done: Iterable[str]) -> None:
        """`done` are fingerprints of calls that succeeded in earlier deliveries."""
        self._done = set(done)
        self._under_way: dict[str, asyncio.Lock] = {}

    async def once(self, call: ToolCall, make: Callable[[], Awaitable[ToolOutcome]]) -> ToolOutcome:
        """Its outcome; or a text that says that it was skipped."""
        key = fingerprint(call)
        async with self._under_way.setdefault(key, asyncio.Lock()):
            if key in self._done:
                return ToolOutcome(call_id=call.id, name=call.name, content=SKIPPED)
            outcome = await make()
            if not outcome.is_error:
                self._done.add(key)
            return outcome
