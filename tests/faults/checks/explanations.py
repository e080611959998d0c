"""Which fault can be the reason why a worker could not finish what it had begun.

A model call whose last byte was sent is paid. If its worker is killed before the answer is stored, the call has to be
made again, and nobody could have avoided it. Such a call needs an alibi: a fault, at that time, to that worker.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.diaries import Injected
from tests.faults.schedule import FaultKind

REACH_S = 1.0
"""Between an answer's last byte and its storing lie milliseconds; more on a busy machine, but not this much."""
DEAF_S = 20.0
"""A connection gone deaf is noticed by its time limits only."""
SHORTEST_OUTAGE = 1 / 3
"""Parts of a lease: a broker that was away for less cannot be why a lease ran out, because a third is left at least."""

_KILLS = frozenset({FaultKind.KILL, FaultKind.POWER_CUT})
_ALWAYS = _KILLS | {FaultKind.STOP, FaultKind.DRAIN, FaultKind.PARTITION, FaultKind.STRAND, FaultKind.SLEEP}
_IF_LONG = frozenset(
    {
        FaultKind.BROKER_RESTART,
        FaultKind.BROKER_CRASH,
        FaultKind.BROKER_OUTAGE,
        FaultKind.BROKER_HANG,
        FaultKind.FAILOVER,
        FaultKind.USURPED,
        FaultKind.HICCUP,
    }
)


class Explanations:
    """The faults of a run, asked for alibis."""

    def __init__(self, faults: Sequence[Injected], lease_s: float) -> None:
        self._faults = faults
        self._lease_s = lease_s

    def of(self, worker: str, start: float, end: float) -> str:
        """The kind of fault that kept `worker` from storing what it did between two moments; empty if none did."""
        here = [fault for fault in self._faults if fault.target in (worker, "broker", "all")]
        end = self._could_store_at(here, end)
        for fault in here:
            if self._ends_runs(fault) and fault.at <= end + REACH_S and start <= self._over_at(fault):
                return fault.kind
        return ""

    def _could_store_at(self, faults: Sequence[Injected], end: float) -> float:
        """While the broker was away or the worker stood still, nothing could be stored: so much later, then."""
        for fault in sorted(faults, key=lambda fault: fault.at):
            if fault.at <= end + REACH_S and fault.until >= end and fault.kind not in _KILLS:
                end = max(end, fault.until + (DEAF_S if fault.kind == FaultKind.STRAND else 0))
        return end

    def _ends_runs(self, fault: Injected) -> bool:
        if fault.kind in _ALWAYS:
            return True
        return fault.kind in _IF_LONG and fault.until - fault.at >= SHORTEST_OUTAGE * self._lease_s

    def _over_at(self, fault: Injected) -> float:
        """A lease that is lost is noticed at the next renewal, and what was begun until then is in vain."""
        if fault.kind in _KILLS:
            return fault.at
        return fault.until + self._lease_s + (DEAF_S if fault.kind == FaultKind.STRAND else 0)
