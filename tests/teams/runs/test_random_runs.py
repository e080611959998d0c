"""Random graphs, random orders of events, schedulers that die at random moments or work twice: the run always comes to
what one step after the other comes to, and no model call is made twice."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queue_backends import Backend, open_backend
from tests.teams.runs.reference import Expected, Node, interpret, plan_of, said
from tests.teams.runs.workers import Call, Workers, call_of
from worker.approvals import Approvals
from worker.teams.around import Around
from worker.teams.run_driver import RunDriver
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Runs

WITHIN_S = 30.0


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Up to seven steps, each of which may need any of those before it."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 7))):
        needs = tuple(sorted(draw(st.sets(st.integers(0, number - 1), max_size=3)))) if number else ()
        most = draw(st.sampled_from([0, 0, 2, 3]))
        retries = draw(st.sampled_from([-1, -1, 1, 2]))
        nodes.append(
            Node(
                needs=needs,
                condition=draw(st.sampled_from(["", "", "", "no", *(["yes-of"] if needs else [])])),
                iterations=draw(st.integers(1, 4)),
                most=most,
                bad_tries=draw(st.sampled_from([0, 0, 1, 2])) if retries >= 0 else 0,
                retries=retries,
                bad_json=frozenset(draw(st.sets(st.integers(1, 3)))),
                wants_json=draw(st.booleans()),
                fails=draw(st.sampled_from([False] * 9 + [True])),
                says_yes=draw(st.booleans()),
            )
        )
    return nodes


class Died(Exception):
    """The scheduler is killed here."""


class Mortal:
    """Passes everything on to a store or a queue; dies at its n-th write, before or after it."""

    def __init__(self, inner: Any, life: Life) -> None:
        self._inner = inner
        self._life = life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in {"set", "compare_and_set", "append_once", "submit", "delete", "cancel"}:
            return found

        async def write(*args: Any, **kwargs: Any) -> Any:
            if "hello" in str(args[0]):  # of a watch, which is no part of what a scheduler does
                return await found(*args, **kwargs)
            self._life.before()
            answer = await found(*args, **kwargs)
            self._life.after()
            return answer

        return write


class Life:
    """How long a scheduler lives: so many writes, and then half of the next one, or all of it."""

    def __init__(self, writes: int, *, finishes_last: bool) -> None:
        self._left = writes
        self._finishes_last = finishes_last
        self.is_dead = False

    def before(self) -> None:
        self._left -= 1
        if self.is_dead or (self._left < 0 and not self._finishes_last):
            self._die()

    def after(self) -> None:
        if self._left < 0:
            self._die()

    def _die(self) -> None:
        self.is_dead = True
        raise Died


def around(backend: Backend, life: Life | None = None) -> Around:
    """What a scheduler needs; with a life, one that ends."""
    if life is not None:
        backend = Backend(Mortal(backend.queue, life), backend.chunks, Mortal(backend.state, life))
    return Around(backend=backend, runs=Runs(backend.state), approvals=Approvals(backend.state))


def says_of(nodes: list[Node]) -> Any:
    """The models of these steps."""

    def says(call: Call, task: Any) -> str:
        text = task.history[0]["content"] if call.purpose == "repair" else task.prompt
        prompt = "".join(f"{line}\n" for line in text.splitlines() if line.startswith(("topic:", "in")))
        return said(nodes[int(call.step[1:])], call.step, call.iteration, call.attempt, prompt)

    return says


async def driven(backend: Backend, run_id: str, lives: list[Life], *, twice: bool) -> RunState:
    """Drive a run; a scheduler that dies is followed by the next one. With `twice`, two do it at the same time."""

    async def one(lives: list[Life]) -> RunState:
        for life in lives:
            try:
                state = await RunDriver(around(backend, life), run_id).drive()
            except (Died, ExceptionGroup) as error:
                if not _is_death(error):
                    raise
            else:
                assert isinstance(state, RunState)
                return state
        state = await RunDriver(around(backend), run_id).drive()
        assert isinstance(state, RunState)
        return state

    if not twice:
        return await one(lives)
    first, second = await asyncio.gather(one(lives[::2]), one(lives[1::2]))
    assert first == second
    return first


def _is_death(error: BaseException) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(map(_is_death, error.exceptions))
    return isinstance(error, Died)


def check(nodes: list[Node], expected: Expected, state: RunState, workers: Workers) -> None:
    """The run came to what was expected, in an allowed order, and without doing anything twice."""
    assert all(count == 1 for count in workers.ran.values()), workers.ran
    calls = {(call.step, call.iteration, call.attempt): call.purpose for call in map(call_of, workers.tasks)}
    phases = {step.name: str(step.phase) for step in state.steps}
    outputs = {step.name: step.output for step in state.steps if step.phase is Phase.SUCCEEDED}
    assert state.usage.total_tokens == 11 * len(calls)
    assert state.cost_usd == (0.5 * len(calls) if calls else None)
    check_order(nodes, workers)
    if not expected.has_failed:
        assert state.phase is Phase.SUCCEEDED, state.message
        assert phases == expected.phases
        assert outputs == expected.outputs
        assert calls == expected.calls
        assert state.output == expected.output
        return
    assert (state.phase, state.reason) == (Phase.FAILED, "StepFailed")
    assert "Failed" in phases.values()
    assert calls.items() <= expected.calls.items()
    for name, phase in phases.items():  # those that were not begun in time stay as they are
        assert phase in (expected.phases[name], "Pending", "Cancelled"), (name, phase)
    assert all(expected.outputs[name] == output for name, output in outputs.items())


def check_order(nodes: list[Node], workers: Workers) -> None:
    """No step's first task was there before the last one of a step that it needs had ended."""
    started: dict[str, int] = {}
    for number, task in enumerate(workers.tasks):
        started.setdefault(call_of(task).step, number)
    prompts = {call_of(task).step: task.prompt for task in workers.tasks}
    for number, node in enumerate(nodes):
        for each in node.needs:
            if f"s{number}" in started and f"s{each}" in started:
                assert started[f"s{each}"] < started[f"s{number}"]
                assert f"in{each}: " in prompts[f"s{number}"] or "schema" in prompts[f"s{number}"]


