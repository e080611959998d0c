"""The documents of a file, by kind and name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from worker.teams.kinds.agent_fields import AGENT
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Fields, Object
from worker.teams.kinds.other_fields import BUDGET, EVENT, MEMORY, NOTIFY, REGISTRY, RUN, SETTINGS
from worker.teams.kinds.references import check_object_name
from worker.teams.kinds.shapes import did_you_mean
from worker.teams.kinds.sources import Sources, config_map_values, secret_values
from worker.teams.kinds.team_fields import TEAM

Sort = Literal["agent", "flow", "team", "settings", "memory", "registry", "event", "notify", "run", "budget"]

SPECS: dict[Sort, Object] = {
    "agent": AGENT,
    "flow": TEAM,
    "team": TEAM,
    "settings": SETTINGS,
    "memory": MEMORY,
    "registry": REGISTRY,
    "event": EVENT,
    "notify": NOTIFY,
    "run": RUN,
    "budget": BUDGET,
}
KINDS: dict[str, Sort] = {
    "ArkAgent": "agent",
    "SwarmAgent": "agent",
    "AgentDeployment": "agent",
    "ArkonisDeployment": "agent",
    "ArkFlow": "flow",
    "AgentPipeline": "flow",
    "ArkonisPipeline": "flow",
    "SwarmFlow": "flow",
    "ArkTeam": "team",
    "SwarmTeam": "team",
    "ArkSettings": "settings",
    "SwarmSettings": "settings",
    "AgentConfig": "settings",
    "ArkonisConfig": "settings",
    "ArkMemory": "memory",
    "SwarmMemory": "memory",
    "ArkonisMemory": "memory",
    "ArkRegistry": "registry",
    "SwarmRegistry": "registry",
    "ArkEvent": "event",
    "SwarmEvent": "event",
    "ArkNotify": "notify",
    "SwarmNotify": "notify",
    "ArkRun": "run",
    "SwarmRun": "run",
    "ArkBudget": "budget",
    "SwarmBudget": "budget",
}
_SERVICE = "every team and agent can be reached through `shoal serve`"
SKIPPED = {
    "ArkService": _SERVICE,
    "AgentService": _SERVICE,
    "ArkonisService": _SERVICE,
    "ArkOptimizer": "prompts are not optimised here",
    "SwarmPolicy": "policies are the fleet's own: access groups, `shoal budgets`, `shoal limits`",
}
_VALUES = {"Secret": secret_values, "ConfigMap": config_map_values}
_GROUPS = {"Ark": ("arkonis.dev",), "Swarm": ("kubeswarm.io", "kubeswarm"), "Agent": ("agentops.agentops.io",)}
"""The API groups of each generation; ark's first kinds were called Arkonis... and Agent...."""
_ALL_GROUPS = frozenset(group for groups in _GROUPS.values() for group in groups) | {"agentops.io"}
_TOP = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    kind: str
    sort: Sort
    name: str
    spec: Fields
    node: Node

    @property
    def is_swarm(self) -> bool:
        """Whether its kind is kubeswarm's."""
        return self.kind.startswith("Swarm")


@dataclass
class Documents:
    """All of a file, in its order, and what reading needs beside them."""

    sources: Sources
    findings: Findings
    found: list[Document] = field(default_factory=list)

    def all(self, *sorts: Sort) -> list[Document]:
        """Those of some sorts."""
        return [document for document in self.found if document.sort in sorts]

    def names(self, *sorts: Sort) -> list[str]:
        """Theirs."""
        return [document.name for document in self.all(*sorts)]

    def find(self, name: str, *sorts: Sort) -> Document | None:
        """The one of a name."""
        return next((document for document in self.all(*sorts) if document.name == name), None)

    def refer(self, name: str, node: Node, *sorts: Sort, what: str) -> Document | None:
        """The one of a name; that there is none is an error at the node."""
        document = self.find(name, *sorts) if name else None
        if name and document is None:
            there = self.names(*sorts)
            listed = f"; there are {', '.join(there)}" if there else ""
            self.findings.error(node, f"unknown {what} {name!r}{did_you_mean(name, there)}{listed}")
        return document


