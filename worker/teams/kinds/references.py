"""Shapes that many kinds share: references to other objects, and sources of values."""

from __future__ import annotations

import re

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Field, Fields, Object
from worker.teams.kinds.shapes import Either, Flag, ListOf, Text

NAME = Text(is_required=True, means="a name")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PART_NAME = re.compile(r"\w([\w .@+-]{0,98}\w)?")


def check_object_name(text: str, node: Node, findings: Findings) -> None:
    """An error if a document cannot be called so."""
    if not _OBJECT_NAME.fullmatch(text):
        findings.error(node, f"{text[:100]!r} is no name: use letters, digits, '-', '_' and '.', at most 253")


def _check_part_name(text: str, node: Node, findings: Findings) -> None:
    if not _PART_NAME.fullmatch(text):
        findings.error(node, f"{text[:100]!r} is no name: use letters, digits, '-', '_', '.' and spaces, at most 100")


PART_NAME = Text(is_required=True, means="a name", check=_check_part_name)
"""Of a role or a step."""
_NAMED = Object({"name": Field(NAME, is_required=True), "namespace": Field(Text(), use="ignored")}, "a reference")
REFERENCE = Either({"map": _NAMED, "scalar": NAME})
"""`{name: x}`, or `x`."""


def name_of(found: object) -> str:
    """The name in a `REFERENCE`; empty if there is none."""
    return found.text("name") if isinstance(found, Fields) else str(found or "")


KEY_SELECTOR = Object(
    {"name": Field(NAME, is_required=True), "key": Field(NAME, is_required=True), "optional": Field(Flag())},
    "a reference to a key",
)


def only_one(*names: str) -> ExclusiveRule:
    """At most one of these fields may be given."""
    return ExclusiveRule(names)


class ExclusiveRule:
    """Tells of fields that exclude each other."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __call__(self, found: Fields, findings: Findings) -> None:
        """An error at the second one."""
        given = [name for name in self._names if name in found]
        if len(given) > 1:
            both = " and ".join(repr(name) for name in given)
            findings.error(found.key(given[1]), f"{both} exclude each other: leave out all but one")


FILE_REF = Object({"path": Field(NAME, is_required=True)}, "a reference to a file")
PROMPT_SOURCE = Object(
    {"configMapKeyRef": Field(KEY_SELECTOR), "secretKeyRef": Field(KEY_SELECTOR), "fileRef": Field(FILE_REF)},
    "a source of a prompt",
    rules=(only_one("configMapKeyRef", "secretKeyRef", "fileRef"),),
)
_FIELD_REF = Object({"fieldPath": Field(Text(), use="ignored")}, "a field reference")
VALUE_SOURCE = Object(
    {
        "secretKeyRef": Field(KEY_SELECTOR),
        "configMapKeyRef": Field(KEY_SELECTOR),
        "fieldRef": Field(_FIELD_REF, use="noted", note="there is no pod here whose fields it could have"),
    },
    "a source of a value",
    rules=(only_one("secretKeyRef", "configMapKeyRef"),),
)
ENV = ListOf(
    Object(
        {"name": Field(NAME, is_required=True), "value": Field(Text()), "valueFrom": Field(VALUE_SOURCE)},
        "an environment variable",
        rules=(only_one("value", "valueFrom"),),
    ),
    unique="name",
)
_WHOLE = Object({"name": Field(NAME, is_required=True), "optional": Field(Flag())}, "a reference")
ENV_FROM = ListOf(
    Object(
        {"prefix": Field(Text()), "secretRef": Field(_WHOLE), "configMapRef": Field(_WHOLE)},
        "a source of environment variables",
        rules=(only_one("secretRef", "configMapRef"),),
    )
)