async def one_run(nodes: list[Node], seed: int, lives: list[Life], *, twice: bool) -> None:
    backend = await open_backend("memory://")
    async with backend, asyncio.timeout(WITHIN_S):
        workers = Workers(backend, says_of(nodes), seed=seed)
        run_id = await Runs(backend.state).start(plan_of(nodes), {"topic": "fish", "no": "no"})
        async with workers.working():
            state = await driven(backend, run_id, lives, twice=twice)
        check(nodes, interpret(nodes, "fish"), state, workers)
        assert (await Runs(backend.state).read(run_id)).state == state


RELAXED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(nodes=graphs(), seed=st.integers(0, 10_000))
def test_a_run_comes_to_what_one_step_after_the_other_comes_to(nodes: list[Node], seed: int) -> None:
    """Whatever the graph and whatever order the answers come in."""
    asyncio.run(one_run(nodes, seed, [], twice=False))


@RELAXED
@given(nodes=graphs(), seed=st.integers(0, 10_000), data=st.data())
def test_a_run_comes_to_the_same_through_any_deaths_of_its_scheduler(
    nodes: list[Node], seed: int, data: st.DataObject
) -> None:
    """Each scheduler dies before or after any of its writes; the next one goes on, and no call is made twice."""
    ends = data.draw(st.lists(st.tuples(st.integers(0, 25), st.booleans()), min_size=1, max_size=6))
    lives = [Life(writes, finishes_last=finishes) for writes, finishes in ends]
    asyncio.run(one_run(nodes, seed, lives, twice=False))


@RELAXED
@given(nodes=graphs(), seed=st.integers(0, 10_000), data=st.data())
def test_two_schedulers_at_once_do_no_harm(nodes: list[Node], seed: int, data: st.DataObject) -> None:
    """They decide the same at the same time, dying now and then: each call is made once, and both see one result."""
    ends = data.draw(st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=4))
    lives = [Life(writes, finishes_last=finishes) for writes, finishes in ends]
    random.Random(seed).shuffle(lives)
    asyncio.run(one_run(nodes, seed, lives, twice=True))
