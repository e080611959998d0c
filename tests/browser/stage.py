"""A fleet to look at: a gateway, worker processes on scripted models, tasks in every state, two weeks of usage."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from queue_backends import CallOutcome, Priority, StateStore, Task, TaskState, TokenUsage, UsageRecord
from tests.gateway.gateway_harness import GatewayServer
from worker.fleet.presence import Workers
from worker.gateway.context import Gateway
from worker.gateway.ops.history import History, Sample
from worker.settings.load import load_settings
from worker.usage import UsageLedger

T = TypeVar("T")

WITHIN_S = 30.0
LOOK_EVERY_S = 0.05
DAY_S = 86_400.0
_FOREIGN = ("AGENT_", "SHOAL_", "OTEL_", "SWARM_", "POD_NAME", "TASK_QUEUE_URL", "STREAM_CHANNEL_URL")

TOOLS = '''
from worker import tool


@tool(idempotent=True)
def search(query: str) -> str:
    """Search the handbook."""
    return f"3 pages about {query}: 'Refunds', 'Returns within 30 days', 'Gift cards'"
'''

ANSWER = (
    "Refunds are paid back the way they were paid, within five working days. Whoever paid with a gift card gets a new "
    "card by mail; shipping is refunded as well if the whole order comes back within 30 days."
)
SCRIPT: dict[str, Any] = {
    "scenarios": [
        {
            "match": "refund",
            "turns": [
                {
                    "thinking": "The handbook should say how refunds work. I search it before I answer.",
                    "text": "Let me look that up.",
                    "tool_calls": [{"name": "search", "arguments": {"query": "refunds"}}],
                    "usage": {"input_tokens": 412, "output_tokens": 63, "reasoning_tokens": 21},
                },
                {"text": ANSWER, "usage": {"input_tokens": 655, "output_tokens": 58, "cache_read_tokens": 380}},
            ],
        },
        {
            "match": "slow",
            "turns": [
                {
                    "thinking": "This takes its time: one source after the other.",
                    "text": "First I look at the sources.",
                    "tool_calls": [{"name": "search", "arguments": {"query": "market report"}}],
                    "usage": {"input_tokens": 2210, "output_tokens": 118},
                },
                {"text": "one word after the other, and there are many of them " * 12, "chunk_delay_s": 0.5},
            ],
        },
        {
            "match": "broken",
            "turns": [{"fault": {"kind": "invalid_request", "message": "the model does not take images"}}],
        },
        {"turns": [{"text": "Done: {prompt}", "usage": {"input_tokens": 96, "output_tokens": 14}}]},
    ]
}


def _agent(model: str) -> dict[str, Any]:
    return {"model": model, "provider": "scripted", "options": {"script": SCRIPT}, "tools": ["search"]}


def settings_of(folder: Path) -> dict[str, Any]:
    """What the stage's `shoal.yaml` says."""
    return {
        "health_port": 0,
        "log_level": "warning",
        "concurrency": 8,
        "agent": _agent("swift-1"),
        "agents": {"support": _agent("swift-1"), "researcher": _agent("deep-2")},
        "python_tools": [str(folder / "tools.py")],
        "prices": {
            "swift-1": {"input_usd": 0.8, "output_usd": 4.0},
            "deep-2": {"input_usd": 15.0, "output_usd": 75.0},
        },
        "routes": {
            "main": [
                {"provider": "scripted", "model": "deep-2", "name": "deep"},
                {"provider": "scripted", "model": "swift-1", "name": "swift"},
            ]
        },
        "budgets": {
            "every day": {"scope": "fleet", "period": "day", "usd": 1.0},
            "tenants": {"scope": "tenant", "period": "month", "tokens": 6000, "soft": 0.6},
            "watched": {"scope": "agent", "period": "day", "usd": 0.5, "hard": False},
        },
        "limits": {"scripted": {"where": {"provider": "scripted"}, "requests_per_min": 600, "concurrent": 32}},
    }


