"""What a run does beside its graph: time, budgets, cancels, checks, people, other teams. On a queue in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from queue_backends import Backend, LogRecord, Task, TokenUsage, open_backend
from tests.teams.runs.workers import FAIL, Call, Workers, call_of
from worker.approvals import Approvals
from worker.teams import doing, run_driver
from worker.teams.around import Resting
from worker.teams.driver import Driver
from worker.teams.errors import BadInput, RunBusy, RunEnded, RunNotFound
from worker.teams.folding import Folding
from worker.teams.plan import (
    Approval,
    ContextPolicy,
    InputSpec,
    Loop,
    Plan,
    Role,
    Step,
    Team,
    Validation,
)
from worker.teams.run_events import (
    CancelRequested,
    ChildEnded,
    Collected,
    Delegated,
    RunStarted,
    StepStarted,
)
from worker.teams.run_header import RunHeader
from worker.teams.run_keys import DRIVERS, driver_key, events_log
from worker.teams.run_state import Phase, RunState
from worker.teams.runs import Runs

WITHIN_S = 30.0
SHORT_LEASE_S = 0.4
SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A queue and a state store in memory."""
    async with await open_backend("memory://") as opened:
        yield opened


def team(*steps: Step, **fields: Any) -> Plan:
    """A plan of one team with these steps, each done by the role of its name if none is told."""
    roles = fields.pop("roles", tuple(Role(name=name) for name in dict.fromkeys(step.role for step in steps)))
    others = fields.pop("others", ())
    made = Team(name="team", roles=roles, steps=steps, **{"wraps_outputs": False, **fields})
    return Plan(name="team", teams=(made, *others))


def echo(call: Call, task: Task) -> str:
    """A model that says what it is."""
    return f"{call.step}:{call.iteration}"


async def run(backend: Backend, plan: Plan, says: Any = echo, **given: Any) -> tuple[RunState, Workers]:
    """Start a run and drive it to its end."""
    workers = Workers(backend, says)
    runs = Runs(backend.state)
    run_id = await runs.start(plan, given)
    async with asyncio.timeout(WITHIN_S), workers.working():
        return await Driver(backend, runs).drive(run_id), workers


async def until(runs: Runs, run_id: str, wanted: Any) -> RunState:
    """Follow a run until something holds for it."""
    async with asyncio.timeout(WITHIN_S):
        async for state in runs.follow(run_id):
            if wanted(state):
                return state
    raise AssertionError("the run has ended before")


# Templates, inputs, what tasks carry


async def test_each_task_says_whose_work_it_is(backend: Backend) -> None:
    """A worker can find the plan, the role and the run by what the task carries, and all share the run's trace."""
    plan = team(
        Step(name="a", role="a", inputs={"topic": "{{ .input.topic }}"}, model="big", provider="mock"),
        Step(name="b", role="b", depends_on=("a",), inputs={"text": "{{ .steps.a.output }}"}),
    )
    state, workers = await run(backend, plan, topic="fish")
    first, second = workers.tasks
    assert first.prompt == "topic: fish\n"
    assert second.prompt == "text: a:1\n"
    assert first.meta == {
        "run_name": state.id,
        "step_name": "a",
        "team_plan": plan.digest,
        "team_name": "team",
        "team_role": "a",
        "team_purpose": "step",
    }
    assert first.overrides == {"model": "big", "provider": "mock"}
    assert first.agent == "team.a"
    trace = (await Runs(backend.state).header(state.id)).traceparent.split("-")[1]
    assert [task.traceparent.split("-")[1] for task in workers.tasks] == [trace, trace]
    assert first.traceparent != second.traceparent


async def test_input_is_checked_before_a_run_begins(backend: Backend) -> None:
    """Nothing is started with an input that does not fit."""
    plan = team(Step(name="a", role="a"), inputs=(InputSpec(name="topic", required=True),))
    runs = Runs(backend.state)
    with pytest.raises(BadInput, match="topic"):
        await runs.start(plan, {})
    assert await runs.list() == []


async def test_a_run_id_is_started_once(backend: Backend) -> None:
    """The second start with an id returns the first run as it is."""
    runs, plan = Runs(backend.state), team(Step(name="a", role="a"))
    assert await runs.start(plan, {"x": "1"}, run_id="mine") == "mine"
    assert await runs.start(plan, {"x": "2"}, run_id="mine") == "mine"
    assert (await runs.read("mine")).state.input == {"x": "1"}
    assert [each.id for each in await runs.list()] == ["mine"]


