"""The end of a run that another program than a gateway drives: `shoal run --queue URL` drives its own."""

from __future__ import annotations

from worker.agents.roster import Roster
from worker.definitions import Definitions
from worker.settings import Settings
from worker.teams.notify.service import Notifications
from worker.teams.runs import Run, Runs
from worker.teams.triggers.service import Triggers


async def tell_end(settings: Settings, runs: Runs, run: Run) -> None:
    """Write down what follows from a run's end; the gateways carry it out. An `on_end` for `Driver`, with the first two
    arguments bound. Raises `BackendUnavailable`."""
    definitions = Definitions(runs.state)
    await definitions.load()
    triggers = Triggers(definitions, runs, Roster(settings, definitions), notifications=Notifications(runs.state))
    await triggers.on_run_end(run)
