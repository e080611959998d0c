"""YAML text -> documents whose values know their places.

The text is somebody else's: what is too large, too deep, or grows by its aliases is refused before it is built, and no
tag makes anything but plain values. Scalars are read by YAML 1.2's core schema (`on` is a word, a date is text); `<<`
merges, as Kubernetes' own reader does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node

MAX_CHARS = 4_000_000
MAX_DEPTH = 40
MAX_NODES = 100_000

_CHARS_OF_A_VALUE = 64
_TOO_DEEP = f"it is nested too deeply: at most {MAX_DEPTH} levels, those of aliases included"
_PREFIX = "tag:yaml.org,2002:"
_SCALAR_TAGS = {f"{_PREFIX}{name}": name for name in ("str", "int", "float", "bool", "null")}
_COLLECTION_TAGS = {f"{_PREFIX}map", f"{_PREFIX}seq"}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_OTHER_INTEGER = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}\.[0-9]{0,30}|[0-9]{1,30}(?=[eE]))([eE][-+]?[0-9]{1,2})?")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class _Refused(Exception):
    """Reading stops here."""

    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.mark = mark


def read_documents(text: str, findings: Findings) -> list[Node]:
    """The documents of a text, without empty ones. What cannot be read is an error among the findings; the documents
    before it are given all the same."""
    if len(text) > MAX_CHARS:
        findings.error(Node(kind="scalar", line=1, column=1), f"the file is larger than {MAX_CHARS:,} characters")
        return []
    import yaml

    found: list[Node] = []
    try:
        for document in _Builder(text, yaml, findings).documents():
            if not document.is_null:
                document.name("")
                found.append(document)
    except _Refused as error:
        _tell(findings, error.mark, str(error))
    except yaml.MarkedYAMLError as error:
        _tell(findings, error.problem_mark or error.context_mark, _said(error))
    except yaml.YAMLError as error:
        _tell(findings, None, f"this is no YAML: {error}")
    except UnicodeEncodeError as error:
        _tell(findings, None, f"this is no text: character {error.start} is half of a pair")
    return found


def _said(error: Any) -> str:
    problem = error.problem or "this is no YAML"
    context = f" {error.context}" if error.context else ""
    hint = ""
    if "mapping" in f"{problem}{context}" or "%" in problem:
        hint = "; a text with ': ', '#' or '{{' goes in quotes"
    return f"{problem}{context}{hint}"


def _tell(findings: Findings, mark: Any, message: str) -> None:
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    findings.error(Node(kind="scalar", line=line, column=column), message)


class _Builder:
    """Makes nodes of the parser's events."""

    def __init__(self, text: str, yaml: Any, findings: Findings) -> None:
        text.encode()  # the parser in C would refuse half a pair with less to say
        self._yaml = yaml
        self._lines = text.split("\n")
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._events: Iterator[Any] = yaml.parse(text, loader)
        self._findings = findings
        self._anchors: dict[str, Node] = {}
        self._count = 0

    def documents(self) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, self._yaml.DocumentStartEvent):
                self._anchors.clear()
                yield self._node(next(self._events), 1)

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, self._yaml.AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise _Refused(_TOO_DEEP, event.start_mark)
        if isinstance(event, self._yaml.ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, self._yaml.MappingStartEvent):
            node = self._mapping(event, depth)
        else:
            node = self._sequence(event, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, depth: int) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise _Refused(f"alias *{event.anchor} has no anchor before it", event.start_mark)
        if depth + node.height - 1 > MAX_DEPTH:
            raise _Refused(_TOO_DEEP, event.start_mark)
        self._grow(node.size, event)
        return node.copy()

    def _grow(self, by: int, event: Any) -> None:
        self._count += by
        if self._count > MAX_NODES:
            raise _Refused(
                f"it is too large: more than {MAX_NODES:,} values, those of aliases included, where a long text "
                "counts as several",
                event.start_mark,
            )

    def _sequence(self, event: Any, depth: int) -> Node:
        node = _begun("list", event)
        self._grow(1, event)
        self._check_tag(event)
        for inner in self._events:
            if isinstance(inner, self._yaml.SequenceEndEvent):
                break
            node.items.append(self._node(inner, depth + 1))
        return _measured(node, node.items)

    def _mapping(self, event: Any, depth: int) -> Node:
        node = _begun("map", event)
        self._grow(1, event)
        self._check_tag(event)
        merged: list[Node] = []
        for inner in self._events:
            if isinstance(inner, self._yaml.MappingEndEvent):
                break
            key = self._key(inner)
            below = self._node(next(self._events), depth + 1)
            if key.text == "<<" and not key.style:
                merged.extend(below.items if below.kind == "list" else [below])
            elif key.text in node.entries:
                self._findings.error(
                    key, f"key {key.text!r} is given twice in this mapping, first in line {node.keys[key.text].line}"
                )
            else:
                node.entries[key.text], node.keys[key.text] = below, key
        for other in merged:
            self._merge(node, other)
        return _measured(node, node.entries.values())

    def _merge(self, node: Node, other: Node) -> None:
        if other.kind != "map":
            self._findings.error(other, "'<<' takes a mapping, or a list of mappings")
        for key, below in other.entries.items():
            if key not in node.entries:
                node.entries[key], node.keys[key] = below, other.keys[key]

    def _key(self, event: Any) -> Node:
        if isinstance(event, self._yaml.AliasEvent):
            node = self._alias(event, 1)
            if node.kind == "scalar":
                return node
        elif isinstance(event, self._yaml.ScalarEvent):
            return self._scalar(event)
        raise _Refused(
            "a key is a mapping or a list: a template such as {{ .input.x }} goes in quotes", event.start_mark
        )

    def _scalar(self, event: Any) -> Node:
        node = _begun("scalar", event)
        node.text = event.value
        node.size += len(node.text) // _CHARS_OF_A_VALUE
        self._grow(node.size, event)
        node.style = event.style or ""
        node.lines = event.end_mark.line - event.start_mark.line + 1
        if node.style == "|":
            node.indent = self._indent(event)
        node.value = self._value(event)
        return node

    def _value(self, event: Any) -> Any:
        tag = event.tag
        if tag is None or tag == "!":
            return event.value if event.style or tag == "!" else resolved(event.value)
        kind = _SCALAR_TAGS.get(tag)
        if kind is None:
            raise _Refused(f"tag {tag.removeprefix(_PREFIX)!r} means nothing here: leave it out", event.start_mark)
        return event.value if kind == "str" else resolved(event.value)

    def _check_tag(self, event: Any) -> None:
        if event.tag not in (None, "!", *_COLLECTION_TAGS):
            tag = event.tag.removeprefix(_PREFIX)
            raise _Refused(f"tag {tag!r} means nothing here: leave it out", event.start_mark)

    def _indent(self, event: Any) -> int:
        for line in self._lines[event.start_mark.line + 1 : event.end_mark.line + 1]:
            if line.strip():
                return len(line) - len(line.lstrip(" "))
        return 0


def _begun(kind: Any, event: Any) -> Node:
    return Node(kind=kind, line=event.start_mark.line + 1, column=event.start_mark.column + 1)


def _measured(node: Node, below: Collection[Node]) -> Node:
    node.size += sum(each.size for each in below)
    node.height += max((each.height for each in below), default=0)
    return node


def resolved(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar, by the core schema."""
    if text in _NULLS:
        return None
    if text in _TRUTHS:
        return _TRUTHS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OTHER_INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