async def test_artifacts_are_handed_over(backend: Backend) -> None:
    """A step is told of the artifacts of earlier steps that it names."""
    plan = team(
        Step(name="a", role="a"),
        Step(name="b", role="b", depends_on=("a",), inputs={"x": "1"}, input_artifacts={"report": "a.report.md"}),
    )
    runs = Runs(backend.state)
    run_id = await runs.start(plan, {})

    async def work() -> list[Task]:
        from queue_backends import Ack, TaskResult

        seen: list[Task] = []
        while len(seen) < 2:
            for delivery in await backend.queue.pull(1, 5.0):
                seen.append(delivery.task)
                result = TaskResult(task_id=delivery.task.id, output="x", artifacts={"report.md": "file:///r.md"})
                await backend.commit([Ack(delivery=delivery, result=result)])
        return seen

    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        working = group.create_task(work())
        state = await Driver(backend, runs).drive(run_id)
    assert working.result()[1].prompt == "x: 1\n\nArtifacts:\nreport: file:///r.md\n"
    assert state.step("a").artifacts == {"report.md": "file:///r.md"}


async def test_a_step_whose_inputs_cannot_be_rendered_fails(backend: Backend) -> None:
    """The message says where in the template."""
    state, workers = await run(backend, team(Step(name="a", role="a", inputs={"x": "{{ index .input.list 9 }}"})))
    assert workers.tasks == []
    assert (state.phase, state.reason) == (Phase.FAILED, "StepFailed")
    assert "steps.a.inputs.x:1:" in state.step("a").message


async def test_an_output_that_cannot_be_rendered_fails_the_run(backend: Backend) -> None:
    """All steps have succeeded, and the run says what is wrong with its output."""
    state, _ = await run(backend, team(Step(name="a", role="a"), output="{{ index .steps 5 }}"))
    assert (state.phase, state.reason) == (Phase.FAILED, "BadTemplate")
    assert "output:1:" in state.message


async def test_steps_that_depend_on_each_other_do_not_hang(backend: Backend) -> None:
    """A plan that no reader lets pass still ends."""
    plan = team(Step(name="a", role="a", depends_on=("b",)), Step(name="b", role="b", depends_on=("a",)))
    state, _ = await run(backend, plan)
    assert state.phase is Phase.FAILED
    assert "a, b" in state.message


# Loops, schemas, validation, context


async def test_a_loop_repeats_until_its_condition_is_false(backend: Backend) -> None:
    """It sees the output of the iteration that has just ended, and never goes beyond its limit."""
    more = '{{ if ne .steps.a.output "a:3" }}yes{{ end }}'
    state, workers = await run(backend, team(Step(name="a", role="a", loop=Loop(condition=more, max_iterations=9))))
    assert (state.step("a").iteration, state.output, len(workers.tasks)) == (3, "a:3", 3)
    state, workers = await run(backend, team(Step(name="a", role="a", loop=Loop(condition="yes", max_iterations=4))))
    assert (state.step("a").iteration, len(workers.tasks)) == (4, 4)


async def test_a_hundred_iterations_of_a_loop(backend: Backend) -> None:
    """The longest loop that is allowed, with a log of hundreds of events."""
    state, workers = await run(backend, team(Step(name="a", role="a", loop=Loop(condition="yes", max_iterations=100))))
    assert (state.phase, state.output, len(workers.tasks)) == (Phase.SUCCEEDED, "a:100", 100)
    assert state.tokens == 1100
    assert (await Runs(backend.state).read(state.id)).state == state


async def test_one_repair_turn_for_an_answer_that_is_no_json(backend: Backend) -> None:
    """The model is shown its answer and what was wrong; `.data` has the parsed second one."""

    def says(call: Call, task: Task) -> str:
        return '{"n": 3}' if call.purpose == "repair" else '{"n": "three"}'

    plan = team(
        Step(name="a", role="a", inputs={"q": "how many"}, output_schema=SCHEMA), output="{{ .steps.a.data.n }}"
    )
    state, workers = await run(backend, plan, says)
    assert (state.output, state.step("a").data, state.step("a").tries) == ("3", {"n": 3}, 2)
    repair = workers.tasks[1]
    assert [message["role"] for message in repair.history] == ["user", "assistant"]
    assert repair.history[1]["content"] == '{"n": "three"}'
    assert "n: " in repair.prompt


