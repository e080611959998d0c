"""A file's text -> all that it declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from worker.teams.kinds.agents import Agents
from worker.teams.kinds.documents import Documents, sort_documents
from worker.teams.kinds.events import RunSpec, compile_event, compile_run
from worker.teams.kinds.findings import EnoughFound, Findings
from worker.teams.kinds.notifies import compile_notify
from worker.teams.kinds.sources import Sources
from worker.teams.kinds.teams import Compiled, check_team_cycles, compile_team
from worker.teams.kinds.yaml_documents import read_documents
from worker.teams.notify.model import Notify
from worker.teams.plan import Plan, Role, Step, Team
from worker.teams.triggers.model import Trigger


class Draft(Struct, frozen=True, kw_only=True):
    """What a file declares, as far as it could be read."""

    teams: dict[str, Compiled] = {}
    agents: dict[str, Role] = {}
    triggers: tuple[Trigger, ...] = ()
    notifies: tuple[Notify, ...] = ()
    runs: tuple[RunSpec, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def plans(self) -> dict[str, Plan]:
        """Of its teams and agents, by name."""
        agents = {name: plan_of_agent(role) for name, role in self.agents.items()}
        teams = {name: Plan(name=name, teams=self._needed(compiled.team)) for name, compiled in self.teams.items()}
        return {**agents, **teams}

    def _needed(self, team: Team) -> tuple[Team, ...]:
        """The team, and all that its roles are, and theirs."""
        found = {team.name: team}
        todo = [team]
        while todo:
            for role in todo.pop().roles:
                if role.team in self.teams and role.team not in found:
                    found[role.team] = self.teams[role.team].team
                    todo.append(found[role.team])
        return tuple(found.values())


def read_draft(text: str, path: Path, findings: Findings, environ: Mapping[str, str] | None = None) -> Draft:
    """Read all documents; everything that is wrong is among the findings. `environ`: instead of the environment."""
    try:
        return _read(text, path, findings, environ)
    except EnoughFound:
        findings.stop()
        return Draft()


def _read(text: str, path: Path, findings: Findings, environ: Mapping[str, str] | None) -> Draft:
    sources = Sources(path.parent, environ)
    documents = sort_documents(read_documents(text, findings), sources, findings)
    agents = Agents(documents)
    teams = {found.name: compile_team(found, documents, agents) for found in documents.all("flow", "team")}
    check_team_cycles(teams, documents)
    found_agents = {name: role for name in documents.names("agent") if (role := agents.of_document(name)) is not None}
    _note_budgets(documents)
    if not findings.has_errors and not teams and not found_agents and documents.found:
        findings.note(documents.found[0].node, "the file has no team and no agent")
    return Draft(
        teams=teams,
        agents=found_agents,
        notifies=tuple(compile_notify(found, documents) for found in documents.all("notify")),
        triggers=tuple(compile_event(found, documents) for found in documents.all("event")),
        runs=tuple(compile_run(found, documents) for found in documents.all("run")),
        env=sources.env,
    )


def plan_of_agent(role: Role) -> Plan:
    """A team of one: it is given what the run is given, and its answer is the output."""
    team = Team(
        name=role.name,
        mode="dynamic",
        description=role.description,
        roles=(role,),
        steps=(Step(name=role.name, role=role.name),),
        entry=role.name,
        wraps_outputs=False,
    )
    return Plan(name=role.name, teams=(team,))


def _note_budgets(documents: Documents) -> None:
    for document in documents.all("budget"):
        documents.findings.note(
            document.node,
            f"{document.kind} {document.name!r} is not used: budgets are the fleet's own, set with `shoal budgets`",
        )
