"""Objects: mappings with known fields, and what becomes of each field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.shapes import Shape, did_you_mean

Use = Literal["honoured", "noted", "ignored"]


@dataclass(frozen=True)
class Field:
    """A field of an object, and what becomes of it."""

    shape: Shape
    is_required: bool = False
    use: Use = "honoured"
    """`noted`: read, not used, and a note says why, once in a file. `ignored`: not used, and nobody minds."""
    note: str = ""
    """Why it is not used; of an honoured field: what is said about it, once."""
    ours: bool = False
    """Neither of the originals has it."""


class Fields:
    """An object that was read: its values, and where they stand."""

    def __init__(self, node: Node, values: Mapping[str, Any]) -> None:
        self.node = node
        self._values = values

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        """A value, or the default if it is not given."""
        return self._values.get(name, default)

    def text(self, name: str, default: str = "") -> str:
        """A text; empty if it is not given."""
        return str(self._values.get(name, default))

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(self._values.get(name, ()))

    def whole(self, name: str, default: int = 0) -> int:
        """A whole number."""
        return int(self._values.get(name, default))

    def one(self, name: str) -> Fields:
        """An object; an empty one if it is not given."""
        found = self._values.get(name)
        return found if isinstance(found, Fields) else Fields(self.at(name), {})

    def many(self, name: str) -> list[Fields]:
        """A list of objects."""
        found = self._values.get(name) or []
        return [item for item in found if isinstance(item, Fields)]

    def at(self, name: str) -> Node:
        """Where a value stands; if it is not given, the object."""
        return self.node.entries.get(name, self.node)

    def key(self, name: str) -> Node:
        """Where a field's name stands; if it is not given, the object."""
        return self.node.keys.get(name, self.node)


Rule = Callable[[Fields, Findings], None]


@dataclass(frozen=True)
class Object:
    """A mapping with known fields."""

    fields: Mapping[str, Field]
    what: str
    """In a message: "a step"."""
    rules: Sequence[Rule] = ()

    def read(self, node: Node, findings: Findings) -> Fields | None:
        """Its fields. Unknown ones are warnings; a field without a value is as one that is not there."""
        if node.is_null and not any(field.is_required for field in self.fields.values()):
            return Fields(node, {})
        if node.kind != "map":
            findings.error(node, f"it is {node.type_name}: use {self.allowed()}")
            return None
        values: dict[str, Any] = {}
        for name, below in node.entries.items():
            field = self.fields.get(name)
            if field is None:
                hint = did_you_mean(name, self.fields)
                findings.warning(node.keys[name], f"unknown field {name!r} of {self.what}: it is not read{hint}")
            elif not below.is_null:
                self._read_field(name, field, below, node.keys[name], findings, values)
        self._check_required(node, findings)
        found = Fields(node, values)
        for rule in self.rules:
            rule(found, findings)
        return found

    def _read_field(
        self, name: str, field: Field, node: Node, key: Node, findings: Findings, values: dict[str, Any]
    ) -> None:
        if field.use == "ignored":
            return
        if field.note:
            findings.note_once(f"{name}: {field.note}", key, field.note)
        value = field.shape.read(node, findings)
        if value is not None and field.use == "honoured":
            values[name] = value

    def _check_required(self, node: Node, findings: Findings) -> None:
        for name, field in self.fields.items():
            if field.is_required and (name not in node.entries or node.entries[name].is_null):
                findings.error(node, f"{self.what} needs {name!r}: {field.shape.allowed()}")

    def allowed(self) -> str:
        """What fits."""
        return f"a mapping: {self.what}"