async def test_a_second_wrong_answer_succeeds_without_data(backend: Backend) -> None:
    """As in ark; the message says so."""
    state, workers = await run(backend, team(Step(name="a", role="a", output_schema=SCHEMA)), lambda *_: "three")
    assert (state.phase, state.step("a").data, state.output) == (Phase.SUCCEEDED, None, "three")
    assert "no data" in state.step("a").message
    assert len(workers.tasks) == 2


async def test_validation_retries_and_then_fails(backend: Backend) -> None:
    """Watchers see each retry; after the last one the step has failed with ark's words."""
    validation = Validation(contains="good", on_failure="retry", max_retries=2)
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a", validation=validation)), {})
    seen: list[str] = []

    async def follow() -> None:
        async for state in runs.follow(run_id):
            if state.steps[0].message not in seen:
                seen.append(state.steps[0].message)

    async with asyncio.timeout(WITHIN_S), Workers(backend, lambda *_: "bad").working(), asyncio.TaskGroup() as group:
        group.create_task(follow())
        state = await Driver(backend, runs).drive(run_id)
    problem = 'validation failed: output does not match pattern "good"'
    assert [message for message in seen if message] == [f"[retry 1] {problem}", f"[retry 2] {problem}", problem]
    assert (state.phase, state.step("a").phase, state.step("a").tries) == (Phase.FAILED, Phase.FAILED, 3)


async def test_a_semantic_check_is_a_task_of_its_own(backend: Backend) -> None:
    """It is asked of the model that the step names, and its no counts."""

    def says(call: Call, task: Task) -> str:
        if call.purpose == "check":
            return "INVALID: too short" if call.attempt == 1 else "VALID"
        return f"try {call.attempt}"

    validation = Validation(semantic="long enough", semantic_model="judge", on_failure="retry", max_retries=1)
    state, workers = await run(backend, team(Step(name="a", role="a", validation=validation)), says)
    assert (state.output, state.step("a").validated) == ("try 2", True)
    assert [call_of(task).purpose for task in workers.tasks] == ["step", "check", "step", "check"]
    assert workers.tasks[1].overrides == {"system_prompt": "", "model": "judge"}
    assert "too short" in workers.tasks[2].prompt


async def test_outputs_are_compressed_for_later_steps(backend: Backend) -> None:
    """By a task of its own; what the agent said stays readable as `rawOutput`."""
    policy = ContextPolicy(strategy="compress", model="small")
    plan = team(
        Step(name="a", role="a", context_policy=policy),
        Step(name="b", role="b", depends_on=("a",), inputs={"x": "{{ .steps.a.output }}|{{ .steps.a.rawOutput }}"}),
    )
    state, workers = await run(backend, plan, lambda call, task: "short" if call.purpose == "compress" else "very long")
    assert (state.step("a").output, state.step("a").raw_output) == ("short", "very long")
    assert workers.tasks[-1].prompt == "x: short|very long\n"
    assert workers.tasks[1].overrides == {"system_prompt": "", "model": "small"}


async def test_long_outputs_are_cut(backend: Backend) -> None:
    """What later steps see of an output is bounded."""
    state, _ = await run(backend, team(Step(name="a", role="a", max_output_bytes=100)), lambda *_: "é" * 1000)
    assert state.output.startswith("é" * 50)
    assert len(state.output) < 200


# Failures, budgets, time


async def test_a_failed_step_lets_others_finish_and_starts_none(backend: Backend) -> None:
    """What runs beside it comes to its own end; what depends on it is never begun, and stays pending as in ark."""
    plan = team(
        Step(name="bad", role="bad"),
        Step(name="good", role="good"),
        Step(name="after", role="after", depends_on=("bad",)),
    )
    state, _ = await run(backend, plan, lambda call, task: f"{FAIL}no" if call.step == "bad" else "fine")
    assert (state.phase, state.reason, state.message) == (Phase.FAILED, "StepFailed", "one or more steps failed")
    phases = {step.name: step.phase for step in state.steps}
    assert phases == {"bad": Phase.FAILED, "good": Phase.SUCCEEDED, "after": Phase.PENDING}
    assert state.step("bad").message == f"{FAIL}no"


