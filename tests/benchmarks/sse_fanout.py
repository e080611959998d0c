"""How many people can watch tasks through one gateway process, and how long a chunk takes to reach them.

    python -m tests.benchmarks.sse_fanout                       # the table of docs/tasks-api.md
    python -m tests.benchmarks.sse_fanout --subscribers 5000 --tasks 1 --rate 4 --slow 1

Four processes, as in production: a Valkey, a gateway, a client with all the connections, and this one, which plays the
worker. A chunk carries the moment at which it was handed to the broker; the client takes the time when it has read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

import psutil

from queue_backends import Backend, BackendOptions, ChunkBatch, ChunkDraft, ChunkType, Delivery, Task
from queue_backends.redis import open_backend
from tests.servers import Server, valkey_program

SAID = re.compile(rb'"content":"(\d+\.\d+) ')
LEASE_S = 3600.0


async def gateway(queue_url: str) -> None:
    """A gateway alone in its process: prints its address, ends with SIGTERM."""
    import logging

    import msgspec
    import structlog

    from worker.assembly import settle_memory
    from worker.gateway.app import build_app
    from worker.gateway.assembly import open_gateway
    from worker.gateway.server import serving
    from worker.settings import Settings

    settings = Settings(queue_url=queue_url)
    most = 100_000
    limits = {"port": 0, "auth": "off", "requests_per_minute": 0, "max_streams": most, "max_streams_per_key": most}
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = msgspec.structs.replace(settings, gateway=msgspec.structs.replace(settings.gateway, **limits))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend(queue_url, settings.backend))
        parts = await stack.enter_async_context(open_gateway(settings, backend))
        server = await stack.enter_async_context(serving(build_app(parts), settings.gateway))
        settle_memory()  # as `shoal serve` does
        print(server.url, flush=True)
        await stop.wait()


class Watcher(asyncio.Protocol):
    """One connection; a slow one stops to read once the stream has begun."""

    def __init__(self, request: bytes, client: Client, *, is_slow: bool) -> None:
        self._request = request
        self._client = client
        self._is_slow = is_slow
        self._begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note how old each chunk is."""
        now = time.time()
        if not self._begun and b"retry:" in data:
            self._begun = True
            self._client.begun += 1
            if self._is_slow:
                self._transport.pause_reading()
        self._client.delays += [now - float(said) for said in SAID.findall(data)]
        if b'"is_final":true' in data:
            self._client.ended += 1

    def connection_lost(self, error: Exception | None) -> None:
        """Count it."""
        self._client.lost += 1


class Client:
    """All watchers."""

    def __init__(self) -> None:
        self.begun = self.ended = self.lost = 0
        self.delays: list[float] = []