def sort_documents(nodes: list[Node], sources: Sources, findings: Findings) -> Documents:
    """Read each document by its kind. Unknown kinds, and documents without one, are skipped with a note."""
    documents = Documents(sources, findings)
    for node in nodes:
        _sort(node, documents)
    return documents


def _sort(node: Node, documents: Documents) -> None:
    findings = documents.findings
    if node.kind != "map":
        findings.error(
            node, f"the document is {node.type_name}: use a mapping with apiVersion, kind, metadata and spec"
        )
        return
    kind_node = node.entries.get("kind")
    if kind_node is None or kind_node.is_null:
        findings.note(node, "a document without kind is skipped")
        return
    kind = kind_node.text
    if kind == "List" or (kind.endswith("List") and kind.removesuffix("List") in KINDS):
        items = node.entries.get("items")
        for item in items if items is not None else ():
            _sort(item, documents)
        return
    if kind in _VALUES:
        _declare_values(kind, node, documents)
        return
    sort = KINDS.get(kind)
    if sort is None or _is_foreign(kind, node):
        why = f": {SKIPPED[kind]}" if kind in SKIPPED else ""
        hint = did_you_mean(kind, KINDS, likeness=0.85) if sort is None else ""
        findings.note(kind_node, f"kind {kind!r} is skipped{why or hint}")
        return
    _check_group(kind, node, findings)
    _add(kind, sort, node, documents)


def _declare_values(kind: str, node: Node, documents: Documents) -> None:
    name = _name(node)
    if name is None:
        documents.findings.error(node, f"{kind} needs metadata.name: a name")
        return
    documents.sources.declare(kind, name.text, _VALUES[kind](node.entries, documents.findings))


def _add(kind: str, sort: Sort, node: Node, documents: Documents) -> None:
    findings = documents.findings
    for name, key in node.keys.items():
        if name not in _TOP:
            findings.warning(key, f"unknown field {name!r} of {kind}: it is not read{did_you_mean(name, _TOP)}")
    name_node = _name(node)
    if name_node is None:
        findings.error(node.entries.get("metadata", node), f"{kind} needs metadata.name: a name")
        return
    check_object_name(name_node.text, name_node, findings)
    if "spec" not in node.entries and sort != "registry":
        findings.error(node, f"{kind} needs spec: a mapping")
        return
    empty = Node(kind="map", line=node.line, column=node.column, path="spec")
    spec = SPECS[sort].read(node.entries.get("spec", empty), findings)
    if spec is None:
        return
    family: tuple[Sort, ...] = ("flow", "team") if sort in ("flow", "team") else (sort,)
    if (first := documents.find(name_node.text, *family)) is not None:
        findings.error(name_node, f"{kind} {name_node.text!r} is there twice, first in line {first.node.line}")
        return
    documents.found.append(Document(kind=kind, sort=sort, name=name_node.text, spec=spec, node=name_node))


def _name(node: Node) -> Node | None:
    metadata = node.entries.get("metadata")
    if metadata is None:
        return None
    name, is_prefix = metadata.entries.get("name"), False
    if name is None:
        name, is_prefix = metadata.entries.get("generateName"), True
    if name is None or name.kind != "scalar" or not name.text:
        return None
    return replace(name, text=name.text.rstrip("-.")) if is_prefix else name


def _group(node: Node) -> str:
    version = node.entries.get("apiVersion")
    return version.text.partition("/")[0] if version is not None and "/" in version.text else ""


def _is_foreign(kind: str, node: Node) -> bool:
    """Whether a kind with a common name is somebody else's."""
    return kind.startswith("Agent") and _group(node) not in _ALL_GROUPS


def _check_group(kind: str, node: Node, findings: Findings) -> None:
    group = _group(node)
    own = next(groups for prefix, groups in _GROUPS.items() if kind.startswith(prefix))
    version = node.entries.get("apiVersion")
    if version is None or version.is_null:
        findings.warning(node, f"{kind} has no apiVersion: {own[0]}/v1alpha1 is assumed")
    elif group not in own:
        findings.note(version, f"{kind} is a kind of {own[0]}: it is read all the same")