async def test_a_token_budget_ends_the_run(backend: Backend) -> None:
    """The first step that goes over it is the last one."""
    plan = team(Step(name="a", role="a"), Step(name="b", role="b", depends_on=("a",)), max_tokens=10)
    state, workers = await run(backend, plan)
    assert (state.phase, state.reason) == (Phase.FAILED, "BudgetExceeded")
    assert state.message == "token budget of 10 exceeded: used 11"
    assert {step.name: step.phase for step in state.steps} == {"a": Phase.SUCCEEDED, "b": Phase.PENDING}
    assert len(workers.tasks) == 1


@pytest.mark.parametrize("word", ["flow", "pipeline"])
async def test_a_run_that_takes_too_long_is_ended_with_its_tasks(backend: Backend, word: str) -> None:
    """Its running task is cancelled, and steps that have not ended say why."""
    plan = team(Step(name="a", role="a"), Step(name="b", role="b", depends_on=("a",)), timeout_s=0.3, word=word)
    runs = Runs(backend.state)
    run_id = await runs.start(plan, {})
    async with asyncio.timeout(WITHIN_S):
        state = await Driver(backend, runs).drive(run_id)  # no worker: the task waits for ever
    assert (state.phase, state.reason) == (Phase.FAILED, "TimedOut")
    assert state.message == f"{word} exceeded timeout of 0.3s"
    assert {step.phase for step in state.steps} == {Phase.FAILED}
    (result,) = await backend.queue.results([state.step("a").task_id])
    assert result is not None
    assert result.error == "run cancelled"


async def test_a_step_that_takes_too_long_fails(backend: Backend) -> None:
    """Its task is cancelled; the message says how long it had."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a", timeout_s=0.2)), {})
    async with asyncio.timeout(WITHIN_S):
        state = await Driver(backend, runs).drive(run_id)
    assert (state.reason, state.step("a").message) == ("StepFailed", "step exceeded timeout of 0.2s")


async def test_what_was_done_in_time_counts_though_nobody_looked(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler was away when the last step ended, and comes back after the time-out: the run has succeeded."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a"), timeout_s=600), {})
    workers = Workers(backend, echo)
    async with asyncio.timeout(WITHIN_S), workers.working():
        driving = asyncio.create_task(Driver(backend, runs).drive(run_id))
        await until(runs, run_id, lambda state: state.step("a").task_id)
        driving.cancel()
        await asyncio.wait([driving])
        await backend.queue.wait((await runs.read(run_id)).state.step("a").task_id, WITHIN_S)
    monkeypatch.setattr(run_driver, "time", SimpleNamespace(time=lambda: time.time() + 3600))
    async with asyncio.timeout(WITHIN_S):
        state = await Driver(backend, runs).drive(run_id)
    assert (state.phase, len(workers.tasks)) == (Phase.SUCCEEDED, 1)


async def test_at_most_so_many_tasks_of_a_role_at_once(backend: Backend) -> None:
    """Its replicas and their slots are a limit for the run, too."""
    steps = [Step(name=f"s{number}", role="only") for number in range(5)]
    plan = team(*steps, roles=(Role(name="only", max_parallel=2),))
    runs = Runs(backend.state)
    run_id = await runs.start(plan, {})
    most = 0

    async def follow() -> None:
        nonlocal most
        async for state in runs.follow(run_id):
            most = max(most, sum(step.phase is Phase.RUNNING for step in state.steps))

    async with asyncio.timeout(WITHIN_S), Workers(backend, echo).working(), asyncio.TaskGroup() as group:
        group.create_task(follow())
        state = await Driver(backend, runs).drive(run_id)
    assert (state.phase, most) == (Phase.SUCCEEDED, 2)


# Cancels, who drives


async def test_cancel_ends_the_run_and_its_tasks(backend: Backend) -> None:
    """Its running task ends as cancelled, and nothing that has ended can be cancelled again."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a"), Step(name="b", role="b", depends_on=("a",))), {})
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        driving = group.create_task(Driver(backend, runs).drive(run_id))
        await until(runs, run_id, lambda state: state.step("a").task_id)
        await runs.cancel(run_id, by="ann", reason="wrong input")
    state = driving.result()
    assert (state.phase, state.reason) == (Phase.CANCELLED, "Cancelled")
    assert state.message == "run cancelled by ann: wrong input"
    assert {step.phase for step in state.steps} == {Phase.CANCELLED}
    assert (await backend.queue.results([state.step("a").task_id]))[0].error == "run cancelled"  # type: ignore[union-attr]  # then the line fails
    with pytest.raises(RunEnded):
        await runs.cancel(run_id)
    with pytest.raises(RunNotFound):
        await runs.cancel("nowhere")


