"""What all measurements share: the server, how much effort to spend, and the report they fill."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from tests.benchmarks.contenders import Contender
from tests.benchmarks.programs import DriverFailed
from tests.benchmarks.report import Report
from tests.benchmarks.servers import Server

Named = TypeVar("Named")
Given = ParamSpec("Given")


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How often and how much is measured."""

    rounds: int = 5
    tasks: int = 5_000
    naps: int = 2_000
    stamps: int = 150
    in_flight: int = 1_000
    stream_seconds: float = 10.0
    answers: int = 10
    drained: int = 20_000
    """Tasks of one point of a growth curve."""
    workers: Sequence[int] = (1, 2, 4, 8)
    depths: Sequence[int] = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
    finished: Sequence[int] = (0, 1_000, 10_000, 100_000, 1_000_000)
    open_runs: Sequence[int] = (10, 100, 1_000, 10_000)
    subscribers: Sequence[int] = (1, 10, 100, 1_000)
    window_s: float = 3.0
    """How long a steady state is looked at."""
    simulated: tuple[int, int, int] = (10_000, 4, 100_000)
    """Runs at once, worker processes and waiting tasks of the simulation that checks the capacity model."""


FULL = Effort()
QUICK = Effort(
    rounds=1,
    tasks=1_000,
    naps=500,
    stamps=40,
    in_flight=200,
    stream_seconds=4.0,
    answers=2,
    drained=3_000,
    workers=(1, 2),
    depths=(10, 2_000),
    finished=(0, 2_000),
    open_runs=(10, 200),
    subscribers=(1, 20),
    window_s=2.0,
    simulated=(200, 2, 2_000),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the suite."""

    server: Server
    effort: Effort
    report: Report
    peers: Sequence[Contender] = ()
    """Those that are measured too: all that could be installed here."""
    failed: set[str] = field(default_factory=set)

    def say(self, text: str) -> None:
        """Tell whoever started the run how far it is."""
        print(text, file=sys.stderr, flush=True)

    def interleaved(self, names: Sequence[str], rounds: int | None = None) -> Iterator[tuple[int, str]]:
        """A B C C B A A B C …: whatever disturbs the machine for a while disturbs everybody alike, and nobody always
        comes after the same one, whose freed memory the server still has."""
        for turn in range(rounds or self.effort.rounds):
            for name in reversed(names) if turn % 2 else names:
                if name not in self.failed:
                    yield turn, name

    def attempt(
        self, what: str, name: str, measure: Callable[Given, Named], *args: Given.args, **kwargs: Given.kwargs
    ) -> Named | None:
        """Measure; a driver that fails becomes a line of the report, and that contender is left out from then on."""
        try:
            return measure(*args, **kwargs)
        except (DriverFailed, RuntimeError) as error:
            self.say(f"  {what}, {name}: {error}")
            self.report.failures.append(f"{what}, {name}: {error}")
            self.failed.add(name)
            return None
