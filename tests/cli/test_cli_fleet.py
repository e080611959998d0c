"""workers, drain, top, and which queue pause and resume mean."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from queue_backends import Backend, TokenUsage
from queue_backends.messages import CallOutcome, Task
from tests.cli.cli_harness import Shoal, WithBackend, pull_one
from worker.cli.queue import queue_url as url_of
from worker.cli.wording import megabytes, short_count
from worker.fleet.presence import DrainRequest, LastMinute, Presence, RunningTask, Workers
from worker.usage import UsageLedger, record_of

LIMIT_S = 30.0


def a_worker(number: int, **fields: Any) -> Presence:
    """What one of several workers on a host tells; it has one task, and a long name as pods have."""
    now = time.time()
    worker = Presence(
        id=f"shoal-worker-7d9c8b6f5-x2x4z-{number}-3f2a91c0",
        host="shoal-worker-7d9c8b6f5-x2x4z",
        pid=number,
        version="0.1.0",
        started_at=now - 3725,
        beat_at=now,
        slots=100,
        running=1,
        tasks=(RunningTask(id=f"17952440299{number:02}-0", agent="researcher", started_at=now - 60 - number),),
        tasks_done=1200,
        tasks_failed=3,
        tokens=4_500_000,
        cost_usd=12.5,
        last_minute=LastMinute(seconds=60, tasks=42, tokens=12_345, cost_usd=0.02),
        rss_bytes=123_000_000,
        health_port=8080,
    )
    return replace(worker, **fields)


def present(with_backend: WithBackend, *workers: Presence) -> None:
    """Let workers tell of themselves."""

    async def tell(backend: Backend) -> None:
        for worker in workers:
            await Workers(backend.state).tell(worker)

    with_backend(tell)


def requests(with_backend: WithBackend, *workers: Presence) -> list[DrainRequest | None]:
    """What each of the workers was asked."""

    async def look(backend: Backend) -> list[DrainRequest | None]:
        return [await Workers(backend.state).drain_requested(worker.id) for worker in workers]

    found: list[DrainRequest | None] = with_backend(look)
    return found


def test_workers_are_listed(shoal: Shoal, with_backend: WithBackend) -> None:
    """A table for people, a document a line for programs."""
    assert shoal("workers").err == "no worker is up: shoal worker\n"
    present(with_backend, a_worker(1), a_worker(2, draining=True))
    outcome = shoal("workers")
    assert outcome.code == 0
    assert [line.split()[-1] for line in outcome.out.splitlines()] == ["STATE", "works", "draining"]
    assert "4 500 000" in outcome.out
    listed = [json.loads(line) for line in shoal("workers", "--json").out.splitlines()]
    assert [(worker["pid"], worker["draining"]) for worker in listed] == [(1, False), (2, True)]


def test_what_cost_is_not_known_is_said_to_be_so(shoal: Shoal, with_backend: WithBackend) -> None:
    """A worker none of whose calls has a price, beside an idle one: neither the list nor the frame shows it as free."""
    unpriced = LastMinute(seconds=60, tasks=42, tokens=12_345, is_unpriced=True)
    present(with_backend, a_worker(1, cost_usd=0.0, is_unpriced=True, last_minute=unpriced))
    listed, frame = shoal("workers").out, shoal("top", "--once").out
    assert "$" not in listed
    assert listed.splitlines()[1].split().count("?") == 1
    assert "cost/h ?" in frame
    present(with_backend, a_worker(1, cost_usd=0.0, last_minute=LastMinute(seconds=60)))
    assert "$0.00" in shoal("workers").out
    assert "cost/h $0.00" in shoal("top", "--once").out


def test_drain_asks_the_workers_that_are_named(shoal: Shoal, with_backend: WithBackend) -> None:
    """By the beginning of the id or by host and process; the others hear nothing."""
    one, two, three = workers = a_worker(1), a_worker(2), a_worker(3)
    present(with_backend, *workers)
    outcome = shoal("drain", one.id[:-3], f"{two.host}:2")
    assert outcome.code == 0
    assert outcome.out == f"{one.id}  asked to leave\n{two.id}  asked to leave\n"
    assert [request is not None for request in requests(with_backend, *workers)] == [True, True, False]
    assert shoal("drain", "--all").out.count("asked to leave") == 3
    assert requests(with_backend, three) != [None]


def test_drain_of_an_unknown_worker_asks_nobody(shoal: Shoal, with_backend: WithBackend) -> None:
    """Exit code 4 and the names that there are, even if another name was right."""
    one = a_worker(1)
    present(with_backend, one)
    outcome = shoal("drain", one.id, "nosuch")
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.err == f"error: no worker 'nosuch': there are {one.id}\n"
    assert requests(with_backend, one) == [None]


@pytest.mark.parametrize("arguments", [(), ("x", "--all")])
def test_drain_wants_names_or_all(shoal: Shoal, arguments: tuple[str, ...]) -> None:
    """Neither none nor both."""
    outcome = shoal("drain", *arguments)
    assert outcome.code == 2
    assert "name the workers to drain, or give --all" in outcome.err


def test_waiting_for_a_worker_that_stays_ends_with_1(shoal: Shoal, with_backend: WithBackend) -> None:
    """After the timeout; the request stands."""
    one = a_worker(1)
    present(with_backend, one)
    outcome = shoal("drain", "--all", "--wait", "--timeout", "0.1", "--json")
    assert outcome.code == 1
    assert [json.loads(line)["outcome"] for line in outcome.out.splitlines()] == ["asked to leave", "still there"]


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_a_frame_fits_the_terminal(
    shoal: Shoal, with_backend: WithBackend, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    """Whatever is in it: long names, many workers, large figures, a paused queue."""
    monkeypatch.setenv("COLUMNS", str(columns))
    present(with_backend, *(a_worker(number) for number in range(1, 31)))

    async def fill(backend: Backend) -> None:
        await backend.queue.submit_many([Task(prompt="x")] * 40)
        await pull_one(backend)
        task = Task(id="1-0", prompt="x")
        record = record_of(
            task,
            turn=0,
            attempt=0,
            provider="openai",
            model="gpt-4o",
            usage=TokenUsage(input_tokens=2_000_000, output_tokens=500_000),
            outcome=CallOutcome.COMPLETED,
            started_at=time.time(),
            duration_ms=1,
        )
        await backend.state.append_once([UsageLedger().log_record(record)])

    with_backend(fill)
    shoal("pause")
    outcome = shoal("top", "--once")
    assert outcome.code == 0
    assert "\x1b" not in outcome.out
    assert max(len(line) for line in outcome.out.splitlines()) <= columns
    for figure in (
        "ready 39",
        "running 1",
        "PAUSED",
        "normal 39",
        "tasks/min 1.26k",
        "tokens/min 370k",
        "cost/h $36.00",
    ):
        assert figure in outcome.out, figure
    assert "today 2.5M tokens" in outcome.out
    assert "WORKERS 30" in outcome.out
    assert "TASKS 30" in outcome.out
    assert "… and 10 more" in outcome.out
    assert ("123 MB" in outcome.out, "1 h 2 min" in outcome.out) == (True, False), "columns stay narrow: 1 h"


def test_a_frame_of_an_idle_queue_says_what_to_do(shoal: Shoal) -> None:
    """No worker, no task, no cost."""
    outcome = shoal("top", "--once")
    assert outcome.code == 0
    assert "no worker is up: shoal worker" in outcome.out
    assert "no task is running" in outcome.out


def test_a_frame_as_json(shoal: Shoal, with_backend: WithBackend) -> None:
    """Everything that the frame shows, for programs."""
    present(with_backend, a_worker(1))
    frame = json.loads(shoal("top", "--once", "--json").out)
    assert frame["queue"]["ready"] == 0
    assert frame["workers"][0]["tasks"][0]["agent"] == "researcher"
    assert (frame["tasks_per_minute"], frame["tokens_per_minute"]) == (42, 12_345)


def test_top_without_a_queue_is_exit_code_3(shoal: Shoal) -> None:
    """As every command."""
    assert shoal("top", "--once", "--queue", "redis://127.0.0.1:1").code == 3


def test_top_on_a_terminal_leaves_with_q(queue_url: str, tmp_path: Path) -> None:
    """It draws on a screen of its own and gives the old one back."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "top", "--queue", queue_url, "--interval", "0.1"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
    )
    os.close(slave)
    try:
        written = read_until(master, b"no task is running")
        os.write(master, b"q")
        written += read_until(master, b"\x1b[?1049l")
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(LIMIT_S)
        os.close(master)
    assert b"\x1b[?1049h" in written