async def test_what_does_not_end_is_waited_for_no_longer(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker hangs with a task that was told to end: the run ends all the same."""
    monkeypatch.setattr(doing, "GIVE_UP_S", 0.1)
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a"), Step(name="b", role="b")), {})
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        driving = group.create_task(Driver(backend, runs).drive(run_id))
        await until(runs, run_id, lambda state: state.step("b").task_id)
        assert len(await backend.queue.pull(1, 5.0)) == 1
        await runs.cancel(run_id)
    assert driving.result().phase is Phase.CANCELLED


async def test_one_drives_a_run_at_a_time(backend: Backend) -> None:
    """A second driver is refused, until the first one has let go."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a")), {})
    driver = Driver(backend, runs)
    driving = asyncio.create_task(driver.drive(run_id))
    await until(runs, run_id, lambda state: state.step("a").task_id)
    with pytest.raises(RunBusy):
        await driver.drive(run_id)
    driving.cancel()
    await asyncio.wait([driving])
    async with asyncio.timeout(WITHIN_S), Workers(backend, echo).working():
        assert (await driver.drive(run_id)).phase is Phase.SUCCEEDED


async def test_a_task_that_has_vanished_is_made_anew(backend: Backend) -> None:
    """Its queue has forgotten it while nobody drove the run: the step is tried again, and says so."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a")), {})
    driving = asyncio.create_task(Driver(backend, runs).drive(run_id))
    await until(runs, run_id, lambda state: state.step("a").task_id)
    driving.cancel()
    await asyncio.wait([driving])
    async with await open_backend("memory://") as other:  # a queue that knows nothing of it
        mixed = Backend(other.queue, other.chunks, backend.state)
        async with asyncio.timeout(WITHIN_S), Workers(other, echo).working():
            state = await Driver(mixed, runs).drive(run_id)
    assert (state.phase, state.step("a").tries) == (Phase.SUCCEEDED, 2)


def test_what_has_been_shown_of_a_run_does_not_hold_back_what_comes() -> None:
    """Each event shows in the state after it, at once: of a step, of what it delegated, and of the run."""
    plan = team(Step(name="a", role="a"))
    folding = Folding(plan, RunHeader(id="r", team="team", plan=plan.digest))
    shown = [folding.state()]
    for event in (
        RunStarted(at=1.0),
        StepStarted(at=2.0, step="a", role="a"),
        Delegated(at=3.0, step="a", call_id="c", task_id="t", parent="p", role="a"),
        ChildEnded(at=4.0, task_id="t", output="done", usage=TokenUsage(input_tokens=7)),
        CancelRequested(at=5.0),
    ):
        folding.add([event])
        shown.append(folding.state())
    assert [state.phase for state in shown] == [Phase.PENDING, *[Phase.RUNNING] * 5]
    assert [state.step("a").phase for state in shown] == [Phase.PENDING, Phase.PENDING, *[Phase.RUNNING] * 4]
    assert [len(state.children) for state in shown] == [0, 0, 0, 1, 1, 1]
    assert [state.step("a").usage.total_tokens for state in shown] == [0, 0, 0, 0, 7, 7]
    assert [state.tokens for state in shown] == [0, 0, 0, 0, 7, 7]
    assert [state.cancel_requested for state in shown] == [*[False] * 5, True]


async def test_a_driver_that_was_held_up_takes_its_run_again(backend: Backend) -> None:
    """A laptop slept, or the store was away for longer than the lease: if nobody else has the run, it goes on."""
    runs, workers = Runs(backend.state), Workers(backend, echo)
    run_id = await runs.start(team(Step(name="a", role="a")), {})
    driving = asyncio.create_task(Driver(backend, runs, lease_s=SHORT_LEASE_S).drive(run_id))
    await until(runs, run_id, lambda state: state.step("a").task_id)
    held_by = await backend.state.get(driver_key(run_id))
    assert held_by is not None
    await backend.state.delete(f"{DRIVERS}{held_by.decode()}")  # its name has run out
    async with asyncio.timeout(WITHIN_S):
        while await backend.state.get(driver_key(run_id)) == held_by:
            await asyncio.sleep(0.01)
        async with workers.working():
            assert (await driving).phase is Phase.SUCCEEDED
    assert sorted(workers.ran.values()) == [1]


async def test_a_run_that_a_newer_version_goes_on_with(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote in words of its own stands in the log in the place of ours: the run is left to it."""
    monkeypatch.setattr(run_driver, "_READ_AGAIN_S", (0.0,))
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a")), {})
    driving = asyncio.create_task(Driver(backend, runs).drive(run_id))
    await until(runs, run_id, lambda state: state.step("a").task_id)
    theirs = LogRecord(
        log=events_log(run_id), id="work/a/1/1/step/ended", value=b'{"event": "task_ended_better"}', keep_s=60
    )
    await backend.state.append_once([theirs])
    async with Workers(backend, echo).working():
        with pytest.raises(RunBusy, match="newer version"):
            async with asyncio.timeout(WITHIN_S):
                await driving


