"""Routed teams: a model chooses among the agents of a registry by what they can do. Facts: kubeswarm
`swarmteam_types.go`, `swarmregistry_types.go`."""

from __future__ import annotations

from providers import AgentConfig
from worker.teams.kinds.agents import Agents
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.scripts import options_of
from worker.teams.kinds.shapes import did_you_mean
from worker.teams.plan import ROUTE, ROUTER, Lookup, Role, Step, Team


def compile_routed(document: Document, documents: Documents, agents: Agents) -> Team:
    """A team with the two steps `ROUTER` and `ROUTE`. The router's system prompt is the file's, if it gives one."""
    routing = document.spec.one("routing")
    registry = _registry(document.spec, routing, documents)
    fallback = routing.text("fallback")
    roles = [role for found in documents.all("agent") if (role := _indexed(found, registry, agents)) is not None]
    if fallback and all(role.name != fallback for role in roles):
        roles.extend(_fallback(fallback, routing, documents, agents))
    if not roles:
        documents.findings.error(
            routing.node,
            "no agent of the file has capabilities, and there is no fallback: the router has nothing to choose from",
        )
    router = Role(
        name=ROUTER,
        config=AgentConfig(
            model=routing.text("model"),
            provider=routing.text("provider"),
            system_prompt=routing.text("systemPrompt"),
            options=options_of(routing, documents),
            max_turns=1,
        ),
    )
    route = Step(
        name=ROUTE,
        role=fallback,
        depends_on=(ROUTER,),
        lookup=Lookup(capability="", fallback=fallback),
    )
    return Team(
        name=document.name,
        mode="routed",
        roles=(router, *roles),
        steps=(Step(name=ROUTER, role=ROUTER), route),
    )


def _registry(spec: Fields, routing: Fields, documents: Documents) -> str:
    """The registry's name; empty: all agents are in it."""
    for found in (routing, spec):
        name = name_of(found.get("registryRef"))
        if name and documents.find(name, "registry") is None and documents.all("registry"):
            documents.refer(name, found.at("registryRef"), "registry", what="registry")
        if name:
            return name
    return ""


def _indexed(document: Document, registry: str, agents: Agents) -> Role | None:
    """The role of an agent, if it is in the registry: it has capabilities, and names no other registry."""
    own = name_of(document.spec.get("registryRef")) or name_of(document.spec.one("infrastructure").get("registryRef"))
    if not document.spec.many("capabilities") or (own and registry and own != registry):
        return None
    return agents.of_document(document.name)


def _fallback(name: str, routing: Fields, documents: Documents, agents: Agents) -> list[Role]:
    role = agents.of_document(name)
    if role is not None:
        return [role]
    hint = did_you_mean(name, documents.names("agent"))
    documents.findings.error(routing.at("fallback"), f"fallback is unknown agent {name!r}{hint}")
    return []
