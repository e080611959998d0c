"""Carries out a firing that somebody has claimed. Any process may, after a crash or at the same time: each step is done
once, because the runs' ids follow from the firing's, and each decision stands as soon as one has written it down."""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from queue_backends import QueueError
from worker.errors import WorkerError
from worker.teams.runs import Runs
from worker.teams.triggers.exclusion import Exclusion
from worker.teams.triggers.firing import CHAIN, FIRING, Dispatch, Firing, FiringState, Given
from worker.teams.triggers.ledger import Ledger, firing_key
from worker.teams.triggers.model import Target
from worker.teams.triggers.targets import Targets

log = structlog.get_logger(__name__)


class Performer:
    """Starts the runs of firings."""

    def __init__(self, ledger: Ledger, runs: Runs, targets: Targets) -> None:
        self._ledger = ledger
        self._runs = runs
        self._targets = targets
        self._exclusion = Exclusion(ledger, runs)

    async def perform(self, firing: Firing) -> Firing:
        """Do what is left to be done; the firing as it stands then. Raises `BackendUnavailable`: try again."""
        key = firing_key(firing)
        if firing.state is FiringState.CLAIMED:
            firing = await self._decide(key, firing)
        if firing.state is FiringState.GOING:
            dispatches = await self._start(firing)
            await self._exclusion.settle(firing)
            state = FiringState.FIRED if any(each.run_id for each in dispatches) else FiringState.FAILED
            done = replace(firing, state=state, dispatches=dispatches)
            firing = await self._ledger.advance(firing, done)
            if firing == done:
                _tell(firing)
        return await self._ledger.note(firing)

    async def _decide(self, key: str, firing: Firing) -> Firing:
        """Whether it goes on. The first decision that is written down counts."""
        against = await self._exclusion.enter(key, firing)
        if not against:
            decided = await self._ledger.advance(firing, replace(firing, state=FiringState.GOING))
            if decided.state is FiringState.SKIPPED:
                await self._exclusion.leave(decided)
            return decided
        skipped = replace(firing, state=FiringState.SKIPPED, reason=against)
        decided = await self._ledger.advance(firing, skipped)
        if decided == skipped:
            log.info("a firing is skipped", trigger=firing.trigger, firing=firing.id, reason=against)
        return decided

    async def _start(self, firing: Firing) -> tuple[Dispatch, ...]:
        given = await self._ledger.given(firing)
        return tuple(
            [
                await self._dispatch(firing, target, run_id, given)
                for target, run_id in zip(firing.targets, firing.run_ids, strict=True)
            ]
        )

    async def _dispatch(self, firing: Firing, target: Target, run_id: str, given: Given) -> Dispatch:
        name = target.team or target.agent
        try:
            started = await self._runs.start(
                self._targets.plan(target, firing.namespace),
                self._targets.given(target, firing, given),
                run_id=run_id,
                tenant=firing.tenant,
                trigger=firing.trigger,
                labels={CHAIN: str(firing.chain), FIRING: firing.id},
            )
        except QueueError:
            raise
        except WorkerError as error:
            return Dispatch(target=name, error=str(error)[:1000])
        except Exception:
            log.exception("a trigger's target cannot be run", trigger=firing.trigger, target=name)
            return Dispatch(target=name, error="something went wrong in the gateway; its log has the reason")
        return Dispatch(target=name, run_id=started)


def _tell(firing: Firing) -> None:
    told = {"trigger": firing.trigger, "source": firing.source, "firing": firing.id, "runs": list(firing.started)}
    if firing.error:
        log.warning("a trigger has fired, and not all of its targets run", error=firing.error, **told)
    else:
        log.info("a trigger has fired", **told)
