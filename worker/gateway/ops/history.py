"""The recent past of the queue, for plots: sampled by this gateway, kept in its memory, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from worker.fleet.monitor import Snapshot

FINE_EVERY_S = 2.0
FINE_SAMPLES = 1800
"""An hour."""
COARSE_EVERY_S = 60.0
COARSE_SAMPLES = 1440
"""A day."""


class Sample(Struct, frozen=True, kw_only=True):
    """The fleet at one moment."""

    at: float
    """Unix seconds."""
    ready: int = 0
    running: int = 0
    delayed: int = 0
    dead: int = 0
    oldest_ready_age_s: float | None = None
    workers: int = 0
    slots: int = 0
    tasks_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    cost_usd_per_hour: float | None = 0.0
    """None: not known."""


class Series(Struct, frozen=True, kw_only=True):
    """Samples as columns of equal length, oldest first."""

    every_s: float
    """About so far apart; there are gaps where the gateway did not run, or the queue did not answer."""
    at: list[float]
    """Unix seconds."""
    ready: list[int]
    running: list[int]
    delayed: list[int]
    dead: list[int]
    oldest_ready_age_s: list[float | None]
    workers: list[int]
    slots: list[int]
    tasks_per_minute: list[float]
    tokens_per_minute: list[float]
    cost_usd_per_hour: list[float | None]


class History:
    """The last hour finely, the last day coarsely: of each minute the peaks of what is counted, the mean of rates."""

    def __init__(self) -> None:
        self._fine: deque[Sample] = deque(maxlen=FINE_SAMPLES)
        self._coarse: deque[Sample] = deque(maxlen=COARSE_SAMPLES)
        self._minute: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Keep one more; they come in the order of time."""
        self._fine.append(sample)
        if self._minute and _minute_of(self._minute[0]) != _minute_of(sample):
            self._coarse.append(_summed_up(self._minute))
            self._minute = []
        self._minute.append(sample)

    def fine(self, *, since: float = 0.0) -> Series:
        """The samples of the last hour that were taken at `since` (Unix seconds) or later."""
        return _series((sample for sample in self._fine if sample.at >= since), FINE_EVERY_S)

    def coarse(self, *, since: float = 0.0) -> Series:
        """The minutes of the last day, the present one as far as it has come."""
        minutes = [*self._coarse, *([_summed_up(self._minute)] if self._minute else [])]
        return _series((sample for sample in minutes if sample.at >= since), COARSE_EVERY_S)


def sample_of(snapshot: Snapshot) -> Sample | None:
    """What to keep of a snapshot; None if the queue did not answer."""
    stats = snapshot.queue
    if stats is None or snapshot.problem:
        return None
    age_s, usd_per_hour = stats.oldest_ready_age_s, snapshot.cost_usd_per_hour
    return Sample(
        at=round(snapshot.at, 1),
        ready=stats.ready,
        running=stats.running,
        delayed=stats.delayed,
        dead=stats.dead,
        oldest_ready_age_s=None if age_s is None else round(age_s, 1),
        workers=len(snapshot.workers),
        slots=sum(worker.slots for worker in snapshot.workers),
        tasks_per_minute=round(snapshot.tasks_per_minute, 1),
        tokens_per_minute=round(snapshot.tokens_per_minute, 1),
        cost_usd_per_hour=None if usd_per_hour is None else round(usd_per_hour, 6),
    )


def _minute_of(sample: Sample) -> int:
    return int(sample.at // COARSE_EVERY_S)


def _summed_up(samples: list[Sample]) -> Sample:
    ages = [sample.oldest_ready_age_s for sample in samples if sample.oldest_ready_age_s is not None]
    costs = [sample.cost_usd_per_hour for sample in samples if sample.cost_usd_per_hour is not None]
    return Sample(
        at=samples[0].at,
        ready=max(sample.ready for sample in samples),
        running=max(sample.running for sample in samples),
        delayed=max(sample.delayed for sample in samples),
        dead=max(sample.dead for sample in samples),
        oldest_ready_age_s=max(ages, default=None),
        workers=max(sample.workers for sample in samples),
        slots=max(sample.slots for sample in samples),
        tasks_per_minute=_mean(sample.tasks_per_minute for sample in samples),
        tokens_per_minute=_mean(sample.tokens_per_minute for sample in samples),
        cost_usd_per_hour=_mean(costs) if costs else None,
    )


def _mean(values: Iterable[float]) -> float:
    kept = list(values)
    return round(sum(kept) / len(kept), 6)


def _series(samples: Iterable[Sample], every_s: float) -> Series:
    kept = list(samples)
    columns = {name: [getattr(sample, name) for sample in kept] for name in Sample.__struct_fields__}
    return Series(every_s=every_s, **columns)
