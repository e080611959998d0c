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
    stamps: int = 200
    depths: Sequence[int] = (100, 10_000, 100_000)
    in_flight: int = 1_000
    stream_seconds: float = 15.0
    answers: int = 5


FULL = Effort()
QUICK = Effort(
    rounds=1, tasks=1_000, naps=500, stamps=40, depths=(100, 2_000), in_flight=200, stream_seconds=4.0, answers=2
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
        """A B C A B C …: whatever disturbs the machine for a while disturbs everybody alike."""
        for turn in range(rounds or self.effort.rounds):
            for name in names:
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
