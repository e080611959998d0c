"""Load of a given shape, and those who listen to it.

    fill   --count N --prompt-bytes B          submit N tasks in bulk; prints `DONE {"seconds", "cpu_s"}`
    steady --count N --told JSON               submit N tasks for the provider `steady`; prints `DONE {}`
    drain  --count N                           submit N tasks in bulk; prints `SUBMITTED <seconds>`, `FIRST` when the
                                               first have a result, and `DONE {"tasks", "seconds"}`, from then on
    follow --count N --each S --told JSON      submit N such tasks and follow each S times; prints `READY` when every
           --backends 0|1                      subscription has heard something, then, at the end of `--window-s`,
                                               `DONE {"pieces", "cpu_s", "p50_ms", "p99_ms"}`; with `--backends 1` each
                                               subscription has a backend, and so connections, of its own

`--told` is the prompt of `models.Steady`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from contextlib import AsyncExitStack

import queue_backends
from queue_backends import Backend, Task
from tests.benchmarks.drivers.shoal import register_builtins
from tests.benchmarks.figures import percentile
from tests.benchmarks.peers import protocol

PER_CALL = 1_000
SAMPLE = 100
HEARD_WITHIN_S = 60.0


async def fill(backend: Backend, count: int, prompt: str) -> None:
    """Submit in bulk."""
    started, cpu = time.perf_counter(), _cpu_s()
    task = Task(prompt=prompt)
    for first in range(0, count, PER_CALL):
        await backend.queue.submit_many([task] * min(PER_CALL, count - first))
    protocol.done(seconds=time.perf_counter() - started, cpu_s=_cpu_s() - cpu)


async def drain(backend: Backend, count: int) -> None:
    """Submit, then look how results come, by one task in a hundred, through any engine."""
    started = time.perf_counter()
    task, ids = Task(prompt=protocol.TEXT), list[str]()
    for first in range(0, count, PER_CALL):
        ids += await backend.queue.submit_many([task] * min(PER_CALL, count - first))
    print(f"SUBMITTED {time.perf_counter() - started}", flush=True)
    looked_at = ids[SAMPLE - 1 :: SAMPLE]
    first_at, first_done, done = 0.0, 0, 0
    while done < len(looked_at):
        await asyncio.sleep(0.005)  # no engine tells of the results of a hundred tasks
        done = sum(result is not None for result in await backend.queue.results(looked_at))
        if done and not first_done:
            first_at, first_done = time.perf_counter(), done
            print("FIRST", flush=True)
    seconds = time.perf_counter() - first_at
    protocol.done(tasks=max(1, len(looked_at) - first_done) * SAMPLE, seconds=seconds)


class Audience:
    """All subscriptions of this process, and what they hear."""

    def __init__(self, expected: int) -> None:
        self._silent = expected
        self.all_heard = asyncio.Event()
        self.delays_ms: list[float] = []
        self.pieces = 0

    async def follow(self, backend: Backend, task_id: str) -> None:
        """Listen to one task."""
        heard = False
        async for chunk in backend.chunks.subscribe(task_id):
            now = time.monotonic()
            if chunk.type == "CONTENT":
                self.pieces += 1
                self.delays_ms.append((now - float(chunk.content[:17])) * 1000)
            if not heard:
                heard = True
                self._silent -= 1
                if not self._silent:
                    self.all_heard.set()


async def follow(given: argparse.Namespace) -> None:
    """Submit, subscribe, and count for a while once everybody hears something."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await queue_backends.open_backend(given.url))
        ids = await backend.queue.submit_many([Task(prompt=given.told)] * given.count)
        audience = Audience(given.count * given.each)
        listening = [
            asyncio.create_task(audience.follow(await _own(stack, given, backend), task_id))
            for task_id in ids
            for _ in range(given.each)
        ]
        async with asyncio.timeout(HEARD_WITHIN_S):
            await audience.all_heard.wait()
        await asyncio.sleep(1.0)
        audience.delays_ms.clear()
        audience.pieces, cpu = 0, _cpu_s()
        protocol.ready()
        await asyncio.sleep(given.window_s)
        spent = _cpu_s() - cpu
        delays = audience.delays_ms or [float("nan")]
        protocol.done(pieces=audience.pieces, cpu_s=spent, p50_ms=percentile(delays, 50), p99_ms=percentile(delays, 99))
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def _own(stack: AsyncExitStack, given: argparse.Namespace, shared: Backend) -> Backend:
    if not given.backends:
        return shared
    return await stack.enter_async_context(await queue_backends.open_backend(given.url))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def _submit(given: argparse.Namespace) -> None:
    async with await queue_backends.open_backend(given.url) as backend:
        if given.role == "drain":
            await drain(backend, given.count)
        else:
            await fill(backend, given.count, given.told or "p" * given.prompt_bytes)


def main() -> None:
    """Run the role that the command line names."""
    parser = protocol.parser()
    parser.add_argument("--prompt-bytes", type=int, default=1024)
    parser.add_argument("--told", default="")
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--backends", type=int, default=0)
    parser.add_argument("--window-s", type=float, default=3.0)
    given = parser.parse_args()
    register_builtins()
    json.loads(given.told or "{}")
    asyncio.run(follow(given) if given.role == "follow" else _submit(given))


if __name__ == "__main__":
    main()
