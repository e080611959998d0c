"""Flows and teams -> `Team`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from worker.teams.kinds.agents import Agents
from worker.teams.kinds.artifact_stores import folder_of, url_of
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.graphs import check_graph
from worker.teams.kinds.inputs import compile_inputs
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.roles import TeamRoles
from worker.teams.kinds.routed import compile_routed
from worker.teams.kinds.steps import compile_step, context_policy
from worker.teams.kinds.template_references import check_references
from worker.teams.plan import Step, Team

DEEPEST = 5
"""How deep delegation may go, where neither team nor registry says so."""


class Compiled(Struct, frozen=True, kw_only=True):
    """A team, and which of its agents are missing from the file: ark's texts, in the order of the steps."""

    team: Team
    document: Document
    missing: tuple[str, ...] = ()


def compile_team(document: Document, documents: Documents, agents: Agents) -> Compiled:
    """The team of a document. What is wrong is told; the team is as good as it can be made all the same."""
    spec = document.spec
    if "search" in spec:
        documents.findings.error(
            spec.key("search"), "search mode is not there: use a pipeline, delegation (entry, canDelegate) or routing"
        )
        return Compiled(team=Team(name=document.name), document=document)
    if "routing" in spec:
        return Compiled(
            team=_with_common(compile_routed(document, documents, agents), spec, documents), document=document
        )
    roles = TeamRoles(document, documents, agents)
    found = spec.many("steps") or spec.many("pipeline")
    steps = _steps(found, roles, documents)
    if steps:
        team = Team(name=document.name, mode="pipeline", roles=roles.all(), steps=tuple(steps))
    else:
        team = _dynamic(document, documents, roles)
    team = _with_common(team, spec, documents)
    if document.sort == "flow":
        team = replace(team, word="flow", wraps_outputs=document.kind == "SwarmFlow")
    if steps and len(steps) == len(found):
        _check(team, spec, found, documents)
    return Compiled(team=team, document=document, missing=tuple(roles.missing))


def _steps(found: list[Fields], roles: TeamRoles, documents: Documents) -> list[Step]:
    steps: list[Step] = []
    seen: dict[str, int] = {}
    for fields in found:
        role = roles.of_step(fields)
        name = fields.text("name") or fields.text("role") or role
        if not name:
            documents.findings.error(fields.node, "a step needs 'name' or 'role'")
            continue
        if (line := seen.setdefault(name, fields.node.line)) != fields.node.line:
            documents.findings.error(
                fields.at("name" if "name" in fields else "role"),
                f"step {name!r} is there twice, first in line {line}: give them names",
            )
            continue
        steps.append(compile_step(name, role, fields, documents.findings))
    return steps


def _dynamic(document: Document, documents: Documents, roles: TeamRoles) -> Team:
    entry = roles.entry()
    return Team(
        name=document.name,
        mode="dynamic",
        roles=roles.all(),
        steps=(Step(name=entry, role=entry),) if entry else (),
        entry=entry,
    )


def _with_common(team: Team, spec: Fields, documents: Documents) -> Team:
    findings = documents.findings
    notify = name_of(spec.get("notifyRef"))
    if notify and documents.find(notify, "notify") is None:
        findings.warning(
            spec.at("notifyRef"), f"notification policy {notify!r} is not in this file: the fleet has to have it"
        )
    policy = context_policy(spec.one("defaultContextPolicy"), findings) if "defaultContextPolicy" in spec else None
    return replace(
        team,
        description=spec.text("description"),
        inputs=compile_inputs(spec, findings),
        input=spec.get("input") or {},
        output=spec.text("output") or team.output,
        entry=team.entry or (spec.text("entry") if team.role(spec.text("entry")) else ""),
        timeout_s=float(spec.get("timeoutSeconds", 0)),
        max_tokens=spec.whole("maxTokens"),
        max_daily_tokens=spec.one("limits").whole("maxDailyTokens", spec.whole("maxDailyTokens")),
        max_depth=spec.whole("maxDepth", _depth(spec, documents)),
        default_context_policy=policy,
        notify=notify,
        successful_runs_kept=spec.whole("successfulRunsHistoryLimit"),
        failed_runs_kept=spec.whole("failedRunsHistoryLimit"),
        artifact_dir=folder_of(spec.one("artifactStore")),
        artifact_store=url_of(spec.one("artifactStore"), findings),
    )


def _depth(spec: Fields, documents: Documents) -> int:
    """The registry's, if the team names one, or if it is the only one of the file."""
    named = name_of(spec.get("registryRef")) or name_of(spec.one("routing").get("registryRef"))
    registries = documents.all("registry")
    found = documents.find(named, "registry") if named else registries[0] if len(registries) == 1 else None
    if found is None:
        return DEEPEST
    return found.spec.one("policy").whole("maxDepth", found.spec.whole("maxDepth", DEEPEST))


def _check(team: Team, spec: Fields, found: list[Fields], documents: Documents) -> None:
    findings = documents.findings
    if not check_graph(team.steps, found, findings):
        return
    check_references(team, spec, found, findings)
    _check_lookups(team, found, findings)
    for step, fields in zip(team.steps, found, strict=True):
        for key, artifact in step.input_artifacts.items():
            if "{{" in artifact:
                continue
            of, _, name = artifact.partition(".")
            source = next((each for each in team.steps if each.name == of), None)
            if source is None or name not in source.output_artifacts:
                findings.error(
                    fields.at("inputArtifacts").entries[key],
                    f"no step puts out artifact {artifact!r}: use <step>.<artifact>, one of its outputArtifacts",
                )


def _check_lookups(team: Team, found: list[Fields], findings: Findings) -> None:
    for step, fields in zip(team.steps, found, strict=True):
        lookup = step.lookup
        if lookup is None or lookup.fallback or "{{" in lookup.capability:
            continue
        able = [each for role in team.roles for each in role.capabilities if each.name == lookup.capability]
        if not any(set(lookup.tags) <= set(each.tags) for each in able):
            findings.warning(
                fields.one("registryLookup").at("capability"),
                f"no agent of the file has capability {lookup.capability!r}"
                + (f" with the tags {', '.join(lookup.tags)}" if able else ""),
            )


def check_team_cycles(compiled: Mapping[str, Compiled], documents: Documents) -> None:
    """A team whose roles are teams may not come to be its own part."""
    from worker.teams.kinds.graphs import find_cycle

    needs = {name: [role.team for role in each.team.roles if role.team] for name, each in compiled.items()}
    cycle = find_cycle(needs)
    if cycle is None:
        return
    name, inner = cycle
    spec: Any = compiled[name].document.spec
    places = [
        found.at(key)
        for found in (*spec.many("roles"), *spec.many("members"), *spec.many("steps"))
        for key in ("arkTeam", "swarmTeam")
        if found.text(key) == inner
    ]
    documents.findings.error(
        places[0] if places else spec.node, f'cycle detected: team "{name}" → "{inner}" forms a cycle'
    )
