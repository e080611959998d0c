"""Measure Shoal beside its peers on one real server, and write down who won.

python -m tests.benchmarks [--quick] [--only queue,latency,…] [--no-peers] [--interpreted] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.util
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks import builds, environments
from tests.benchmarks.book import Book, write_coefficients
from tests.benchmarks.contenders import PEERS, Contender
from tests.benchmarks.programs import REPOSITORY
from tests.benchmarks.report import Report, render
from tests.benchmarks.rows import capacity, chunks, decoding, durability, engines, growth, latency, memory, queue
from tests.benchmarks.run import FULL, QUICK, Effort, Run
from tests.benchmarks.servers import Server, allocator, valkey

SECTIONS: dict[str, Callable[[Run], None]] = {
    "queue": queue.measure,
    "latency": latency.measure,
    "chunks": chunks.measure,
    "decoding": decoding.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "durability": durability.measure,
    "engines": engines.measure,
    "capacity": capacity.measure,
}
WITH_PEERS = {"queue", "latency", "memory"}
PAGE = REPOSITORY / "docs" / "benchmarks.md"
"""The page whose figures the capacity model uses."""


def arguments() -> argparse.Namespace:
    """What the command line asks for. Exits with a message for an unknown section."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Shoal beside its peers.")
    parser.add_argument("--quick", action="store_true", help="one small round of each: does the suite work?")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each figure instead of the default")
    parser.add_argument("--no-peers", action="store_true", help="Shoal and the references alone")
    parser.add_argument("--interpreted", action="store_true", help="leave the compiled build out")
    parser.add_argument("--write", type=Path, help="exchange this run's tables and plots in this document, keep others")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; write page and plots from the figures")
    given = parser.parse_args()
    given.only = [name.strip() for name in given.only.split(",") if name.strip()]
    if unknown := sorted(set(given.only) - set(SECTIONS)):
        parser.error(f"--only: no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    if given.redraw and not given.write:
        parser.error("--redraw needs --write DOCUMENT")
    if given.write and not importlib.util.find_spec("matplotlib"):
        parser.error("--write draws plots, for which matplotlib is missing: pip install 'shoal[bench]'")
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


def machine(server: Server, peers: Sequence[Contender], build: str) -> str:
    """Where and with what this was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    names = sorted({peer.environment for peer in peers})
    versions = [f"{name} {environments.installed_version(name, environments.python_of(name))}" for name in names]
    memory = "with jemalloc" if allocator() else "with the C library's malloc"
    sdks = ("openai", "anthropic", "google-genai", "ollama")
    ours = [f"{name} {_version(name)}" for name in ("redis", "hiredis", "msgspec", "aiohttp", *sdks)]
    return (
        f"Measured on {os.cpu_count()} cores ({model}), "
        f"{memory_gib:.0f} GiB, {platform.system()} {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, Valkey {server.version} {memory}, without persistence, loopback TCP. "
        f"With {', '.join([*ours, *versions])}. {build}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(missing)"


def measured(name: str, server: Server, effort: Effort, *, with_peers: bool, build: str) -> Report:
    """One section. What goes wrong in it becomes a line of its report."""
    began, report = time.monotonic(), Report(section=name)
    peers = installed_peers(report) if with_peers and name in WITH_PEERS else []
    report.machine = machine(server, peers, build)
    try:
        SECTIONS[name](Run(server=server, effort=effort, report=report, peers=peers))
    except Exception as error:  # twenty minutes of other figures must not go with it
        traceback.print_exc()
        report.failures.append(f"{name}: {type(error).__name__}: {error}")
    report.measured_at = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}"
    report.seconds = time.monotonic() - began
    return report


def write(book: Book, reports: Sequence[Report]) -> None:
    """Exchange these sections of the page."""
    book.put(reports)
    if book.page != PAGE:
        return
    try:
        write_coefficients(book.reports())
    except ValueError as error:
        print(f"the capacity model keeps its costs: {error}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and write if asked to. 1 if a figure could not be measured; a missed target is a result."""
    given = arguments()
    effort = QUICK if given.quick else FULL
    if given.rounds:
        effort = dataclasses.replace(effort, rounds=given.rounds)
    book = Book(REPOSITORY / given.write, list(SECTIONS)) if given.write else None
    reports: list[Report] = []
    build = "" if given.redraw else builds.prepare(interpreted=given.interpreted)
    for name in () if given.redraw else given.only:
        with valkey() as server:  # of its own: nothing of one section's data or statistics is left to the next
            reports.append(measured(name, server, effort, with_peers=not given.no_peers, build=build))
        print(render(reports[-1:]), flush=True)
        if book:
            write(book, reports[-1:])  # at once: what was measured stays, and `capacity` calculates with `growth`
    if book and given.redraw:
        write(book, ())
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
