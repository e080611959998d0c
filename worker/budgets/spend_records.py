"""Spend records for kubeswarm's operator: what its SwarmBudgets are checked against.

Source: kubeswarm's `pkg/costs` and its runtime: two sorted sets, `swarm:spend:<namespace>.<team>` and
`swarm:spend:_all`, scored by Unix milliseconds. kubeswarm writes one record for each task, we write one for each model
call, so that failed tasks count too; the operator adds them up. The usage ledger is what Shoal itself goes by.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import redis.asyncio
import redis.exceptions
import structlog
from msgspec import Struct

from providers.tool_loop import TurnRecord
from queue_backends import UsageRecord
from worker.call_gates import ModelCallIntent
from worker.errors import BadSetting
from worker.log import mask_text

MOST_WAITING: Final = 10_000
MOST_AT_ONCE: Final = 500
LAST_WORDS_S: Final = 5.0
_ALL = "swarm:spend:_all"
_COMMAND_S = 10.0
_RETRY_S = 1.0
_RETRY_MOST_S = 30.0

log = structlog.get_logger(__name__)


class SpendRecord(Struct, frozen=True, kw_only=True, rename="pascal"):
    """One of them, its keys as Go writes them."""

    timestamp: str
    namespace: str
    team: str
    run_name: str
    """The task."""
    step_name: str
    """The role."""
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float = msgspec.field(name="CostUSD")


class SpendRecords:
    """A gate that holds nobody up, and writes down what went through. To be entered by `kept`.

    While Redis is away at most 10,000 records wait; then the oldest are lost, and the log says so once.
    """

    active = True

    def __init__(self, url: str, *, namespace: str, team: str, role: str, keep_s: float) -> None:
        """Raises `BadSetting` for a URL that is none."""
        try:
            self._redis = redis.asyncio.Redis.from_url(
                url, socket_timeout=_COMMAND_S, socket_connect_timeout=_COMMAND_S
            )
        except ValueError:  # which may quote the password
            raise BadSetting("SPEND_STORE_URL is no Redis URL: use redis://host:6379/0") from None
        self._key = f"swarm:spend:{namespace}.{team}"
        self._namespace = namespace
        self._team = team
        self._role = role
        self._keep_s = keep_s
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=MOST_WAITING)
        """Scores and members."""
        self._news = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._is_away = False
        self._are_lost = False

    async def enter(self, intent: ModelCallIntent) -> None:
        """Everybody may pass."""

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """As `note`."""
        self.note(intent, record, usage)

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Write down what a call has used, a little later; nothing if that is nothing."""
        used = usage.usage
        if not used.total_tokens:
            return
        ended_at = usage.started_at + usage.duration_ms / 1000
        spent = SpendRecord(
            timestamp=_rfc3339(ended_at),
            namespace=self._namespace,
            team=self._team,
            run_name=usage.task_id,
            step_name=self._role,
            model=usage.model,
            input_tokens=used.input_tokens or 0,
            output_tokens=used.output_tokens or 0,
            cost_usd=usage.cost_usd or 0.0,
        )
        if len(self._waiting) == MOST_WAITING and not self._are_lost:
            self._are_lost = True
            log.warning("spend records are lost: Redis does not take them", waiting=MOST_WAITING)
        self._waiting.append((round(ended_at * 1000), msgspec.json.encode(spent)))
        self._news.set()

    def abandon(self, intent: ModelCallIntent) -> None:
        """Nothing was reserved."""

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is entered, records are written; at its end, those that are left, within five seconds."""
        writing = asyncio.create_task(self._write(), name="spend records")
        try:
            yield
        finally:
            self._is_ending.set()
            self._news.set()
            await asyncio.wait([writing], timeout=LAST_WORDS_S)
            writing.cancel()
            await asyncio.wait([writing])
            await self._redis.aclose()

    async def _write(self) -> None:
        wait_s = _RETRY_S
        while self._waiting or not self._is_ending.is_set():
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            batch = [self._waiting[number] for number in range(min(MOST_AT_ONCE, len(self._waiting)))]
            try:
                await self._store(batch)
            except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
                self._say_away(error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RETRY_MOST_S)
                continue
            self._is_away, self._are_lost, wait_s = False, False, _RETRY_S
            for written in batch:
                if self._waiting and self._waiting[0] is written:  # else it was pushed out meanwhile
                    self._waiting.popleft()

    async def _store(self, batch: list[tuple[int, bytes]]) -> None:
        """The same record twice is one member of a set, so a batch may be written again."""
        members = {record: score for score, record in batch}
        oldest = batch[-1][0] - self._keep_s * 1000
        async with asyncio.timeout(_COMMAND_S), self._redis.pipeline(transaction=False) as commands:
            for key in (self._key, _ALL):
                commands.zadd(key, members)
                commands.zremrangebyscore(key, "-inf", oldest)
                commands.expire(key, round(self._keep_s))
            await commands.execute()

    def _say_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("spend records cannot be written, and are kept until they can", error=mask_text(str(error)))


def _rfc3339(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat().replace("+00:00", "Z")
