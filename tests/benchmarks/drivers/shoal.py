"""Shoal itself, through its public entrances: the client, the worker, and a backend to subscribe with.

Beside the roles of every driver:

    first-chunks --count N               submit stamps; prints `FIRST <ms>` from submission to first chunk
    watch --count N --watch W            submit N streaming tasks, follow W of them; prints `DELAY <ms>` per piece

A worker's `--job` says what model it has: `noop` the scripted provider, `stamp`, `nap`, `burst`, `ticks`, `steady`
and `doze` those of `models`, `openai` the real OpenAI adapter with a server at `--base-url`. `tools` is a scripted
model that calls a tool in two turns before it answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec.structs import replace

import providers
import queue_backends
from queue_backends import Task
from tests.benchmarks.drivers import models
from tests.benchmarks.engines import register_engines
from tests.benchmarks.peers import protocol
from tests.benchmarks.peers.protocol import RESULT, Job

MOST_SLOTS = 1000
"""What the settings allow; more are set behind their back, to see what one process can do."""
SETTLE_S = 3.0
"""Pieces from the first seconds are left out, when tasks are still being started, as are those after the first stream
has ended: what is measured is so many streams at once, not a thousand tasks that begin or end in one moment."""

Piece = tuple[float, float]
"""When the model server sent it, and when the subscriber had it."""


def register_builtins() -> None:
    """A checkout that is not installed has no entry points."""
    register_engines()
    if "scripted" not in providers.available():
        from providers.openai_chat import OpenAIChatProvider
        from providers.scripted import ScriptedProvider

        providers.register("scripted", ScriptedProvider)
        providers.register("openai", OpenAIChatProvider)


class Producer:
    """The client library."""

    def __init__(self, url: str, variant: str) -> None:
        self._url = url
        self._fleet: Any = None
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        from worker.client import connect

        self._fleet = await self._stack.enter_async_context(connect(self._url))

    async def submit(self, job: Job) -> None:
        await self._fleet.submit(job[1])

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        await self._fleet.submit_many([text for _, text in jobs])

    async def close(self) -> None:
        await self._stack.aclose()


def environment(given: argparse.Namespace) -> dict[str, str]:
    """A worker's settings, as an operator would give them."""
    scripted = given.job in {"noop", "tools"}
    provider = "scripted" if scripted else "openai" if given.job == "openai" else f"bench-{given.job}"
    calls = (
        [{"tool_calls": [{"name": "note", "arguments": {"n": n}}]} for n in range(2)] if given.job == "tools" else []
    )
    script = {"scenarios": [{"turns": [*calls, {"text": RESULT}]}]}
    return {
        "TASK_QUEUE_URL": given.url,
        "AGENT_MODEL": "replay",
        "AGENT_PROVIDER": provider,
        "AGENT_SYSTEM_PROMPT": "x",
        "AGENT_MAX_CONCURRENT_TASKS": str(min(given.concurrency, MOST_SLOTS)),
        "AGENT_TIMEOUT_SECONDS": "600",
        "SHOAL_HEALTH_PORT": str(given.health_port),
        "SHOAL_LOG_LEVEL": "error",
        **({"SHOAL_PROVIDER_OPTIONS": json.dumps({"script": script})} if scripted else {}),
        **({"SHOAL_BASE_URL": given.base_url} if given.base_url else {}),
        **({"SHOAL_PYTHON_TOOLS": "tests.benchmarks.drivers.models:note"} if given.job == "tools" else {}),
        "SHOAL_API_KEY_ENV": "SHOAL_BENCH_KEY",
        "SHOAL_JOURNAL": "true" if given.journal else "false",
        "SHOAL_LEASE_SECONDS": str(given.lease),
    }


def work(given: argparse.Namespace) -> None:
    """Run one worker for good."""
    from worker.assembly import run_worker
    from worker.event_loop import loop_factory
    from worker.settings.load import load_settings

    settings = replace(load_settings(environment(given)), concurrency=given.concurrency)
    protocol.ready()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # as `shoal worker` does
        runner.run(run_worker(settings))


async def first_chunks(url: str, count: int, gap_s: float) -> None:
    """How soon a consumer that submitted a task sees it speak."""
    async with await queue_backends.open_backend(url) as backend:
        async for _ in protocol.irregular(count, gap_s):
            submitted_at = time.monotonic()
            task_id = await backend.queue.submit(Task(prompt=protocol.stamped()[1]))
            first = True
            async for _ in backend.chunks.subscribe(task_id):
                if first:
                    print(f"FIRST {(time.monotonic() - submitted_at) * 1000:.3f}", flush=True)
                    first = False
    protocol.done()


async def watch(url: str, count: int, watched: int, pieces: int) -> None:
    """How late the pieces of a stream are at a subscriber, most of the tasks unwatched."""
    async with await queue_backends.open_backend(url) as backend:
        ids = await backend.queue.submit_many([Task(prompt=str(pieces))] * count)
        begin_at = time.monotonic() + SETTLE_S
        followed = ids[:: max(1, count // watched)][:watched]
        seen = await asyncio.gather(*(_pieces(backend, task_id) for task_id in followed))
        deadline = time.monotonic() + 60
        while None in await backend.queue.results(ids) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)  # a result that is missing is a figure too, so there is nothing to be woken by
        results = await backend.queue.results(ids)
    end_at = min((task[-1][0] for task in seen if task), default=begin_at)
    delays = [round((had - sent) * 1000, 3) for task in seen for sent, had in task if begin_at < sent <= end_at]
    ends = [round((had - sent) * 1000, 3) for task in seen for sent, had in task if sent > max(begin_at, end_at)]
    print("DELAYS " + json.dumps(delays), flush=True)
    print("DELAYS " + json.dumps(ends), flush=True)
    protocol.done(finished=sum(result is not None and result.ok for result in results))


async def _pieces(backend: queue_backends.Backend, task_id: str) -> list[Piece]:
    found: list[Piece] = []
    async for chunk in backend.chunks.subscribe(task_id):
        now = time.monotonic()
        if chunk.type == "CONTENT":
            found += [(float(text), now) for text in chunk.content.split("|") if text]
    return found


def main() -> None:
    """Run the role that the command line names."""
    parser = protocol.parser()
    parser.add_argument("--base-url", default="")
    parser.add_argument("--watch", type=int, default=20)
    parser.add_argument("--pieces", type=int, default=100)
    parser.add_argument("--journal", type=int, default=1)
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--health-port", type=int, default=0)
    given = parser.parse_args()
    register_builtins()
    models.register()
    if given.role == "work":
        work(given)
    elif given.role == "first-chunks":
        asyncio.run(first_chunks(given.url, given.count, given.gap_s))
    elif given.role == "watch":
        asyncio.run(watch(given.url, given.count, given.watch, given.pieces))
    else:
        asyncio.run(protocol.produce_as_told(Producer(given.url, given.variant), given))


if __name__ == "__main__":
    main()