def test_top_in_a_pipe_writes_one_frame_after_the_other(queue_url: str, tmp_path: Path) -> None:
    """Until Ctrl-C, which is not an error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "top", "--queue", queue_url, "--interval", "0.1"],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    try:
        with process.stdout as lines:
            frames = 0
            while frames < 3:
                frames += b"shoal top" in lines.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait(LIMIT_S)


def read_until(terminal: int, end: bytes) -> bytes:
    """What a program writes to its terminal, up to and with `end`."""

    async def read() -> bytes:
        loop, found, written = asyncio.get_running_loop(), asyncio.Event(), bytearray()

        def take() -> None:
            try:
                written.extend(os.read(terminal, 65536))
            except OSError:  # the other side is closed
                loop.remove_reader(terminal)
                found.set()
            if end in written:
                found.set()

        loop.add_reader(terminal, take)
        try:
            async with asyncio.timeout(LIMIT_S):
                await found.wait()
        finally:
            loop.remove_reader(terminal)
        assert end in written, bytes(written)
        return bytes(written)

    return asyncio.run(read())


def test_pause_and_resume_take_the_name_of_a_queue(shoal: Shoal) -> None:
    """Another one on the same server; the configured one goes on."""
    assert shoal("pause", "another").out == "paused (ready: 0; running, they go on: 0)\n"
    assert json.loads(shoal("stats", "another", "--json").out)["paused"] is True
    assert json.loads(shoal("stats", "--json").out)["paused"] is False
    assert shoal("resume", "another").code == 0
    assert json.loads(shoal("stats", "another", "--json").out)["paused"] is False


@pytest.mark.parametrize(
    ("configured", "name", "meant"),
    [
        ("redis://r:6379/2?stream=a", "", "redis://r:6379/2?stream=a"),
        ("redis://r:6379/2?stream=a", "b", "redis://r:6379/2?stream=b"),
        ("redis://r:6379", "{agents:0}", "redis://r:6379?stream={agents:0}"),
        ("rediss://r:6379?ssl_cert_reqs=none&stream=a", "b", "rediss://r:6379?ssl_cert_reqs=none&stream=b"),
        ("r:6379", "b", "r:6379?stream=b"),
        ("", "b", "embedded://?stream=b"),
        ("redis://r:6379", "redis://other:6379?stream=c", "redis://other:6379?stream=c"),
        ("redis://r:6379", "other:6379", "other:6379"),
    ],
)
def test_what_a_queue_argument_means(configured: str, name: str, meant: str) -> None:
    """A name on the configured server, or a URL of its own."""
    assert url_of(configured, name) == meant


def test_figures_are_short() -> None:
    """At most five characters and a unit."""
    assert [short_count(n) for n in (0, 3.2, 940, 999.6, 12_345, 4_500_000, 1.2e9)] == [
        "0", "3.2", "940", "1k", "12.3k", "4.5M", "1.2G",
    ]  # fmt: skip
    assert [megabytes(n) for n in (0, 68_400_000, 1_230_000_000)] == ["", "68 MB", "1.2 GB"]
