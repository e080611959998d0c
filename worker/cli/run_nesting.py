"""Runs within a run: those of teams that do its steps."""

from __future__ import annotations

import asyncio

from queue_backends import QueueError
from worker.cli.live_tree import DEEPEST, Nested
from worker.teams.errors import TeamError
from worker.teams.run_state import RunState
from worker.teams.runs import Runs

_WITHIN_S = 5.0


async def read_nested(runs: Runs, state: RunState) -> dict[str, Nested]:
    """The runs within this one as they are now, by their ids. What cannot be read within some seconds is left out: it
    is a part of a picture, no more."""
    found: dict[str, Nested] = {}
    level = [state]
    try:
        async with asyncio.timeout(_WITHIN_S):
            for _ in range(DEEPEST):
                ids = {step.run_id for each in level for step in each.steps if step.run_id} - found.keys()
                level = []
                for run_id in ids:
                    run = await runs.read(run_id)
                    found[run_id] = Nested(run.plan, run.state)
                    level.append(run.state)
    except (TeamError, QueueError, TimeoutError):
        return found
    return found