async def watch(url: str, task_ids: Sequence[str], subscribers: int, slow: int) -> None:
    """Open all connections, tell so, and count until a line comes; then tell the figures."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    client, loop = Client(), asyncio.get_running_loop()
    gate = asyncio.Semaphore(200)

    async def open_one(number: int) -> None:
        path = f"/v1/tasks/{task_ids[number % len(task_ids)]}/stream"
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
        async with gate:
            # From several loopback addresses: one has too few ports for many thousand connections.
            await loop.create_connection(
                lambda: Watcher(request, client, is_slow=number < slow),
                host,
                int(port),
                local_addr=(f"127.0.0.{2 + number % 8}", 0),
            )

    started = time.time()
    await asyncio.gather(*(open_one(number) for number in range(subscribers)))
    while client.begun < subscribers:
        await asyncio.sleep(0.05)
    print(json.dumps({"opened_in_s": round(time.time() - started, 2)}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    delays = sorted(client.delays)
    told: dict[str, Any] = {"received": len(delays), "ended": client.ended, "lost": client.lost}
    if delays:
        told |= {f"p{part}_ms": round(1000 * delays[int(len(delays) * part / 100)], 1) for part in (50, 90, 99)}
        told["max_ms"] = round(1000 * delays[-1], 1)
    print(json.dumps(told), flush=True)


class Process:
    """A child that speaks lines."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}  # noqa: PTH109 - as the shell has it
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.sse_fanout", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.usage = psutil.Process(self.child.pid)

    async def line(self) -> str:
        """The next line that begins as ours do."""
        assert self.child.stdout is not None
        while True:
            text = await asyncio.to_thread(self.child.stdout.readline)
            if not text:
                raise RuntimeError("a process has ended")
            if text.startswith(("http://", "{")) and "event" not in text[:20]:
                return text.strip()

    def say(self, text: str) -> None:
        """Send a line."""
        assert self.child.stdin is not None
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()

    def cpu_s(self) -> float:
        """Processor time so far."""
        times = self.usage.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Memory now."""
        return int(self.usage.memory_info().rss)

    def end(self) -> None:
        """Stop it."""
        self.child.terminate()
        self.child.wait(30)


async def measure(
    queue_url: str, subscribers: int, tasks: int, rate: float, seconds: float, slow: int, size: int
) -> dict[str, Any]:
    """One row. `rate`: chunks a second and task."""
    async with await open_backend(queue_url, BackendOptions(lease_s=LEASE_S)) as backend:
        deliveries = await begin(backend, tasks)
        serving = Process("gateway", queue_url)
        url = await serving.line()
        await asyncio.sleep(1)
        empty_bytes = serving.rss_bytes()
        watching = Process("watch", url, str(subscribers), str(slow), *[each.task.id for each in deliveries])
        opened = json.loads(await watching.line())
        await asyncio.sleep(2)
        full_bytes, cpu_before = serving.rss_bytes(), serving.cpu_s()
        started = time.time()
        sent = await talk(backend, deliveries, rate, seconds, "x" * size)
        took_s = time.time() - started
        await asyncio.sleep(3)
        busy_s = serving.cpu_s() - cpu_before
        peak_bytes = serving.rss_bytes()
        watching.say("enough")
        told = json.loads(await watching.line())
        watching.end()
        serving.end()
    expected = sent * subscribers // tasks
    return {
        "subscribers": subscribers,
        "tasks": tasks,
        "slow": slow,
        "chunk_bytes": size,
        "chunks_s": round(sent / took_s, 1),
        "events_s": round(expected / took_s),
        "missing": expected - sent * slow // tasks - told["received"] if tasks == 1 else expected - told["received"],
        **opened,
        **told,
        "cpu_percent": round(100 * busy_s / took_s),
        "us_per_event": round(1e6 * busy_s / max(1, told["received"]), 1),
        "kb_per_subscriber": round((full_bytes - empty_bytes) / subscribers / 1024, 1),
        "kb_per_subscriber_after": round((peak_bytes - empty_bytes) / subscribers / 1024, 1),
    }


async def begin(backend: Backend, tasks: int) -> list[Delivery]:
    """Tasks in our hands."""
    await backend.queue.submit_many([Task(prompt=f"task {number}") for number in range(tasks)])
    deliveries: list[Delivery] = []
    while len(deliveries) < tasks:
        deliveries += await backend.queue.pull(min(500, tasks - len(deliveries)), 5.0)
    return deliveries


async def talk(backend: Backend, deliveries: Sequence[Delivery], rate: float, seconds: float, filler: str) -> int:
    """Say something in each task, `rate` times a second, spread over the second."""
    loop = asyncio.get_running_loop()
    rounds = max(1, round(rate * seconds))
    slices = 1 if len(deliveries) == 1 else 20
    started, sent = loop.time(), 0
    for turn in range(rounds):
        for part in range(slices):
            due = started + (turn + part / slices) / rate
            await asyncio.sleep(max(0.0, due - loop.time()))
            spoken = deliveries[part::slices]
            drafts = (ChunkDraft(type=ChunkType.CONTENT, content=f"{time.time():.6f} {filler}"),)
            if spoken:
                await backend.chunks.publish([ChunkBatch(delivery=each, chunks=drafts) for each in spoken])
            sent += len(spoken)
    return sent


TABLE = (
    {"subscribers": 1000, "tasks": 1, "rate": 10.0, "slow": 0, "size": 80},
    {"subscribers": 5000, "tasks": 1, "rate": 2.0, "slow": 0, "size": 80},
    {"subscribers": 5000, "tasks": 1000, "rate": 1.0, "slow": 0, "size": 80},
    {"subscribers": 5000, "tasks": 5000, "rate": 0.2, "slow": 0, "size": 80},
    {"subscribers": 100, "tasks": 1, "rate": 20.0, "slow": 0, "size": 32_000},
    {"subscribers": 100, "tasks": 1, "rate": 20.0, "slow": 10, "size": 32_000},
)


async def main(arguments: argparse.Namespace) -> None:
    """Print a row for each case."""
    program = valkey_program()
    assert program is not None
    given = {name: getattr(arguments, name) for name in ("subscribers", "tasks", "rate", "slow", "size")}
    rows = TABLE if arguments.subscribers is None else (given,)
    with Server(program) as server:
        for number, row in enumerate(rows):
            url = server.url(f"fan{number}")
            print(json.dumps(await measure(url, seconds=arguments.seconds, **row)), flush=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["gateway"]:
        import uvloop

        uvloop.run(gateway(sys.argv[2]))
    elif sys.argv[1:2] == ["watch"]:
        import uvloop

        uvloop.run(watch(sys.argv[2], sys.argv[5:], int(sys.argv[3]), int(sys.argv[4])))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--subscribers", type=int)
        parser.add_argument("--tasks", type=int, default=1)
        parser.add_argument("--rate", type=float, default=2.0, help="chunks a second and task")
        parser.add_argument("--slow", type=int, default=0, help="how many of them take nothing")
        parser.add_argument("--size", type=int, default=80, help="bytes of text in a chunk")
        parser.add_argument("--seconds", type=float, default=15.0)
        asyncio.run(main(parser.parse_args()))
