"""The roles of one team: agents of the file or the fleet, other teams, and inline ones."""

from __future__ import annotations

from msgspec.structs import replace

from worker.teams.kinds.agents import Agents
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.shapes import did_you_mean
from worker.teams.kinds.team_fields import AGENT_KEYS, TEAM_KEYS
from worker.teams.plan import Role

_OF_ITS_OWN = (*AGENT_KEYS, *TEAM_KEYS)
_KIND_OF = {
    "arkAgent": "ArkAgent",
    "swarmAgent": "SwarmAgent",
    "agentDeployment": "AgentDeployment",
    "arkonisDeployment": "ArkonisDeployment",
}


class TeamRoles:
    """Collects a team's roles: those it declares, and those that its steps name."""

    def __init__(self, document: Document, documents: Documents, agents: Agents) -> None:
        self._document = document
        self._documents = documents
        self._findings = documents.findings
        self._agents = agents
        self._declared: dict[str, Fields] = {}
        self._roles: dict[str, Role] = {}
        self.missing: list[str] = []
        """Ark's texts about agents that are not there."""
        spec = document.spec
        for found in (*spec.many("roles"), *spec.many("members")):
            name = found.text("name") or found.text("role")
            if name and name not in self._roles:
                self._declared[name] = found
                self._roles[name] = self._role(name, found)
        self._check_delegation()
        if any("registryLookup" in found for found in (*spec.many("steps"), *spec.many("pipeline"))):
            self._add_capable()

    def all(self) -> tuple[Role, ...]:
        """In the file's order."""
        return tuple(self._roles.values())

    def of_step(self, found: Fields) -> str:
        """The name of the role that does a step. Empty: a lookup finds it."""
        for key in AGENT_KEYS:
            if key in found:
                return self._agent(found, key)
        for key in TEAM_KEYS:
            if key in found:
                return self._team(found, key)
        name = found.text("role") or found.text("name")
        if name in self._roles:
            return name
        if "registryLookup" in found:
            return self._fallback(found)
        if name:
            at = found.at("role" if "role" in found else "name")
            step = found.text("name") or name
            hint = did_you_mean(name, self._roles)
            self._unknown(at, f'step "{step}" references unknown role "{name}"{hint}')
        return name

    def entry(self) -> str:
        """The role that a dynamic team's tasks go to."""
        spec = self._document.spec
        marked = [found for found in spec.many("members") if found.get("entry")]
        if len(marked) > 1:
            self._findings.error(
                marked[1].at("entry"), f"a team has one entry, and {marked[0].text('role')!r} is it already"
            )
        name = spec.text("entry") or (marked[0].text("role") if marked else "")
        if not self._roles:
            self._findings.error(
                spec.node,
                f"{self._document.kind} {self._document.name!r} has neither steps nor roles: give it a "
                "pipeline, or roles with an entry",
            )
            return ""
        if not name and len(self._roles) == 1:
            return next(iter(self._roles))
        if not name:
            self._findings.error(spec.node, f"a team without a pipeline needs 'entry': one of {', '.join(self._roles)}")
            return ""
        if name not in self._roles:
            self._unknown(spec.at("entry"), f"entry is unknown role {name!r}{did_you_mean(name, self._roles)}")
            return ""
        return name

    def _role(self, name: str, found: Fields) -> Role:
        delegates = found.texts("canDelegate") or found.texts("delegates")
        for key in AGENT_KEYS:
            if key in found:
                self._warn_of_unused(found)
                role = self._of_agent(name, found, key, f'role "{name}"')
                return replace(role, name=name, can_delegate=delegates)
        for key in TEAM_KEYS:
            if key in found:
                self._warn_of_unused(found)
                self._documents.refer(found.text(key), found.at(key), "flow", "team", what="team")
                return Role(name=name, team=found.text(key), can_delegate=delegates)
        role = self._agents.compile(name, found, is_swarm=self._document.is_swarm)
        return replace(role, can_delegate=delegates)

    def _warn_of_unused(self, found: Fields) -> None:
        """What a role says beside its agent is the agent's to say."""
        known = {"name", "role", "entry", "delegates", "canDelegate", "description", *_OF_ITS_OWN}
        for name in found.node.entries:
            if name in found and name not in known:
                self._findings.warning(
                    found.key(name),
                    f"{name} is not used: the role is fulfilled by "
                    f"{next(found.text(key) for key in _OF_ITS_OWN if key in found)!r}",
                )

    def _of_agent(self, name: str, found: Fields, key: str, who: str) -> Role:
        agent = found.text(key)
        role = self._agents.of_document(agent)
        if role is not None:
            return role
        if key == "agent":
            return Role(name=name, agent=agent)
        kind = _KIND_OF[key]
        message = f'{who} references unknown {kind} "{agent}"'
        self.missing.append(message)
        there = self._documents.names("agent")
        self._unknown(found.at(key), f"{message}{did_you_mean(agent, there)}; `agent:` names one that the fleet has")
        return Role(name=name, agent=agent)

    def _agent(self, found: Fields, key: str) -> str:
        agent = found.text(key)
        step = found.text("name") or agent
        if agent not in self._roles:
            role = self._of_agent(agent, found, key, f'step "{step}"')
            self._roles[agent] = replace(role, name=agent)
        elif self._roles[agent].agent and key != "agent":
            self._of_agent(agent, found, key, f'step "{step}"')
        return agent

    def _team(self, found: Fields, key: str) -> str:
        name = found.text(key)
        if name not in self._roles:
            self._documents.refer(name, found.at(key), "flow", "team", what="team")
            self._roles[name] = Role(name=name, team=name)
        return name

    def _fallback(self, found: Fields) -> str:
        lookup = found.one("registryLookup")
        name = lookup.text("fallback")
        if not name or name in self._roles:
            return name
        role = self._agents.of_document(name)
        if role is None:
            self._unknown(lookup.at("fallback"), f"fallback is unknown agent or role {name!r}")
        else:
            self._roles[name] = role
        return name

    def _add_capable(self) -> None:
        """Lookups choose among the agents of the file that say what they can do."""
        for document in self._documents.all("agent"):
            role = self._agents.of_document(document.name)
            if role is not None and role.capabilities and document.name not in self._roles:
                self._roles[document.name] = role

    def _check_delegation(self) -> None:
        for name, found in self._declared.items():
            at = "canDelegate" if "canDelegate" in found else "delegates"
            for index, other in enumerate(found.texts(at)):
                node = found.at(at).items[index]
                if other == name:
                    self._findings.error(node, f"role {name!r} may not delegate to itself")
                elif other not in self._declared:
                    self._unknown(
                        node,
                        f"unknown role {other!r}{did_you_mean(other, self._declared)}; there are "
                        f"{', '.join(self._declared)}",
                    )

    def _unknown(self, node: Node, message: str) -> None:
        self._findings.error(node, message)
