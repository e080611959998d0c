"""`inputs` of a team -> `InputSpec`."""

from __future__ import annotations

from typing import Any

from queue_backends.messages import encode_json
from worker.teams.errors import BadInput
from worker.teams.inputs import convert
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.objects import Fields
from worker.teams.plan import InputSpec


def compile_inputs(spec: Fields, findings: Findings) -> tuple[InputSpec, ...]:
    """The parameters; a default that does not fit its type is an error."""
    return tuple(_input(found, findings) for found in spec.many("inputs") if "name" in found)


def _input(found: Fields, findings: Findings) -> InputSpec:
    default = found.get("default")
    declared = InputSpec(
        name=found.text("name"),
        type=found.get("type", "string"),
        description=" ".join(found.text("description").split()),
        required=bool(found.get("required")),
        default=_as_text(default, found),
    )
    if declared.default is not None:
        try:
            convert(declared, declared.default)
        except BadInput as error:
            findings.error(found.at("default"), str(error).replace("input ", "the default of input ", 1))
    return declared


def _as_text(default: Any, found: Fields) -> str | None:
    if default is None:
        return None
    node = found.at("default")
    return node.text if node.kind == "scalar" else encode_json(default).decode()