# People


async def asked(backend: Backend) -> str:
    """The question that waits."""
    async with asyncio.timeout(WITHIN_S):
        while not (pending := await Approvals(backend.state).pending()):
            await asyncio.sleep(0.01)
    return pending[0].id


@pytest.mark.parametrize(
    ("approved", "phase", "ran"), [(True, Phase.SUCCEEDED, ["a", "b"]), (False, Phase.FAILED, ["a"])]
)
async def test_a_person_decides_whether_a_step_begins(
    backend: Backend, approved: bool, phase: Phase, ran: list[str]
) -> None:
    """The question is rendered from the run; a no fails the step, with the reason."""
    approval = Approval(message="Publish {{ .steps.a.output }}?")
    plan = team(Step(name="a", role="a"), Step(name="b", role="b", depends_on=("a",), approval=approval))
    runs, workers, approvals = Runs(backend.state), Workers(backend, echo), Approvals(backend.state)
    run_id = await runs.start(plan, {})
    async with asyncio.timeout(WITHIN_S), workers.working(), asyncio.TaskGroup() as group:
        driving = group.create_task(Driver(backend, runs).drive(run_id))
        question = await asked(backend)
        waiting = (await runs.read(run_id)).state
        assert (waiting.phase, waiting.step("b").approval_id) == (Phase.WAITING, question)
        assert (await approvals.get(question)).message == "Publish a:1?"
        await approvals.decide(question, approved=approved, reviewer="ann", comment="because")
    state = driving.result()
    assert (state.phase, [call_of(task).step for task in workers.tasks]) == (phase, ran)
    if not approved:
        assert state.step("b").message == "approval rejected: by ann: because"


@pytest.mark.parametrize(
    ("fallback", "phase", "message"),
    [
        ("approve", Phase.SUCCEEDED, ""),
        ("skip", Phase.SKIPPED, "skipped: nobody answered in time"),
        ("reject", Phase.FAILED, "approval rejected: nobody answered in time"),
    ],
)
async def test_a_fallback_decides_when_nobody_does(backend: Backend, fallback: Any, phase: Phase, message: str) -> None:
    """After the question's time."""
    approval = Approval(message="Go?", timeout_s=0.1, fallback=fallback)
    state, _ = await run(backend, team(Step(name="a", role="a", approval=approval)))
    assert (state.step("a").phase, state.step("a").message) == (phase, message)


