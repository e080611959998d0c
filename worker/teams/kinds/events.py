"""ArkEvent and SwarmEvent -> `Trigger`; SwarmRun -> `RunSpec`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from worker.objects.errors import BadObject
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.shapes import did_you_mean
from worker.teams.triggers.checks import check_trigger
from worker.teams.triggers.model import SourceType, Target, Trigger


class RunSpec(Struct, frozen=True, kw_only=True):
    """A run that a file asks for: a document of kind SwarmRun."""

    name: str
    team: str
    """Or the name of an agent."""
    input: dict[str, Any] = {}


def compile_event(document: Document, documents: Documents) -> Trigger:
    """The trigger of a document."""
    spec, findings = document.spec, documents.findings
    source = spec.one("source")
    kind: SourceType = "team-output" if source.get("type") == "pipeline-output" else source.get("type", "cron")
    watched = source.one("teamOutput") if "teamOutput" in source else source.one("pipelineOutput")
    if watched.text("name") and documents.find(watched.text("name"), "flow", "team") is None:
        _not_here(documents, watched.at("name"), "team", watched.text("name"), documents.names("flow", "team"))
    for name, of in (("cron", "cron"), ("teamOutput", "team-output"), ("pipelineOutput", "team-output")):
        if name in source and kind != of:
            findings.error(source.key(name), f"{name} is for type {of}, and the type is {source.get('type')}")
    if kind == "cron" and "cron" not in source and "type" in source:
        findings.error(source.node, "type cron needs cron: five fields such as '0 9 * * 1-5'")
    if kind == "team-output" and "name" not in watched:
        findings.error(source.node, "type team-output needs teamOutput.name: the team that is watched")
    trigger = Trigger(
        slug=document.name,
        description=spec.text("description"),
        type=kind,
        cron=source.text("cron"),
        time_zone=source.text("timeZone", "UTC"),
        starting_deadline_s=float(source.get("startingDeadlineSeconds", 3600.0)),
        token_env=source.text("tokenEnv"),
        watched_team=watched.text("name"),
        on_phase=watched.get("onPhase", "Succeeded"),
        targets=tuple(_target(found, documents) for found in spec.many("targets")),
        concurrency=spec.get("concurrencyPolicy", "Allow"),
        suspended=bool(spec.get("suspended")),
    )
    if not findings.has_errors:
        try:
            check_trigger(trigger)
        except BadObject as error:
            findings.error(spec.node, str(error))
    return trigger


def _target(found: Fields, documents: Documents) -> Target:
    key = "pipeline" if "pipeline" in found else "team"
    team, agent = found.text(key), found.text("agent")
    if team and documents.find(team, "flow", "team") is None:
        _not_here(documents, found.at(key), "team", team, documents.names("flow", "team"))
    if agent and documents.find(agent, "agent") is None:
        _not_here(documents, found.at("agent"), "agent", agent, documents.names("agent"))
    if not team and not agent:
        documents.findings.error(found.node, "a target needs 'team' or 'agent'")
    return Target(team=team, agent=agent, prompt=found.text("prompt"), input=found.get("input") or {})


def _not_here(documents: Documents, node: Any, what: str, name: str, there: list[str]) -> None:
    documents.findings.warning(
        node, f"{what} {name!r} is not in this file: the fleet has to have it{did_you_mean(name, there)}"
    )


def compile_run(document: Document, documents: Documents) -> RunSpec:
    """The run of a document: of a team with its input, or of an agent with a prompt."""
    spec, findings = document.spec, documents.findings
    team, agent = name_of(spec.get("teamRef")), spec.text("agent")
    if team:
        documents.refer(team, spec.at("teamRef"), "flow", "team", what="team")
        return RunSpec(name=document.name, team=team, input=spec.get("input") or {})
    documents.refer(agent, spec.at("agent"), "agent", what="agent")
    if not agent:
        findings.error(spec.node, "a run needs 'teamRef' or 'agent'")
    elif not spec.text("prompt").strip():
        findings.error(spec.node, "a run of an agent needs 'prompt': what it shall do")
    return RunSpec(name=document.name, team=agent, input={"prompt": spec.text("prompt")})
