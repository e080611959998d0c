"""Which of the fleet's runs want to be driven: a mirror of the active ones in this process, cheap for any number of
runs that rest."""

from __future__ import annotations

import heapq
import time

from worker.teams.active_runs import ActiveRun

REMEMBERED_S = 300.0
"""An answer may become known a moment before it is known that a run rests until then."""


class WaitingRuns:
    """Runs that are ready, and those that rest until a moment or an answer. Local ones belong to others."""

    def __init__(self) -> None:
        self.ready: dict[str, ActiveRun] = {}
        """In the order in which they became so."""
        self._resting: dict[str, ActiveRun] = {}
        self._moments: list[tuple[float, str]] = []
        self._asked: dict[str, str] = {}
        """Approval -> the run that waits for it."""
        self._answered: dict[str, float] = {}

    def known(self) -> set[str]:
        """All of them."""
        return {*self.ready, *self._resting}

    def put(self, run: ActiveRun) -> None:
        """What is known of a run now."""
        self.drop(run.id)
        if run.is_local:
            return
        if run.rests_until <= time.time() or any(each in self._answered for each in run.waits_for):
            self.ready[run.id] = run
        else:
            self._rest(run)

    def _rest(self, run: ActiveRun) -> None:
        self._resting[run.id] = run
        heapq.heappush(self._moments, (run.rests_until, run.id))
        for approval_id in run.waits_for:
            self._asked[approval_id] = run.id

    def later(self, run_id: str, moment: float) -> None:
        """Leave a ready run alone until then (Unix seconds)."""
        if (run := self.ready.pop(run_id, None)) is not None:
            self._rest(ActiveRun(id=run_id, rests_until=moment, put_at=run.put_at))

    def drop(self, run_id: str) -> None:
        """Nothing is to be done for it."""
        self.ready.pop(run_id, None)
        if (resting := self._resting.pop(run_id, None)) is not None:
            for approval_id in resting.waits_for:
                self._asked.pop(approval_id, None)

    def answered(self, approval_id: str) -> None:
        """A person has answered: whoever waited for that is ready."""
        now = time.time()
        for each in [each for each, at in self._answered.items() if at < now - REMEMBERED_S]:
            del self._answered[each]
        self._answered[approval_id] = now
        if (run_id := self._asked.get(approval_id)) is not None:
            self.wake(run_id)

    def wake(self, run_id: str) -> None:
        """It is ready now."""
        if (run := self._resting.get(run_id)) is not None:
            self.drop(run_id)
            self.ready[run_id] = run

    def asked(self) -> list[str]:
        """The approvals that are waited for."""
        return list(self._asked)

    def next_moment(self, now: float) -> float | None:
        """Have those be ready whose time has come; returns when that happens next. Unix seconds."""
        while self._moments:
            moment, run_id = self._moments[0]
            run = self._resting.get(run_id)
            if run is not None and run.rests_until == moment:
                if moment > now:
                    return moment
                self.wake(run_id)
            heapq.heappop(self._moments)
        return None
