"""What a fault run needs of an engine: servers to harm, URLs to reach them, and a look inside when all is over."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import ClassVar, Protocol, Self

from msgspec import Struct

from tests.faults.evidence import Told
from tests.faults.schedule import FaultKind


class Foreigner(Protocol):
    """A program that uses an engine without our client, as an ark operator does."""

    async def add_entry(self, fields: Mapping[bytes, bytes]) -> str | None:
        """Put an entry into the queue; its task's id, or None if nobody knows whether it arrived."""
        ...

    def announcements(self) -> AsyncIterator[str]:
        """Ids of tasks whose result is announced, as far as the connection lives. Endless."""
        ...


class Inside(Struct, kw_only=True):
    """What an engine's own storage says, beyond what its `Backend` tells."""

    lists: Mapping[str, Sequence[str]] = {}
    lifetimes: Mapping[str, float | None] = {}
    left_over: Mapping[str, int] = {}
    told_otherwise: Sequence[str] = ()
    """Where the storage and the `Backend` contradict each other."""


class Broker(abc.ABC):
    """One engine's server or servers. Its methods block; those that wait for a process are called in a thread.

    The defaults are those of an engine that can do nothing special.
    """

    name: ClassVar[str]
    """The engine's name on the command line."""
    setting: ClassVar[str]
    """What is started, and how safely it keeps things: for the report."""
    kinds: ClassVar[frozenset[FaultKind]]
    """The faults that it can be put through."""
    request: ClassVar[bytes] = b""
    """What a worker's request contains, to lose the reply to one."""
    commit: ClassVar[bytes] = b""
    """What only those requests contain that store a finished model call."""
    structure: ClassVar[frozenset[str]] = frozenset()
    """What follows the queue's name in the names of those keys that may live for ever."""
    takes_back: ClassVar[frozenset[str]] = frozenset()
    """Rules that a failover may break for tasks that were under way: see `ASYNCHRONOUS` and `CONFIRMED`."""
    has_lists: ClassVar[bool] = False
    """Whether it writes ark's chunk lists."""

    @classmethod
    def absence(cls) -> str:
        """What is missing on this machine, and how to get it; empty if nothing is."""
        try:
            cls().close()
        except RuntimeError as error:
            return str(error)
        return ""

    @property
    @abc.abstractmethod
    def port(self) -> int:
        """The loopback port that a proxy may stand in front of; 0 if clients are sent on to other addresses."""

    @abc.abstractmethod
    def url(self, queue: str, port: int = 0) -> str:
        """The queue's URL, through a proxy's port if one is given."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start (again) on the same data and address; returns when it serves."""

    def stop(self) -> None:
        """End it in order."""
        raise self._cannot("stop")

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        raise self._cannot("kill")

    def freeze(self) -> None:
        """Make it hang (SIGSTOP)."""
        raise self._cannot("freeze")

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        raise self._cannot("thaw")

    @abc.abstractmethod
    def close(self) -> None:
        """End everything and delete its data."""

    def fail_over(self) -> None:
        """Kill the primary; returns when a replica serves in its place."""
        raise self._cannot("fail_over")

    def usurp(self) -> None:
        """Freeze the primary; returns when a replica serves in its place. The old one knows nothing of it."""
        raise self._cannot("usurp")

    def bring_back(self) -> None:
        """Start the old primary, or thaw it; returns when it is a replica and has caught up."""
        raise self._cannot("bring_back")

    def cut_all(self) -> None:
        """Let the server reset every connection."""
        raise self._cannot("cut_all")

    def forget_scripts(self) -> None:
        """Empty the server's cache of scripts."""
        raise self._cannot("forget_scripts")

    def foreigner(self, queue: str) -> AbstractAsyncContextManager[Foreigner] | None:
        """Somebody who uses the queue without our client; None if the engine has no other door."""
        return None

    def look_inside(self, queue: str, told: Told) -> Inside:
        """Read the storage without any of the product's code, and compare it with what was told."""
        return Inside()

    def _cannot(self, what: str) -> NotImplementedError:
        return NotImplementedError(f"{what} is not among what {self.name} can be put through: see its `kinds`")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


ASYNCHRONOUS = frozenset(
    {
        "ark list",
        "attempt went back",
        "call not in the ledger",
        "cancelled task went on",
        "chunk sequence",
        "consumer",
        "conversation",
        "dead letters",
        "duplicated result",
        "duplicated task",
        "finished turn shown again",
        "ledger",
        "lost task",
        "paid and not stored",
        "paid twice",
        "result of nobody",
        "stored turn asked again",
        "task failed",
        "tool effect missing",
        "tool effect twice",
        "turn not whole",
        "usage of a result",
        "wrong result",
    }
)
"""A replica that takes over does not have a task's last writes. All that it has fits together: so the totals still have
to be those of the records, and no worker may be troubled by it."""

CONFIRMED = frozenset({"consumer"})
"""Nothing counts as written before a replica has it. But who listens to the primary hears of it before that."""

WORKERS_AND_BROKER = frozenset(
    {
        FaultKind.KILL,
        FaultKind.STOP,
        FaultKind.HICCUP,
        FaultKind.DRAIN,
        FaultKind.POWER_CUT,
        FaultKind.SLEEP,
    }
)
"""Faults of processes that every engine can be put through."""

NETWORK = frozenset(
    {
        FaultKind.CUT,
        FaultKind.STRAND,
        FaultKind.PARTITION,
        FaultKind.DELAY,
        FaultKind.LOST_REPLY,
        FaultKind.LOST_COMMIT,
        FaultKind.CLIENT_CUT,
    }
)
"""Faults that need a proxy before one address."""

ONE_SERVER = frozenset(
    {FaultKind.BROKER_RESTART, FaultKind.BROKER_CRASH, FaultKind.BROKER_OUTAGE, FaultKind.BROKER_HANG}
)
"""Faults of an engine that is one server."""
