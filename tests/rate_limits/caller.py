"""A light worker: as many runs at once as it has slots, each of them a model call behind the fleet's rate limits.

`python -m tests.rate_limits.caller '<JSON of a Load>'` works until its standard input is closed, then prints its book.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import sys
import time
from typing import Any

import msgspec
from msgspec import Struct

from providers import AgentConfig, Message, TurnRequest, VendorLimits
from providers.retry import retry_after_s
from providers.tool_loop import TurnRecord
from providers.transport import Transport
from queue_backends import CallOutcome, Task, TokenUsage, open_backend
from worker.call_estimates import CallEstimates
from worker.call_gates import ModelCallIntent
from worker.errors import Postponed
from worker.metrics import Metrics
from worker.rate_limits.gate import RateLimitGate
from worker.rate_limits.rules import read_limits
from worker.usage import record_of

CONFIG = AgentConfig(model="claude-test", provider="anthropic", max_tokens=4000, name="caller")


class Load(Struct, frozen=True, kw_only=True):
    """What one process does."""

    state_url: str
    server_url: str
    limits: dict[str, Any]
    tenants: dict[str, int]
    """Tenant -> how many calls of it this process has on its hands, at any time."""
    slots: int = 40
    wait_s: float = 2.0
    seed: int = 0
    short_prompt: int = 200
    long_prompt: int = 8000


class Book(Struct, kw_only=True):
    """How it went."""

    sent: int = 0
    refused: int = 0
    postponed: int = 0
    waits_s: dict[str, list[float]] = {}
    """Tenant -> how long each answered call has waited for room since it was first tried, postponements included."""
    cpu_s: float = 0.0


class _Work(Struct, order=True):
    due_at: float
    number: int
    born_at: float
    tenant: str
    prompt_chars: int
    tried_at: float = 0.0


class Caller:
    """The runs of one process."""

    def __init__(self, load: Load, gate: RateLimitGate, estimates: CallEstimates, transport: Transport) -> None:
        self._load = load
        self._gate = gate
        self._estimates = estimates
        self._transport = transport
        self._random = random.Random(load.seed)
        self._numbers = 0
        self._waiting: list[_Work] = []
        self._news = asyncio.Event()
        self.book = Book()
        for tenant, calls in load.tenants.items():
            for _ in range(calls):
                self._put(tenant)

    def _put(self, tenant: str) -> None:
        self._numbers += 1
        now = time.time()
        chars = self._random.randint(self._load.short_prompt, self._load.long_prompt)
        heapq.heappush(self._waiting, _Work(now, self._numbers, now, tenant, chars))
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as slots:
            for number in range(self._load.slots):
                slots.create_task(self._slot(), name=f"slot {number}")

    async def _slot(self) -> None:
        while True:
            await self._one(await self._next())

    async def _next(self) -> _Work:
        while True:
            self._news.clear()
            due_s = self._waiting[0].due_at - time.time() if self._waiting else 60.0
            if due_s <= 0:
                return heapq.heappop(self._waiting)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._news.wait()

    async def _one(self, work: _Work) -> None:
        work.tried_at = work.tried_at or time.time()
        born = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(work.born_at))
        task = Task(id=f"{self._load.seed}-{work.number}", prompt="x", tenant=work.tenant, enqueued_at=born)
        request = TurnRequest(config=CONFIG, messages=(Message.user("x" * work.prompt_chars),), task_id=task.id)
        for attempt in range(100):
            intent = ModelCallIntent(
                id=f"{task.id}:0:{attempt}", task=task, config=CONFIG, request=request, provider="anthropic"
            )
            try:
                await self._gate.enter(intent)
            except Postponed as postponed:
                self.book.postponed += 1
                work.due_at = time.time() + postponed.retry_in_s
                heapq.heappush(self._waiting, work)
                self._news.set()
                return
            waited_s = time.time() - work.tried_at
            record = await self._call(work, attempt)
            usage = record_of(
                task,
                turn=0,
                attempt=attempt,
                provider="anthropic",
                model=CONFIG.model,
                usage=record.usage,
                outcome=record.outcome,
                started_at=record.started_at,
                duration_ms=record.duration_ms,
            )
            if record.outcome is CallOutcome.COMPLETED:
                self._estimates.learn(intent, record.usage.input_tokens, record.usage.output_tokens)
            await self._gate.leave(intent, record, usage)
            if record.outcome is CallOutcome.COMPLETED:
                self.book.waits_s.setdefault(work.tenant, []).append(round(waited_s, 3))
                break
        self._put(work.tenant)

    async def _call(self, work: _Work, attempt: int) -> TurnRecord:
        started_at = time.time()
        said = {"prompt": "x" * work.prompt_chars, "max_tokens": CONFIG.max_tokens, "tenant": work.tenant}
        answer = await self._transport.request("POST", self._load.server_url, content=msgspec.json.encode(said))
        self.book.sent += 1
        tokens = msgspec.json.decode(answer.body)["usage"] if answer.status == 200 else {}
        self.book.refused += answer.status == 429
        return TurnRecord(
            turn=0,
            attempt=attempt,
            outcome=CallOutcome.COMPLETED if tokens else CallOutcome.FAILED,
            usage=TokenUsage(**tokens),
            started_at=started_at,
            duration_ms=round((time.time() - started_at) * 1000),
            limits=VendorLimits.from_headers(answer.headers, time.time()),
            rate_limited=answer.status == 429,
            retry_after_s=retry_after_s(answer.headers, time.time()) if answer.status == 429 else None,
        )


async def main(load: Load) -> None:
    """Work until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)  # nothing is ever written there
    estimates, transport = CallEstimates(), Transport()
    async with await open_backend(load.state_url) as backend:
        gate = RateLimitGate(
            backend.state, read_limits(load.limits), estimates=estimates, metrics=Metrics(), wait_s=load.wait_s
        )
        async with gate.kept():
            caller = Caller(load, gate, estimates, transport)
            running = asyncio.create_task(caller.run(), name="caller")
            print("ready", flush=True)
            await asyncio.wait([running, asyncio.create_task(ended.wait())], return_when=asyncio.FIRST_COMPLETED)
            loop.remove_reader(sys.stdin.fileno())
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    await transport.aclose()
    caller.book.cpu_s = time.process_time()
    print(msgspec.json.encode(caller.book).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Load)))