class Stage:
    """Everything runs from `with` on. Its methods block; call them from a thread of a test's event loop, or before."""

    def __init__(self, queue_url: str, folder: Path, *, workers: int = 2, names: Sequence[str] = ()) -> None:
        self._queue_url = queue_url
        self._folder = folder
        self.ids: dict[str, str] = {}
        """What `play` has made, by what it is."""
        self._names = [*names, *(f"worker-{number}" for number in range(len(names) + 1, workers + 1))]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._config = folder / "shoal.yaml"
        (folder / "tools.py").write_text(TOOLS)
        self._config.write_text(json.dumps(settings_of(folder)))
        settings = load_settings({}, file=self._config)
        gateway = msgspec.structs.replace(settings.gateway, port=0, auth="required", requests_per_minute=0)
        self.server = GatewayServer(
            msgspec.structs.replace(settings, gateway=gateway), queue_url=queue_url, with_worker=False
        )

    @property
    def url(self) -> str:
        """Where the gateway is."""
        return self.server.url

    @property
    def key(self) -> str:
        """A key that may do everything."""
        return self.server.admin_key

    def __enter__(self) -> Self:
        self.server.__enter__()
        for name in self._names:
            self.start_worker(name)
        self.wait_until(self._has_workers, "its workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(WITHIN_S)
        self.server.__exit__(kind, error, trace)

    def start_worker(self, name: str) -> None:
        """One more process."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        environment = {**inherited, "SHOAL_CONFIG": str(self._config), "POD_NAME": name, "SHOAL_GRACE_SECONDS": "0"}
        command = [sys.executable, "-m", "worker.cli", "worker", "--queue", self._queue_url]
        log = (self._folder / f"{name}.log").open("wb")
        with log:
            self._processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def do(self, work: Callable[[Gateway], Awaitable[T]]) -> T:
        """Run something with the gateway's parts."""
        return self.server.do(work)

    def submit(self, prompt: str, **fields: Any) -> str:
        """A task; its id."""
        return self.do(lambda gateway: gateway.backend.queue.submit(Task(prompt=prompt, **fields)))

    def ended(self, task_id: str) -> str:
        """Wait for a task; its output, or its error."""
        result = self.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))
        return result.output or result.error

    def running(self, task_id: str) -> None:
        """Wait until a task runs."""

        async def runs(gateway: Gateway) -> bool:
            [status] = await gateway.backend.queue.status([task_id])
            return status.state is TaskState.RUNNING

        self.wait_until(runs, f"task {task_id} to run")

    def wait_until(self, holds: Callable[[Gateway], Awaitable[bool]], what: str) -> None:
        """Wait for something in other processes that nothing announces."""
        deadline = time.monotonic() + WITHIN_S
        while not self.do(holds):
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in self._folder.glob("*.log"))
                raise AssertionError(f"waited {WITHIN_S:g} s for {what}\n{logs}")
            time.sleep(LOOK_EVERY_S)

    async def _has_workers(self, gateway: Gateway) -> bool:
        return len(await Workers(gateway.backend.state).all()) >= len(self._names)

    def worker_ids(self) -> list[str]:
        """The workers that are up."""

        async def ids(gateway: Gateway) -> list[str]:
            return [worker.id for worker in await Workers(gateway.backend.state).all()]

        return self.do(ids)

    def nobody_watches(self) -> None:
        """Return when all event streams of its pages have ended."""

        async def all_ended(gateway: Gateway) -> bool:
            return b"shoal_gateway_streams 0" in await asyncio.to_thread(self._metrics)

        self.wait_until(all_ended, "its streams to end")

    def _metrics(self) -> bytes:
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def play(self) -> dict[str, str]:
        """Tasks in every state; their ids by what they are."""
        done = self.submit(
            "How do refunds work for gift cards?", agent="support", tenant="acme", meta={"ticket": "4711"}
        )
        dead = [
            self.submit(
                f"broken: describe image {number}.png", agent="researcher", tenant="globex", priority=Priority.LOW
            )
            for number in range(1, 4)
        ]
        quick = [self.submit(f"Summarise ticket {number}", tenant="acme") for number in range(1, 9)]
        for task_id in (done, *dead, *quick):
            self.ended(task_id)
        slow = [
            self.submit("slow: write the market report", agent="researcher", tenant="globex"),
            self.submit("slow: compare last year's offers", agent="support", tenant="acme"),
            self.submit("slow: read all of the minutes", tenant="initech"),
        ]
        for task_id in slow:
            self.running(task_id)
        self.do(
            lambda gateway: gateway.backend.queue.submit(Task(prompt="Tomorrow's digest"), run_at=time.time() + DAY_S)
        )
        return {"done": done, "dead": dead[0], "slow": slow[0], "slow-2": slow[1]}

    def spend(self, *, days: int = 14) -> None:
        """Usage of the last days, as the workers would have recorded it."""
        self.do(lambda gateway: record_past(gateway.backend.state, days=days, now=time.time()))

    def look_back(self, *, minutes: int = 15) -> None:
        """What the gateway would have sampled meanwhile, up to what the workers tell of now."""

        async def has_rates(gateway: Gateway) -> bool:
            series = gateway.ops.history.fine()
            return bool(series.at and series.tasks_per_minute[-1] and series.running[-1])

        async def fill(gateway: Gateway) -> None:
            series = gateway.ops.history.fine()
            present = Sample(**{name: getattr(series, name)[-1] for name in Sample.__struct_fields__})
            gateway.ops.history = History()  # samples come in the order of time
            for sample in past_samples(present, minutes):
                gateway.ops.history.add(sample)

        self.wait_until(has_rates, "its workers to tell of what they did")
        self.do(fill)


