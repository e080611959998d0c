"""From a trigger's target to a plan and the input of its run."""

from __future__ import annotations

from typing import Any, Protocol

from worker.definitions import Definitions
from worker.errors import AgentNotFound
from worker.objects import Stored
from worker.teams.errors import TeamNotFound
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.team_objects import StoredTeam
from worker.teams.templates import parsed
from worker.teams.triggers.firing import Firing, Given
from worker.teams.triggers.model import Target

PROMPT = "prompt"
"""Input of an agent's one-step plan."""


class AgentsKnown(Protocol):
    """What is asked of the fleet's agents: `worker.agents.roster.Roster`."""

    def find(self, name: str, tenant: str = "") -> Stored[Any]:
        """The agent that a tenant means. Raises `AgentNotFound`."""
        ...


class Targets:
    """Finds what targets name, in the namespace of their trigger or among what everybody has."""

    def __init__(self, definitions: Definitions, agents: AgentsKnown) -> None:
        self._definitions = definitions
        self._agents = agents

    def plan(self, target: Target, namespace: str) -> Plan:
        """What is run. Raises `TeamNotFound`, `AgentNotFound`."""
        if target.team:
            return self._active("team", self._definitions.teams.visible(target.team, namespace), target.team)
        stored = self._definitions.team_agents.visible(target.agent, namespace)
        if stored is not None:
            return self._active("agent", stored, target.agent)
        try:
            found = self._agents.find(target.agent, namespace)
        except AgentNotFound as error:
            raise TeamNotFound(
                f"there is no agent {target.agent!r}: store it by `shoal team apply FILE` or `shoal agent create`"
            ) from error
        if namespace and found.value.namespace != namespace and found.value.groups:
            raise TeamNotFound(f"agent {target.agent!r} is open to its groups alone, and a trigger is in none")
        return plan_of_agent(found.value.slug)

    def given(self, target: Target, firing: Firing, given: Given) -> dict[str, str]:
        """The run's input. Raises `TemplateError`."""
        data = {"trigger": trigger_data(firing, given)}
        if target.agent:
            return {PROMPT: parsed(target.prompt, "prompt").render(data)}
        return {name: parsed(text, f"input.{name}").render(data) for name, text in target.input.items()}

    def _active(self, kind: str, stored: Stored[StoredTeam] | None, name: str) -> Plan:
        if stored is None:
            raise TeamNotFound(f"there is no {kind} {name!r}: store it by `shoal team apply FILE`")
        if not stored.value.is_active:
            raise TeamNotFound(f"{kind} {name!r} is switched off")
        return stored.value.plan


def plan_of_agent(slug: str) -> Plan:
    """One step that an agent of the fleet does."""
    step = Step(name=slug, role=slug, inputs={PROMPT: "{{ .input.prompt }}"})
    role = Role(name=slug, agent=slug)
    output = '{{ (index .steps "' + slug + '").rawOutput }}'
    return Plan(name=slug, teams=(Team(name=slug, roles=(role,), steps=(step,), output=output),))


def trigger_data(firing: Firing, given: Given) -> dict[str, Any]:
    """`.trigger` in templates. The first four are kubeswarm's; a body that is not there is empty, as is an output."""
    return {
        "name": firing.trigger,
        "firedAt": firing.moment,
        "body": given.body if given.body is not None else {},
        "output": given.output,
        "run": given.run,
        "team": given.team,
        "phase": given.phase,
        "source": firing.source,
    }
