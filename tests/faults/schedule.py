"""Which fault comes when, and to whom: drawn from a seed, so that the same seed draws the same schedule again."""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping, Sequence

from msgspec import Struct


class FaultKind(enum.StrEnum):
    """What is done, in the words of the report."""

    KILL = "worker killed (kill -9)"
    STOP = "worker stopped for longer than its lease (SIGSTOP)"
    HICCUP = "worker stopped for less than its lease"
    DRAIN = "worker drained and replaced (SIGTERM)"
    CUT = "worker's connections reset"
    STRAND = "worker's connections gone deaf"
    PARTITION = "worker cut off from the broker for longer than its lease"
    DELAY = "worker's packets delayed"
    LOST_REPLY = "reply to a worker's request lost"
    LOST_COMMIT = "reply to a worker's commit lost"
    CLIENT_CUT = "engine's and consumers' connections reset"
    BROKER_RESTART = "broker restarted (SIGTERM)"
    BROKER_CRASH = "broker killed (kill -9) and restarted"
    BROKER_OUTAGE = "broker away for longer than a lease"
    BROKER_HANG = "broker hung (SIGSTOP)"
    POWER_CUT = "broker and all workers killed at once (kill -9)"
    SLEEP = "broker and all workers stopped for longer than a lease (a machine's sleep)"
    BROKER_CUT = "all connections reset by the broker"
    FAILOVER = "primary killed (kill -9), replica promoted, the old one back as a replica"
    USURPED = "primary hung (SIGSTOP) until a replica was promoted, then back: two for a moment"
    SCRIPTS_FORGOTTEN = "Redis' script cache emptied"


WORKER_FAULTS = frozenset(
    {
        FaultKind.KILL,
        FaultKind.STOP,
        FaultKind.HICCUP,
        FaultKind.DRAIN,
        FaultKind.CUT,
        FaultKind.STRAND,
        FaultKind.PARTITION,
        FaultKind.DELAY,
        FaultKind.LOST_REPLY,
        FaultKind.LOST_COMMIT,
    }
)
"""Faults of one worker; the others are the broker's or the clients'."""

MACHINE_FAULTS = frozenset({FaultKind.POWER_CUT, FaultKind.SLEEP})
"""Faults of all workers and the broker together."""

BROKER_RESTARTS = frozenset(
    {
        FaultKind.BROKER_RESTART,
        FaultKind.BROKER_CRASH,
        FaultKind.BROKER_OUTAGE,
        FaultKind.FAILOVER,
        FaultKind.USURPED,
        FaultKind.POWER_CUT,
    }
)

FAILOVERS = frozenset({FaultKind.FAILOVER, FaultKind.USURPED})
"""After these another server is the primary."""

FIRST_WORK_S = 2.5
"""From a worker's start until it is up and busy."""

Mix = Mapping[FaultKind, int]
"""How many faults of each kind."""


class Fault(Struct, frozen=True, kw_only=True):
    """One fault: `at_s` after the start, to the worker in `slot`, for `seconds`."""

    at_s: float
    kind: FaultKind
    slot: int
    seconds: float

    def __str__(self) -> str:
        target = f"worker {self.slot}, " if self.kind in WORKER_FAULTS else ""
        return f"{self.at_s:8.2f} s  {self.kind.value} ({target}{self.seconds:.2f} s)"


class Schedule(Struct, frozen=True, kw_only=True):
    """All faults of a run, by time."""

    seed: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return "\n".join([f"seed {self.seed}:", *map(str, self.faults)])


def draw(seed: int, mix: Mix, *, duration_s: float, slots: int, lease_s: float) -> Schedule:
    """Spread the faults of `mix` over `duration_s`, at random but never all in one corner: each kind's n faults fall
    into n equal parts of the time.

    A worker's fault comes to one that has had time to get work since the last, so that there is something to break.
    """
    chance = random.Random(seed)
    wishes = []
    for kind in FaultKind:  # in the order of definition, whatever the mapping's
        count = mix.get(kind, 0)
        wishes += [((number + chance.random()) * duration_s / count, kind) for number in range(count)]
    free_at = [FIRST_WORK_S] * slots
    faults = []
    for at_s, kind in sorted(wishes):
        seconds, slot = chance.uniform(*_seconds(kind, lease_s)), 0
        if kind in WORKER_FAULTS:
            slot = _pick(chance, free_at, at_s)
            at_s = max(at_s, free_at[slot])
            free_at[slot] = at_s + seconds + _recovery_s(kind)
        elif kind in MACHINE_FAULTS:
            at_s = max(at_s, *free_at)
            free_at = [at_s + seconds + _recovery_s(kind)] * slots
        faults.append(Fault(at_s=at_s, kind=kind, slot=slot, seconds=seconds))
    return Schedule(seed=seed, faults=tuple(sorted(faults, key=lambda fault: fault.at_s)))


def _pick(chance: random.Random, free_at: Sequence[float], at_s: float) -> int:
    """A worker that has work at that time; if there is none, the next that will."""
    free = [slot for slot, since_s in enumerate(free_at) if since_s <= at_s]
    return chance.choice(free) if free else min(range(len(free_at)), key=lambda slot: free_at[slot])


def _recovery_s(kind: FaultKind) -> float:
    """How long a worker is left alone after a fault: to start and get work, or to do the harm that it now may do."""
    match kind:
        case FaultKind.KILL | FaultKind.DRAIN | FaultKind.POWER_CUT:
            return FIRST_WORK_S
        case FaultKind.STOP | FaultKind.PARTITION | FaultKind.SLEEP:
            return 1.0
        case _:
            return 0.2


def _seconds(kind: FaultKind, lease_s: float) -> tuple[float, float]:
    """Shortest and longest duration of a fault. For a kill and a restart: how long until the process is back."""
    match kind:
        case FaultKind.STOP | FaultKind.PARTITION | FaultKind.BROKER_OUTAGE | FaultKind.SLEEP:
            return (1.3 * lease_s, 2.5 * lease_s)
        case FaultKind.HICCUP:
            return (0.05 * lease_s, 0.3 * lease_s)
        case FaultKind.KILL | FaultKind.DRAIN | FaultKind.POWER_CUT:
            return (0.0, 0.5)
        case FaultKind.BROKER_RESTART | FaultKind.BROKER_CRASH:
            return (0.0, 0.25)
        case FaultKind.BROKER_HANG:
            return (0.1 * lease_s, 1.5 * lease_s)
        case FaultKind.DELAY:
            return (0.5 * lease_s, 2.0 * lease_s)
        case _:
            return (0.0, 0.0)
