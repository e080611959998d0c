"""Teams to look at: they are stored in the stage's fleet, and its workers run them on scripted models."""

from __future__ import annotations

from typing import Any

from providers import AgentConfig
from tests.browser.stage import Stage
from worker.gateway.context import Gateway
from worker.teams.plan import Approval, InputSpec, Plan, Role, Step, Team
from worker.teams.team_objects import StoredTeam

MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
INPUTS = (
    InputSpec(name="topic", required=True, description="What the article is about"),
    InputSpec(name="translate", type="boolean", default="false", description="Into German, too"),
    InputSpec(name="words", type="number", default="800"),
)


def magazine(*, delay_s: float = 0.0) -> Plan:
    """Research side by side, an outline that a person approves, a draft that takes its time, and what follows it."""
    roles = (
        _role("researcher", "deep-2", "Three studies agree; a fourth found no effect in winter. ", tokens=(1840, 312)),
        _role("analyst", "swift-1", "Landings fell by 12 % in ten years, prices rose by a third. ", tokens=(960, 148)),
        _role(
            "writer", "deep-2", f"The tide does not wait for {MARKUP} anybody. ", tokens=(2210, 640), delay_s=delay_s
        ),
        _role("editor", "swift-1", "Shorter sentences, and the figures first. ", tokens=(1320, 95)),
        _role("translator", "swift-1", "Die Flut wartet auf niemanden. ", tokens=(700, 610)),
    )
    steps = (
        Step(name="research", role="researcher", inputs={"topic": "{{ .input.topic }}"}),
        Step(name="figures", role="analyst", inputs={"about": "{{ .input.topic }}"}),
        Step(
            name="outline",
            role="editor",
            inputs={"facts": "{{ .steps.research.output }}", "figures": "{{ .steps.figures.output }}"},
            depends_on=("research", "figures"),
        ),
        Step(
            name="draft",
            role="writer",
            inputs={"outline": "{{ .steps.outline.output }}"},
            depends_on=("outline", "figures"),
            approval=Approval(message="Shall the article be written to this outline?"),
        ),
        Step(
            name="translation",
            role="translator",
            inputs={"text": "{{ .steps.draft.output }}"},
            depends_on=("draft",),
            condition="{{ .input.translate }}",
        ),
        Step(name="print", role="editor", inputs={"text": "{{ .steps.draft.output }}"}, depends_on=("draft",)),
    )
    team = Team(
        name="magazine",
        description="Researches a topic, has the outline approved, writes the article and edits it",
        roles=roles,
        steps=steps,
        inputs=INPUTS,
        output="{{ .steps.print.output }}",
    )
    return Plan(name=team.name, teams=(team,))


def _role(name: str, model: str, text: str, *, tokens: tuple[int, int], delay_s: float = 0.0) -> Role:
    turn: dict[str, Any] = {
        "text": text * 3,
        "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
        "chunk_delay_s": delay_s,
    }
    script = {"scenarios": [{"turns": [turn]}]}
    # Few tokens: what a call may use is reserved, and the stage's daily budget is small.
    config = AgentConfig(model=model, provider="scripted", tools=(), max_tokens=700, options={"script": script})
    return Role(name=name, config=config)


def store(stage: Stage, plan: Plan) -> None:
    """Have the fleet know it."""
    team = StoredTeam(slug=plan.name, description=plan.team.description, plan=plan)

    async def create(gateway: Gateway) -> None:
        if gateway.definitions.teams.get(plan.name) is None:
            await gateway.definitions.teams.create(team)

    stage.do(create)


def start(stage: Stage, plan: Plan, **given: Any) -> str:
    """Begin a run; its id."""
    return stage.do(lambda gateway: gateway.runs.start(plan, given, labels={"desk": "sea"}))


def until(stage: Stage, run_id: str, step: str, phase: str) -> None:
    """Wait until a step of the run is in that phase."""

    async def is_there(gateway: Gateway) -> bool:
        async for state in gateway.runs.follow(run_id):
            if state.step(step).phase == phase:
                return True
        return False

    assert stage.do(is_there), f"{step} of {run_id} was never {phase}"


def approve(stage: Stage, run_id: str) -> None:
    """Say yes to whatever the run asks."""

    async def decide(gateway: Gateway) -> None:
        state = (await gateway.runs.read(run_id)).state
        for step in state.steps:
            if step.approval_id:
                await gateway.approvals.decide(step.approval_id, approved=True, reviewer="mira", comment="")

    stage.do(decide)
