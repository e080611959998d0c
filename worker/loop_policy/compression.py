"""When the results of tools have filled the model's window, a model sums them up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from worker.tagged import tagged
from worker.teams.memory.shortening import shortened

MOST_TOKENS = 1024
"""Of a summary. Source: ark."""
INSTRUCTIONS = (
    "You keep the notes of an agent whose context window is filling up. Sum up the results of its tool calls that "
    "follow: keep what was found, figures, names, addresses, open questions and decisions; leave out what nobody will "
    "need again. Write nothing but the summary."
)
_WAIT_SHARE = 0.1
"""After an attempt that came to nothing, so much of the limit has to come in before the next one."""
_RESERVED_TOKENS = 2 * MOST_TOKENS
"""Of the summing model's own window: for its answer and what it is told to do."""


class Filled(Struct, frozen=True):
    """What is to be summed up."""

    text: str
    call_id: str
    """Of the call whose result filled the window."""


FindLimit = Callable[[], Awaitable[float | None]]
"""So many tokens of results are summed up; None if nobody knows."""
SumUp = Callable[[Filled], Awaitable[str | None]]
"""The summary; None if there is none."""


class Compressor:
    """Keeps the results of one run until they are summed up."""

    def __init__(
        self,
        *,
        limit_tokens: float | None,
        find_limit: FindLimit,
        sum_up: SumUp,
        earlier: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Without `limit_tokens`, `find_limit` is asked once, when there is a result. `earlier` are tool and result of
        calls before."""
        self._find_limit = find_limit
        self._limit_tokens = limit_tokens
        self._is_off = False
        """The limit is not known."""
        self._sum_up = sum_up
        self._results = list(earlier)
        self._tokens = sum(tokens_of(text) for _, text in earlier)
        self._not_below = 0.0
        self._one_at_a_time = asyncio.Lock()

    def is_due(self, text: str) -> bool:
        """Whether a result may have to wait for a summary."""
        if self._is_off:
            return False
        return self._one_at_a_time.locked() or self._limit_tokens is None or self._is_full(tokens_of(text))

    def _is_full(self, more: int = 0) -> bool:
        return self._tokens + more >= max(self._limit_tokens or 0.0, self._not_below)

    async def after(self, tool: str, call_id: str, text: str) -> str:
        """Take a result in. Returns it, behind a summary of all that came before and itself if that was due."""
        if self._is_off:
            return text
        self._results.append((tool, text))
        self._tokens += tokens_of(text)
        async with self._one_at_a_time:
            limit_tokens = await self._limit()
            if limit_tokens is None or not self._is_full():
                return text
            taken = len(self._results)
            joined = "\n\n".join(f"## {name}\n{result}" for name, result in self._results)
            summary = await self._sum_up(Filled(joined, call_id))
            if not summary:
                self._not_below = self._tokens + _WAIT_SHARE * limit_tokens
                return text
            self._not_below = 0.0
            self._results = self._results[taken:]
            self._tokens = sum(tokens_of(each) for _, each in self._results)
        return f"{tagged('swarm:compressed-history', summary)}\n\n{text}"

    async def _limit(self) -> float | None:
        if self._limit_tokens is None and not self._is_off:
            self._limit_tokens = await self._find_limit()
            if self._limit_tokens is None:
                self._is_off = True
                self._results.clear()
        return self._limit_tokens


def tokens_of(text: str) -> int:
    """An estimate: four bytes are a token, as in ark."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def fitting(text: str, window: int) -> str:
    """As much of a text as a model with that window can read (0: not known), its beginning and its end."""
    if not window:
        return text
    return shortened(text, max(1000, 4 * (window - _RESERVED_TOKENS)))