async def test_a_run_that_waits_for_people_can_be_let_go(backend: Backend) -> None:
    """Nobody holds it then; the next driver goes on with the answer."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a", approval=Approval(message="Go?"))), {})
    driver = Driver(backend, runs)
    async with asyncio.timeout(WITHIN_S), Workers(backend, echo).working():
        resting = await driver.drive_on(run_id, may_rest=True)
        assert isinstance(resting, Resting)
        assert resting.until > time.time() + 1000
        await Approvals(backend.state).decide(resting.waits_for[0], approved=True)
        assert (await driver.drive(run_id)).phase is Phase.SUCCEEDED


async def test_the_question_of_a_cancelled_run_is_withdrawn(backend: Backend) -> None:
    """Nobody shall answer into the void."""
    runs = Runs(backend.state)
    run_id = await runs.start(team(Step(name="a", role="a", approval=Approval(message="Go?"))), {})
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(Driver(backend, runs).drive(run_id))
        await asked(backend)
        await runs.cancel(run_id)
    assert await Approvals(backend.state).pending() == []


# Teams as roles, delegation


async def test_a_team_does_a_step(backend: Backend) -> None:
    """In a run of its own, which is in no list; what it used counts for both."""
    inner = Team(
        name="inner",
        wraps_outputs=False,
        roles=(Role(name="x"),),
        steps=(Step(name="x", role="x", inputs={"t": "{{ .input.topic }}"}),),
    )
    plan = team(
        Step(name="a", role="boss", inputs={"topic": "{{ .input.topic }}!"}),
        roles=(Role(name="boss", team="inner"),),
        others=(inner,),
    )
    state, workers = await run(backend, plan, topic="fish")
    assert (state.output, state.tokens) == ("x:1", 11)
    assert workers.tasks[0].prompt == "t: fish!\n"
    runs = Runs(backend.state)
    inner_run = await runs.read(state.step("a").run_id)
    assert (inner_run.header.parent, inner_run.state.tokens) == ((state.id, "a"), 11)
    assert [each.id for each in await runs.list()] == [state.id]


async def test_cancel_reaches_the_run_of_a_step(backend: Backend) -> None:
    """And the tasks of that run."""
    inner = Team(name="inner", roles=(Role(name="x"),), steps=(Step(name="x", role="x"),))
    plan = team(Step(name="a", role="boss"), roles=(Role(name="boss", team="inner"),), others=(inner,))
    runs = Runs(backend.state)
    run_id = await runs.start(plan, {})
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        driving = group.create_task(Driver(backend, runs).drive(run_id))
        inner_id = (await until(runs, run_id, lambda state: state.step("a").run_id)).step("a").run_id
        task_id = (await until(runs, inner_id, lambda state: state.step("x").task_id)).step("x").task_id
        await runs.cancel(run_id)
    assert driving.result().phase is Phase.CANCELLED
    assert (await runs.read(inner_id)).state.phase is Phase.CANCELLED
    assert (await backend.queue.results([task_id]))[0].error == "run cancelled"  # type: ignore[union-attr]  # as above


@pytest.mark.parametrize("collects", [True, False])
async def test_a_dynamic_run_waits_for_what_was_delegated(backend: Backend, collects: bool) -> None:
    """Also if the entry role has answered before; results that it has not asked for are given to it then, once."""
    runs = Runs(backend.state)
    roles = (Role(name="lead", can_delegate=("helper",)), Role(name="helper"))
    run_id = await runs.start(team(Step(name="lead", role="lead"), roles=roles, mode="dynamic", entry="lead"), {})
    child_id = ""

    def says(call: Call, task: Task) -> str:
        return "summed up" if call.purpose == "summary" else "begun"

    async def delegate(entry: Task) -> None:
        nonlocal child_id
        child = Task(prompt="help", idempotency_key=f"team:{run_id}:lead:1:1:child")
        child_id = await backend.queue.submit(child)
        event = Delegated(
            at=time.time(), call_id="1", task_id=child_id, step="lead", parent=entry.id, role="helper", prompt="help"
        )
        await runs.append(run_id, event)
        if collects:
            await runs.append(run_id, Collected(at=time.time(), call_id="2", task_ids=(child_id,)))

    workers = Workers(backend, says)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        driving = group.create_task(Driver(backend, runs).drive(run_id))
        state = await until(runs, run_id, lambda state: state.step("lead").task_id)
        await delegate(Task(prompt="", id=state.step("lead").task_id))
        async with workers.working():
            state = await driving
    assert state.children[0].phase is Phase.SUCCEEDED
    assert state.output == ("begun" if collects else "summed up")
    purposes = sorted(call_of(task).purpose for task in workers.tasks)
    assert purposes == (["child", "step"] if collects else ["child", "step", "summary"])
    assert state.tokens == 11 * len(purposes)
