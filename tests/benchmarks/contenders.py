"""Who is measured: Shoal, its peers, and a hand-written loop that marks what a Python client can do at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import redis

from tests.benchmarks import environments
from tests.benchmarks.programs import COMPILED, Program, is_compiled
from tests.benchmarks.servers import Server

FAST = 4
Finished = Callable[[redis.Redis, int], int]
"""How many of so many tasks have a stored result, as the server sees it: the same view of every contender."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of the tables."""

    name: str
    finished: Finished
    module: str = ""
    environment: str = ""
    """The peer whose environment it needs; empty: this interpreter."""
    variant: str = ""
    settings: str = ""
    """What was set, and what it does less or more than Shoal."""
    naps: bool = True
    """Whether it can hold hundreds of waiting tasks in one process."""
    tasks_times: int = 1
    """Who is fast gets so many times as many tasks, so that everybody is looked at for long enough."""
    interpreted: bool = False
    """Whether it runs the checkout itself even where others run the compiled copy."""

    @property
    def is_peer(self) -> bool:
        return bool(self.environment)

    def program(self, role: str, server: Server, **options: object) -> Program:
        """Start its driver in a role; options become `--flags`."""
        python = environments.python_of(self.environment) if self.environment else sys.executable
        arguments = [role, "--url", server.url]
        if self.variant:
            arguments += ["--variant", self.variant]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        return Program(python, self.module, arguments, **({COMPILED: ""} if self.interpreted else {}))


def _left(command: str, key: str) -> Finished:
    def finished(client: redis.Redis, count: int) -> int:
        return count - int(client.execute_command(command, key))

    return finished


def _kept(command: str, key: str) -> Finished:
    def finished(client: redis.Redis, count: int) -> int:
        return int(client.execute_command(command, key))

    return finished


def _keys_beside(*others: str) -> Finished:
    def finished(client: redis.Redis, count: int) -> int:
        pipe = client.pipeline(transaction=False)
        pipe.dbsize()
        pipe.exists(*others)
        total, beside = pipe.execute()
        return int(total) - int(beside)

    return finished


SHOAL = Contender(
    name="**Shoal**",
    module="tests.benchmarks.drivers.shoal",
    finished=_kept("HLEN", "agent-tasks-results"),
    tasks_times=FAST,
    settings="lease, fencing, retry, usage record with its totals, content chunk and final chunk on",
)


def shoals() -> tuple[Contender, ...]:
    """Shoal as it is measured everywhere and, where that is the compiled build, the same sources interpreted."""
    if not is_compiled():
        return (SHOAL,)
    return (
        replace(SHOAL, settings=f"the compiled build; {SHOAL.settings}"),
        replace(SHOAL, name="Shoal, interpreted", interpreted=True, settings="the same sources, not compiled"),
    )


def _reference(variant: str, name: str, settings: str) -> Contender:
    return Contender(
        name=f"reference: {name}",
        module="tests.benchmarks.drivers.reference",
        finished=_kept("HLEN", "reference-results"),
        tasks_times=FAST,
        variant=variant,
        settings=settings,
    )


REFERENCE = _reference(
    "all",
    "all of Shoal's writes",
    "hand-written, one script per group commit; whatever Shoal writes for such a task, without lease, fence, retry and "
    "cancel",
)
SHORT_REFERENCE = _reference(
    "main",
    "the main writes",
    "as the other, with result, acknowledgement, a usage record of 18 bytes and a final chunk of 15 alone: "
    "no journal, totals, content chunk, expiry of results or message to who waits",
)


def _peer(name: str, finished: Finished, *, variant: str = "", settings: str = "", naps: bool = True) -> Contender:
    return Contender(
        name=f"{name} {variant}".strip(),
        module=f"tests.benchmarks.peers.{name}",
        environment=name,
        finished=finished,
        variant=variant,
        settings=settings,
        naps=naps,
    )


PEERS = (
    _peer("arq", _left("ZCARD", "arq:queue"), variant="default", settings="polls every 500 ms; results kept 1 hour"),
    _peer("arq", _left("ZCARD", "arq:queue"), variant="10ms", settings="`poll_delay=0.01`"),
    _peer("saq", _left("ZCARD", "saq:default:incomplete"), settings="defaults; results kept 10 minutes"),
    _peer("streaq", _left("XLEN", "streaq:default:queues:normal"), settings="defaults; results kept 5 minutes"),
    _peer("taskiq", _keys_beside("taskiq"), variant="list", settings="no acknowledgement: a crash loses what it held"),
    _peer("taskiq", _keys_beside("taskiq", "autoclaim:taskiq:taskiq"), variant="stream", settings="acknowledged"),
    _peer("dramatiq", _left("HLEN", "dramatiq:default.msgs"), settings="8 threads, results middleware on", naps=False),
)
