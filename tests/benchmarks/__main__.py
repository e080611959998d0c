"""Measure Shoal beside its peers on one real server, and write down who won.

python -m tests.benchmarks [--quick] [--full] [--only queue,latency,…] [--no-peers] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import platform
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks import environments
from tests.benchmarks.contenders import PEERS, Contender
from tests.benchmarks.programs import REPOSITORY
from tests.benchmarks.report import Report, render, replaced
from tests.benchmarks.rows import chunks, decoding, durability, growth, latency, memory, queue
from tests.benchmarks.run import FULL, QUICK, Run
from tests.benchmarks.servers import Server, valkey

SECTIONS: dict[str, Callable[[Run], None]] = {
    "queue": queue.measure,
    "latency": latency.measure,
    "chunks": chunks.measure,
    "decoding": decoding.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "durability": durability.measure,
}


def arguments() -> argparse.Namespace:
    """What the command line asks for. Exits with a message for an unknown section."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Shoal beside its peers.")
    parser.add_argument("--quick", action="store_true", help="one small round of each: does the suite work?")
    parser.add_argument("--full", action="store_true", help="growth up to a million tasks (about 2 GB of memory)")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each figure instead of the default")
    parser.add_argument("--no-peers", action="store_true", help="Shoal and the references alone")
    parser.add_argument("--write", type=Path, help="exchange all tables of this document for this run's")
    given = parser.parse_args()
    given.only = [name.strip() for name in given.only.split(",") if name.strip()]
    if unknown := sorted(set(given.only) - set(SECTIONS)):
        parser.error(f"--only: no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    return given


def installed_peers(report: Report) -> list[Contender]:
    """The peers whose environments are there or can be made; each other one becomes a line of the report."""
    found: list[Contender] = []
    for name in sorted({peer.environment for peer in PEERS}):
        try:
            environments.python_of(name)
        except (RuntimeError, OSError) as error:
            report.failures.append(f"{name}: its environment cannot be made: {error}")
        else:
            found += [peer for peer in PEERS if peer.environment == name]
    return found


def machine(server: Server, rounds: int, peers: Sequence[Contender]) -> str:
    """Where and with what this was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    names = sorted({peer.environment for peer in peers})
    versions = [f"{name} {environments.installed_version(name, environments.python_of(name))}" for name in names]
    ours = [f"{name} {_version(name)}" for name in ("redis", "hiredis", "msgspec", "aiohttp", "openai", "anthropic")]
    return (
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}: {os.cpu_count()} cores ({model}), "
        f"{memory_gib:.0f} GiB, {platform.system()} {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, Valkey {server.version} without persistence, loopback TCP; "
        f"{rounds} rounds of the queue, {min(3, rounds)} of the rest. With {', '.join([*ours, *versions])}."
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(missing)"


def main() -> int:
    """Measure, print, and write if asked to. 1 if a figure could not be measured; a missed target is a result."""
    given = arguments()
    effort = QUICK if given.quick else FULL
    if given.rounds:
        effort = dataclasses.replace(effort, rounds=given.rounds)
    if given.full:
        effort = dataclasses.replace(effort, depths=(*effort.depths, 1_000_000))
    with valkey() as server:
        report = Report()
        peers = [] if given.no_peers else installed_peers(report)
        report.machine = machine(server, effort.rounds, peers)
        run = Run(server=server, effort=effort, report=report, peers=peers)
        for name in given.only:
            run.failed.clear()
            try:
                SECTIONS[name](run)
            except Exception as error:  # twenty minutes of other figures must not go with it
                traceback.print_exc()
                report.failures.append(f"{name}: {type(error).__name__}: {error}")
    generated = render(report)
    print(generated)
    if given.write:
        path = REPOSITORY / given.write
        path.write_text(replaced(path.read_text(), generated))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
