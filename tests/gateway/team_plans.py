"""Teams on the scripted provider, for tests of the API of runs and of its page."""

from __future__ import annotations

from typing import Any

from providers import AgentConfig
from worker.teams.plan import Approval, InputSpec, Plan, Role, Step, Team
from worker.teams.team_objects import StoredTeam

MARKUP = "<b>bold</b> & </script>"


def scripted(*turns: dict[str, Any]) -> AgentConfig:
    """An agent that answers with these turns."""
    script = {"scenarios": [{"turns": list(turns)}]}
    return AgentConfig(model="swift-1", provider="scripted", tools=(), options={"script": script})


def newsroom(name: str = "newsroom", *, delay_s: float = 0.0) -> Plan:
    """Research, an approval by a person, then two steps side by side; one of them is left out on request."""
    usage = {"input_tokens": 96, "output_tokens": 14}
    roles = (
        Role(name="researcher", config=scripted({"text": "three facts about the topic", "usage": usage})),
        Role(
            name="writer",
            config=scripted({"text": f"A story of {MARKUP} facts. " * 4, "usage": usage, "chunk_delay_s": delay_s}),
        ),
        Role(name="translator", config=scripted({"text": "Eine Geschichte", "usage": usage})),
    )
    steps = (
        Step(name="research", role="researcher", inputs={"topic": "{{ .input.topic }}"}),
        Step(
            name="draft",
            role="writer",
            inputs={"facts": "{{ .steps.research.output }}"},
            depends_on=("research",),
            approval=Approval(message="May it be written?"),
        ),
        Step(
            name="translate",
            role="translator",
            inputs={"text": "{{ .steps.research.output }}"},
            depends_on=("research",),
            condition="{{ .input.translate }}",
        ),
    )
    inputs = (
        InputSpec(name="topic", required=True, description="What to write about"),
        InputSpec(name="translate", type="boolean", default="false"),
        InputSpec(name="words", type="number", default="200"),
    )
    team = Team(
        name=name,
        description="Writes stories",
        roles=roles,
        steps=steps,
        inputs=inputs,
        output="{{ .steps.draft.output }}",
    )
    return Plan(name=name, teams=(team,))


def quick(name: str = "quick") -> Plan:
    """One step, no questions."""
    role = Role(name="clerk", config=scripted({"text": f"done {MARKUP}"}))
    return Plan(name=name, teams=(Team(name=name, roles=(role,), steps=(Step(name="work", role="clerk"),)),))


def stored(plan: Plan, namespace: str = "") -> StoredTeam:
    """As the fleet keeps it."""
    return StoredTeam(slug=plan.name, namespace=namespace, description=plan.team.description, plan=plan)
