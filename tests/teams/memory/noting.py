"""Teams whose roles remember, and a model that notes what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from providers import AgentConfig, TurnEvent, TurnRequest
from providers.messages import TextPart
from providers.scripted import ScriptedProvider
from tests.teams.roles.team_fleet import plan_of
from worker.teams.marks import Marks
from worker.teams.plan import MemorySpec, Plan, Role, Step, Team

MODEL = "noting"


class Noting(ScriptedProvider):
    """The scripted provider, which notes the conversation of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.conversations: list[tuple[str, ...]] = []

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """As the scripted provider."""
        self.conversations.append(
            tuple(
                f"{message.role.value}: {part.text}"
                for message in request.messages
                for part in message.parts
                if isinstance(part, TextPart)
            )
        )
        async for event in super().stream_turn(request):
            yield event


def config(turns: Mapping[str, Sequence[Mapping[str, Any]]] | None = None) -> AgentConfig:
    """An agent whose turns depend on a word in its prompt; without any it repeats what it is asked."""
    turns = turns or {"": [{"text": "re {prompt}"}]}
    script = {"scenarios": [{"match": match, "turns": list(each)} for match, each in turns.items()]}
    return AgentConfig(model=MODEL, provider=MODEL, options={"script": script})


def role(name: str, memory: MemorySpec | None, *turns: Mapping[str, Any]) -> Role:
    """A role that remembers."""
    return Role(name=name, config=config({"": turns} if turns else None), memory=memory)


def team(*roles: Role, steps: tuple[Step, ...] = (), **fields: Any) -> Plan:
    """A pipeline; without steps, one step for each role, one after the other, which is asked the run's task."""
    made = tuple(
        Step(
            name=each.name,
            role=each.name,
            inputs={"task": "{{ .input.task }}"},
            depends_on=(roles[n - 1].name,) * (n > 0),
        )
        for n, each in enumerate(roles)
    )
    return plan_of(Team(name="crew", roles=roles, steps=steps or made, wraps_outputs=False, **fields))


def marks(run: str = "r1", role: str = "a", **fields: Any) -> Marks:
    """Of a step's task."""
    return Marks(run=run, step="s", plan="p", team="crew", role=role, **fields)
