"""Teams to be drawn."""

from __future__ import annotations

from providers import AgentConfig
from queue_backends import TokenUsage
from worker.teams.plan import (
    ROUTE,
    ROUTER,
    Approval,
    Capability,
    Loop,
    Role,
    Step,
    Team,
)
from worker.teams.run_state import ChildState, Phase, RunState, StepState

HOSTILE = "</text><script>alert(1)</script>\"'`&\n\r\u2028\x00\u202e😀 end %%{init}%% " + "x" * 200


def role(name: str, model: str = "small", **more: object) -> Role:
    """Somebody with a model."""
    return Role(name=name, config=AgentConfig(model=model), **more)  # type: ignore[arg-type]  # fields of a role


def pipeline() -> Team:
    """A diamond with a condition, a loop, an approval, and an edge over two rows."""
    return Team(
        name="newsroom",
        roles=(role("researcher"), role("writer", "large"), role("press", team="printers")),
        steps=(
            Step(name="research", role="researcher"),
            Step(name="facts", role="researcher", depends_on=("research",), condition="{{ .input.deep }}"),
            Step(name="draft", role="writer", depends_on=("facts",), loop=Loop(condition="x", max_iterations=5)),
            Step(name="print", role="press", depends_on=("draft", "research"), approval=Approval()),
        ),
    )


def pipeline_run() -> RunState:
    """Of it: two steps have ended, one runs in its second iteration."""
    return RunState(
        id="run-1",
        team="newsroom",
        phase=Phase.RUNNING,
        steps=(
            StepState(
                name="research",
                phase=Phase.SUCCEEDED,
                usage=TokenUsage(input_tokens=1200, output_tokens=300),
                cost_usd=0.5,
                started_at=100.0,
                ended_at=104.0,
            ),
            StepState(name="facts", phase=Phase.SKIPPED, message="its condition is false"),
            StepState(name="draft", phase=Phase.RUNNING, iteration=2, tries=1, started_at=104.0, task_id="t3"),
            StepState(name="print"),
        ),
    )


def desk() -> Team:
    """A lead that delegates; its helpers may ask back."""
    return Team(
        name="desk",
        mode="dynamic",
        entry="lead",
        roles=(
            role("lead", can_delegate=("coder", "critic")),
            role("coder", can_delegate=("critic", "coder")),
            role("critic", can_delegate=("lead",)),
        ),
        steps=(Step(name="lead", role="lead"),),
    )


def desk_run(coders: int) -> RunState:
    """Of it: the lead has asked so many coders; the first of them has asked a coder of its own."""
    children = [
        ChildState(
            task_id=f"c{number}", step="lead", parent="t0", role="coder", prompt="write it", phase=Phase.SUCCEEDED
        )
        for number in range(coders)
    ]
    own = ChildState(task_id="own", step="lead", parent="c0", role="coder", depth=2)
    step = StepState(name="lead", phase=Phase.RUNNING, task_id="t0", started_at=1.0)
    return RunState(id="run-2", team="desk", phase=Phase.RUNNING, steps=(step,), children=(*children, own))


def helpdesk() -> Team:
    """A router and two agents."""
    agents = (role("billing", capabilities=(Capability(name="invoices"),)), role("technics"))
    return Team(
        name="helpdesk",
        mode="routed",
        roles=(role(ROUTER), *agents),
        steps=(Step(name=ROUTER, role=ROUTER), Step(name=ROUTE, role="", depends_on=(ROUTER,))),
    )


def helpdesk_run() -> RunState:
    """Of it: billing was chosen."""
    steps = (StepState(name=ROUTER, phase=Phase.SUCCEEDED), StepState(name=ROUTE, role="billing", phase=Phase.RUNNING))
    return RunState(id="run-3", team="helpdesk", phase=Phase.RUNNING, steps=steps)


def hostile() -> Team:
    """Names that break out of whatever they are written into."""
    return Team(
        name=HOSTILE,
        description=HOSTILE,
        roles=(role(HOSTILE, HOSTILE),),
        steps=(
            Step(name=HOSTILE, role=HOSTILE, condition=HOSTILE),
            Step(name="end", role=HOSTILE, depends_on=(HOSTILE,), condition=HOSTILE),
            Step(name="日本語の名前" * 9, role="nobody", depends_on=("end",)),
        ),
    )


def fan(width: int) -> Team:
    """One step, many beside each other, one that joins them."""
    parts = [f"part-{number}" for number in range(width)]
    steps = (
        Step(name="split", role="worker"),
        *(Step(name=name, role="worker", depends_on=("split",)) for name in parts),
        Step(name="join", role="worker", depends_on=tuple(parts)),
    )
    return Team(name="fan", roles=(role("worker"),), steps=steps)
