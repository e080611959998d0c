"""kill -9 of a real scheduler process between any two writes that it makes; another process goes on with the run, comes
to the same result, and no task is run twice. On Valkey."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from queue_backends import Backend, Task, open_backend
from tests.servers import Server, fresh_stream
from tests.teams.runs.workers import Call, Workers, call_of
from worker.teams.driver import Driver
from worker.teams.plan import Loop, Plan, Role, Step, Team, Validation
from worker.teams.run_keys import DRIVERS
from worker.teams.run_state import Phase
from worker.teams.runs import Runs

ROOT = Path(__file__).parents[3]
WITHIN_S = 60.0
MOST_WRITES = 60

PLAN = Plan(
    name="three",
    teams=(
        Team(
            name="three",
            wraps_outputs=False,
            roles=(Role(name="r"),),
            steps=(
                Step(
                    name="draft",
                    role="r",
                    inputs={"topic": "{{ .input.topic }}"},
                    loop=Loop(condition='{{ if contains "more" .steps.draft.output }}yes{{ end }}', max_iterations=3),
                ),
                Step(name="never", role="r", condition="false"),
                Step(
                    name="review",
                    role="r",
                    depends_on=("draft", "never"),
                    inputs={"draft": "{{ .steps.draft.output }}"},
                    validation=Validation(contains="good", on_failure="retry", max_retries=1),
                ),
            ),
        ),
    ),
)
CALLS = {("draft", 1, 1), ("draft", 2, 1), ("review", 1, 1), ("review", 1, 2)}


def says(call: Call, task: Task) -> str:
    """Two drafts, and a review that is good the second time."""
    if call.step == "draft":
        return "more of it" if call.iteration == 1 else "all of it"
    return f"{'good' if call.attempt > 1 else 'bad'}: {task.prompt.splitlines()[0]}"


class Schedulers:
    """The program that makes mortal schedulers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def drive(self, run_id: str, count: int) -> str:
        """Have one drive a run until its n-th write; returns how it ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{run_id} {count}\n".encode())
        async with asyncio.timeout(WITHIN_S):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def schedulers(url: str) -> AsyncIterator[Schedulers]:
    """Ended with its stdin."""
    command = (sys.executable, "-m", "tests.teams.runs.mortal_scheduler", url)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    try:
        yield Schedulers(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def lease_runs_out(backend: Backend) -> None:
    """What time does to the name of a process that is dead."""
    for key in [key async for key, _ in backend.state.scan(DRIVERS)]:
        await backend.state.delete(key)


async def test_a_killed_scheduler_is_resumed_to_the_same_result(valkey_server: Server) -> None:
    """At every step boundary: around each submit, each event, each summary, and the run's end."""
    url = valkey_server.url(fresh_stream())
    async with await open_backend(url) as backend, schedulers(url) as mortals:
        runs, workers = Runs(backend.state), Workers(backend, says)
        async with workers.working():
            for count in range(1, MOST_WRITES):
                run_id = await runs.start(PLAN, {"topic": "fish"}, run_id=f"run-{count}")
                how = await mortals.drive(run_id, count)
                if how == "done":
                    break
                assert how == "killed"
                await lease_runs_out(backend)
                async with asyncio.timeout(WITHIN_S):
                    await Driver(backend, runs).drive(run_id)
                await check(runs, run_id, workers)
        assert count > 15, "a run takes more writes than that: most of the boundaries were not tried"


async def check(runs: Runs, run_id: str, workers: Workers) -> None:
    """The run has ended as it would have without any death."""
    state = (await runs.read(run_id)).state
    assert (state.phase, state.output) == (Phase.SUCCEEDED, "good: draft: all of it")
    mine = [call_of(task) for task in workers.tasks if call_of(task).run == run_id]
    assert sorted((call.step, call.iteration, call.attempt) for call in mine) == sorted(CALLS)
    assert state.tokens == 11 * len(CALLS)
    (listed,) = [each for each in await runs.list() if each.id == run_id]
    assert (listed.phase, listed.tokens) == (Phase.SUCCEEDED, state.tokens)
    assert run_id not in [each.id async for each in runs.active.all()]
