"""Environment variables that agents want: `env`, `envFrom`, `apiKeyRef`, `secretRefs`. A run has one environment, so
those of all agents are put together; what is set already stays."""

from __future__ import annotations

import re

from worker.teams.kinds.documents import Documents
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCES = (("secretRef", "Secret"), ("configMapRef", "ConfigMap"))


class Environment:
    """Puts what agents want into the bundle's environment."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._findings = documents.findings
        self._sources = documents.sources

    def gather(self, spec: Fields) -> None:
        """Of one agent."""
        for found in (spec, spec.one("infrastructure")):
            for variable in found.many("env"):
                self._one(variable)
            for source in found.many("envFrom"):
                self._all(source)
            for index, reference in enumerate(found.get("secretRefs") or []):
                self._whole("Secret", name_of(reference), "", found.at("secretRefs").items[index], is_optional=False)
            if "apiKeyRef" in found:
                self._api_key(found.one("apiKeyRef"))

    def api_key_variable(self, spec: Fields) -> str:
        """The variable that the agent's key is in; empty: its provider's own."""
        for found in (spec, spec.one("infrastructure")):
            key = found.one("apiKeyRef").text("key")
            if _VARIABLE.fullmatch(key):
                return key
        return ""

    def _one(self, variable: Fields) -> None:
        name = variable.text("name")
        if not _VARIABLE.fullmatch(name):
            self._findings.error(variable.at("name"), f"{name!r} is no name of an environment variable")
            return
        value: str | None = variable.text("value")
        source = variable.one("valueFrom")
        for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if field in source:
                value = self._value(kind, source.one(field), name)
        if value is not None and ("value" in variable or "valueFrom" in variable):
            self._put(name, value, variable.node)

    def _value(self, kind: str, selector: Fields, variable: str) -> str | None:
        value = self._sources.value(kind, selector.text("name"), selector.text("key"))
        if value is None and not selector.get("optional"):
            self._missing(f"key {selector.text('key')!r} of {kind} {selector.text('name')!r}", selector.node, variable)
        return value

    def _api_key(self, selector: Fields) -> None:
        key = selector.text("key")
        if not _VARIABLE.fullmatch(key):
            self._findings.error(
                selector.at("key"), f"{key!r} is no name of an environment variable, such as ANTHROPIC_API_KEY"
            )
            return
        value = self._value("Secret", selector, key)
        if value is not None:
            self._put(key, value, selector.node)

    def _all(self, source: Fields) -> None:
        for field, kind in _REFERENCES:
            reference = source.one(field)
            if field in source:
                is_optional = bool(reference.get("optional"))
                name, prefix = reference.text("name"), source.text("prefix")
                self._whole(kind, name, prefix, reference.node, is_optional=is_optional)

    def _whole(self, kind: str, name: str, prefix: str, node: Node, *, is_optional: bool) -> None:
        values = self._sources.whole(kind, name)
        if values is None:
            if not is_optional:
                self._findings.note_once(
                    f"{kind} {name}",
                    node,
                    f"{kind} {name!r} is not in this file: its values are taken from the "
                    "environment, or from `.env` beside the file",
                )
            return
        for key, value in values.items():
            if _VARIABLE.fullmatch(prefix + key):
                self._put(prefix + key, value, node)

    def _missing(self, what: str, node: Node, variable: str) -> None:
        self._findings.note_once(
            f"variable {variable}",
            node,
            f"{what} is not known here: the environment variable {variable} is used as it is",
        )

    def _put(self, name: str, value: str, node: Node) -> None:
        if self._sources.env.get(name, value) != value and not self._sources.is_set(name):
            self._findings.note_once(
                f"variable {name}",
                node,
                f"environment variable {name} has another value already: a run has one "
                "environment, and what stands first in the file counts",
            )
        self._sources.put(name, value)