def past_samples(present: Sample, minutes: int) -> list[Sample]:
    """A made-up past that leads to the present: waves of tasks."""
    samples = []
    for step in range(minutes * 30, 0, -1):
        wave = math.sin(step / 34) + 0.6 * math.sin(step / 11) + 0.04 * math.sin(step * 1.7)
        ready = max(0, round(14 * wave))
        running = min(16, round(9 + 5 * wave))
        nearness = max(0.0, 1 - step / _LEADING_STEPS)
        ready = round(_between(ready, present.ready, nearness))
        samples.append(
            Sample(
                at=present.at - 2.0 * step,
                ready=ready,
                running=round(_between(running, present.running, nearness)),
                delayed=round(_between(1 + (step // 90) % 3, present.delayed, nearness)),
                oldest_ready_age_s=round(1 + ready * 0.4, 1) if ready else None,
                workers=2,
                slots=16,
                tasks_per_minute=round(_between(62 + 14 * wave, present.tasks_per_minute, nearness), 1),
                tokens_per_minute=2600.0 * running,
                cost_usd_per_hour=0.4 * running,
            )
        )
    return samples


_LEADING_STEPS = 75


def _between(past: float, present: float, nearness: float) -> float:
    return past + (present - past) * nearness


async def record_past(state: StateStore, *, days: int, now: float) -> None:
    """A made-up past: more on working days, and by day than by night."""
    ledger = UsageLedger()
    records = []
    for hour in range(days * 24, 0, -1):
        at = now - hour * 3600.0
        moment = time.gmtime(at)
        is_weekend = moment.tm_wday >= 5
        busy = (0.25 if is_weekend else 1.0) * (0.35 + max(0.0, math.sin((moment.tm_hour - 5) / 24 * 2 * math.pi)))
        for number, (agent, model, tenant, weight) in enumerate(_MIX):
            amount = busy * weight * (1 + 0.3 * math.sin(hour * (number + 2)))
            records.append(ledger.log_record(_record(f"past-{hour}-{number}", at, agent, model, tenant, amount)))
    await state.append_once(records)


_MIX = (
    ("support", "swift-1", "acme", 1.0),
    ("support", "swift-1", "initech", 0.5),
    ("researcher", "deep-2", "globex", 0.35),
    ("researcher", "deep-2", "acme", 0.2),
    ("", "swift-1", "", 0.4),
)
_USD_PER_TOKEN = {"swift-1": 1.6e-6, "deep-2": 2.4e-5}


def _record(task_id: str, at: float, agent: str, model: str, tenant: str, amount: float) -> UsageRecord:
    tokens = int(40_000 * amount)
    return UsageRecord(
        id=f"{task_id}:0:0",
        task_id=task_id,
        provider="scripted",
        model=model,
        usage=TokenUsage(input_tokens=tokens, output_tokens=tokens // 6, cache_read_tokens=tokens // 3),
        outcome=CallOutcome.COMPLETED if amount < 1.2 else CallOutcome.CANCELLED,
        started_at=at,
        duration_ms=1800,
        cost_usd=tokens * _USD_PER_TOKEN[model],
        agent=agent,
        tenant=tenant,
    )


async def in_thread(work: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """Call something of the stage without holding up the browser."""
    return await asyncio.to_thread(work, *arguments, **more)
