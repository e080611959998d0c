"""One run on one terminal: driven, watched, cancelled by Ctrl-C, and told how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from queue_backends import Backend
from worker.cli.failures import FAILED, INTERRUPTED, OK
from worker.cli.interrupts import Interrupts, interrupts
from worker.cli.invocation import Invocation
from worker.cli.team_output import FORMATS, failure_text, line_document, reasons, write_file, write_json, write_text
from worker.cli.team_watch import watch_run
from worker.teams.driver import Driver
from worker.teams.errors import RunBusy, RunEnded
from worker.teams.local import LEASE_S
from worker.teams.plan import Plan, Team
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Runs

_TRY_AGAIN_S = 0.5
"""When somebody else drives a run: he may be dead, and his lease tells it by its end alone."""
_GOODBYE_S = 10.0
"""For what follows from a run's end: notifications, clearing up."""


class Look(Struct, frozen=True, kw_only=True):
    """What of a run is shown, and how."""

    is_shown: bool = False
    """While it happens."""
    is_traced: bool = False
    """At the end: all that happened, and when."""
    output: str = "text"
    """How the end is told: `text`, `json`, or the name of a file for the output."""

    @property
    def is_watched(self) -> bool:
        """JSON for programs is one document and nothing before it."""
        return self.is_shown and self.output != "json"


class Session:
    """Drives and shows one run."""

    def __init__(self, call: Invocation, backend: Backend, runs: Runs, driver: Driver, look: Look) -> None:
        self._call = call
        self._screen = call.screen
        self._backend = backend
        self._runs = runs
        self._driver = driver
        self._look = look

    async def run(self, plan: Plan, run_id: str) -> int:
        """Until the run has ended, or the user has left it. The exit code: 1 if it failed, 130 if it was cancelled
        here or left."""
        has_tree = self._screen.is_live and self._look.is_watched  # it says all that, and other lines would break it
        say = _say_nothing if has_tree else self._screen.note
        say(f"run {run_id}")
        with interrupts() as asked:
            async with self._driving(run_id) as end, self._cancelling(run_id, asked, say):
                watching = watch_run(
                    self._screen,
                    self._backend,
                    self._runs,
                    plan,
                    run_id,
                    asked=asked,
                    is_shown=self._look.is_watched,
                )
                state = await _until_quit(asyncio.create_task(watching, name="watch"), asked)
                end.has_come = state is not None
        if state is None:
            self._screen.note(f"left run {run_id}; {self._what_now(run_id, asked)}", "warn")
            return INTERRUPTED
        if self._look.is_traced:
            await self._trace(run_id, state)
        code = show_result(self._call, plan, state, self._look)
        return INTERRUPTED if asked.cancel.is_set() and state.phase is Phase.CANCELLED else code

    async def _trace(self, run_id: str, state: RunState) -> None:
        """What happened, as `shoal runs show` tells it."""
        from worker.cli.run_timeline import COLUMNS, read_events, timeline

        self._screen.line()
        self._screen.table(COLUMNS, timeline(await read_events(self._runs, run_id), state))

    def _what_now(self, run_id: str, asked: Interrupts) -> str:
        if asked.cancel.is_set():  # twice: it may not have come to its end
            return f"to be sure that it ends: shoal runs cancel {run_id}"
        queue = " --queue URL" if self._call.is_queue_given else ""
        return f"to go on with it: shoal run --resume {run_id}{queue}"

    @asynccontextmanager
    async def _driving(self, run_id: str) -> AsyncIterator[_End]:
        """While the body runs, the run is driven; if it cannot be, the body is cancelled. After the run's end, its
        driver still does what follows from that."""
        async with asyncio.TaskGroup() as tasks:
            driving = tasks.create_task(self._drive(run_id), name="driver")
            end = _End()
            yield end
            if end.has_come:
                await asyncio.wait([driving], timeout=_GOODBYE_S)
            driving.cancel()

    async def _drive(self, run_id: str) -> None:
        """Drive it as soon as nobody else does. A local run that somebody else drives for longer than a dead process'
        lease lasts is another terminal's: raises `RunBusy`."""
        give_up_at = asyncio.get_running_loop().time() + 2 * LEASE_S
        while True:
            try:
                await self._driver.drive(run_id)
            except RunBusy:
                if not self._call.is_queue_given and asyncio.get_running_loop().time() > give_up_at:
                    raise
                await asyncio.sleep(_TRY_AGAIN_S)
            else:
                return

    @asynccontextmanager
    async def _cancelling(self, run_id: str, asked: Interrupts, say: Callable[[str], None]) -> AsyncIterator[None]:
        """While the body runs, the first Ctrl-C cancels the run."""

        async def cancel() -> None:
            await asked.cancel.wait()
            say("cancelling the run; Ctrl-C again quits at once")
            try:
                await self._runs.cancel(run_id, by="Ctrl-C")
            except RunEnded:
                return

        cancelling = asyncio.create_task(cancel(), name="cancel")
        try:
            yield
        finally:
            cancelling.cancel()
            await asyncio.wait([cancelling])


class _End:
    """Whether a run's end has come."""

    has_come = False


async def _until_quit(watching: asyncio.Task[RunState], asked: Interrupts) -> RunState | None:
    """How the run ended; None if the user left before."""
    quitting = asyncio.create_task(asked.quit.wait(), name="quit")
    try:
        await asyncio.wait([watching, quitting], return_when=asyncio.FIRST_COMPLETED)
        return await watching if watching.done() else None
    finally:
        for task in (watching, quitting):
            task.cancel()
        await asyncio.wait([watching, quitting])


def _say_nothing(_: str) -> None:
    """Says nothing."""


def show_result(call: Invocation, plan: Plan, state: RunState, look: Look) -> int:
    """Tell how a run has ended. The exit code: 1 if it did not succeed."""
    team = plan.find(state.team)
    problem = _write_file(look, team, state)
    if call.screen.as_json:
        document = line_document(team, state)
        call.screen.json({"result": document} if look.is_shown else document)
    elif look.output == "json":
        write_json(call.screen, team, state)
    else:
        write_text(call.screen, team, state)
    if problem:
        call.screen.note(f"error: cannot write {look.output}: {problem}", "bad")
    if state.phase is Phase.SUCCEEDED:
        return FAILED if problem else OK
    for line in reasons(state, with_steps=not look.is_watched):
        call.screen.note(line, "bad")
    call.screen.note(f"Error: {failure_text(team, state)}", "bad")
    return FAILED


def _write_file(look: Look, team: Team, state: RunState) -> str:
    """Write the file that `--output` names, if it does. Returns why it could not be: the run has been paid for, and its
    output is on the screen all the same."""
    if look.output not in FORMATS:
        try:
            write_file(Path(look.output), team, state)
        except OSError as error:
            return error.strerror or str(error)
    return ""
