"""How the harness talks to a driver: a command line in, lines of text out. Standard library only.

    enqueue --url U --job noop|nap --count N [--singly 1]    fill the queue; prints `DONE {"seconds", "cpu_s"}`
    trickle --url U --count N --gap-s G                      enqueue N stamps, one by one; prints `DONE {}`
    work    --url U --concurrency C                          run one worker; prints `READY`, then a line for each stamp

Every job takes a prompt of 1 KB and returns a result of 1 KB. The first nap of a worker prints `BEGAN <seconds>`. A
stamp's line is `START <milliseconds>`: the time from
just before it was enqueued until its first line ran. All clocks are the machine's monotonic one.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import logging
import random
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Protocol

TEXT = "p" * 1024
RESULT = "r" * 1024
NAP_S = 0.1
BATCH = 500
"""How many jobs the producer hands over at once, to those who take several."""
AT_ONCE = 20
"""How many calls of one job each are under way at once."""

Job = tuple[str, str]
"""Name and argument."""


async def noop(text: str) -> str:
    """Do nothing."""
    return RESULT


async def nap(text: str) -> str:
    """Wait as long as the text says, in seconds."""
    report_began()
    await asyncio.sleep(float(text.strip()))
    return RESULT


@functools.cache
def report_began() -> None:
    """Print when the first nap of this process began."""
    print(f"BEGAN {time.monotonic()}", flush=True)


async def stamp(text: str) -> str:
    """Say how long ago the producer handed this job over."""
    report_start(text)
    return RESULT


def report_start(text: str) -> None:
    """Print the start line of a stamp whose prompt is the moment of its submission."""
    sys.stdout.write(f"START {(time.monotonic() - float(text.strip())) * 1000:.3f}\n")  # one write: others have threads
    sys.stdout.flush()


def run_worker(work: Coroutine[None, None, None]) -> None:
    """Run a worker for good: on uvloop where it is installed, as Shoal's own does."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        from uvloop import new_event_loop as new_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work)


def ready() -> None:
    """Tell the harness that the worker takes jobs from now on, or will within an instant."""
    print("READY", flush=True)


def stamped() -> Job:
    """A job that carries the present moment."""
    return "stamp", repr(time.monotonic()).ljust(1024)


class Producer(Protocol):
    """The enqueueing side of a queue."""

    async def open(self) -> None:
        """Connect."""
        ...

    async def submit(self, job: Job) -> None:
        """Hand one job over, and return when the broker has it."""
        ...

    async def submit_many(self, jobs: Sequence[Job]) -> None:
        """Hand several jobs over in the fastest documented way."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...


async def gather_in_steps(producer: Producer, jobs: Sequence[Job], *, at_once: int) -> None:
    """What a producer does whose library takes one job at a time: several calls under way at once."""
    for first in range(0, len(jobs), at_once):
        await asyncio.gather(*map(producer.submit, jobs[first : first + at_once]))


async def _enqueue(producer: Producer, job: str, count: int, seconds: float, *, singly: bool) -> None:
    await producer.open()
    text = repr(seconds).ljust(1024) if job == "nap" else TEXT
    await producer.submit((job, text))  # connections and scripts are warm before the clock starts
    jobs = [(job, text)] * (count - 1)
    started, cpu = time.perf_counter(), _cpu_s()
    if singly:
        await gather_in_steps(producer, jobs, at_once=AT_ONCE)
    else:
        for first in range(0, len(jobs), BATCH):
            await producer.submit_many(jobs[first : first + BATCH])
    done(seconds=time.perf_counter() - started, cpu_s=_cpu_s() - cpu)
    await producer.close()


async def _trickle(producer: Producer, count: int, gap_s: float) -> None:
    await producer.open()
    async for _ in irregular(count, gap_s):
        await producer.submit(stamped())
    await asyncio.sleep(1.0)
    done()
    await producer.close()


async def irregular(count: int, gap_s: float) -> AsyncIterator[int]:
    """Numbers with irregular gaps, the same for everybody, so that nobody's poll is met or missed by design."""
    chance = random.Random(7)
    for number in range(count):
        await asyncio.sleep(gap_s * (0.5 + chance.random()))
        yield number


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def done(**figures: float) -> None:
    """Print the last line."""
    print("DONE " + json.dumps(figures), flush=True)


def parser() -> argparse.ArgumentParser:
    """The flags that every driver takes."""
    given = argparse.ArgumentParser()
    given.add_argument("role")
    given.add_argument("--url", required=True)
    given.add_argument("--variant", default="")
    given.add_argument("--job", default="noop")
    given.add_argument("--count", type=int, default=0)
    given.add_argument("--singly", type=int, default=0)
    given.add_argument("--gap-s", type=float, default=0.03)
    given.add_argument("--nap-s", type=float, default=NAP_S)
    given.add_argument("--concurrency", type=int, default=100)
    return given


def main(produce: Callable[[str, str], Producer], work: Callable[[str, str, int], None]) -> None:
    """Run a driver. `produce` takes URL and variant, `work` takes URL, variant and concurrency and never returns."""
    logging.disable(logging.WARNING)  # nobody's log lines are part of the comparison
    given = parser().parse_args()
    if given.role == "work":
        work(given.url, given.variant, given.concurrency)
    else:
        asyncio.run(produce_as_told(produce(given.url, given.variant), given))


async def produce_as_told(producer: Producer, given: argparse.Namespace) -> None:
    """The roles `enqueue` and `trickle`."""
    if given.role == "enqueue":
        await _enqueue(producer, given.job, given.count, given.nap_s, singly=bool(given.singly))
    else:
        await _trickle(producer, given.count, given.gap_s)
