"""A run's input: values as they were given -> values as the team declares them."""

from __future__ import annotations

import difflib
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from worker.teams.errors import BadInput
from worker.teams.plan import InputSpec, Team


def check_input(team: Team, given: Mapping[str, Any]) -> dict[str, Any]:
    """The run's whole input: what is given, then what stands in the file, then the defaults.

    Text is converted to the declared type, as it comes from a command line. A team that declares no inputs takes any.
    Raises `BadInput` naming the parameter and what is allowed.
    """
    for name, value in given.items():
        _check_json(name, value)
    if not team.inputs:
        return {**team.input, **given}
    declared = {spec.name: spec for spec in team.inputs}
    for name in given:
        if name not in declared and name not in team.input:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.6)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise BadInput(f"team {team.name!r} has no input {name!r}{hint}: it takes {', '.join(declared)}")
    found = {**team.input, **given}
    for name, spec in declared.items():
        if name in found and found[name] is not None:
            found[name] = convert(spec, found[name])
        elif spec.default is not None:
            found[name] = convert(spec, spec.default)
        elif spec.required:
            told = f" ({spec.description})" if spec.description else ""
            raise BadInput(f'required input parameter "{name}" is missing{told}: give it as {spec.type}')
    return found


def _check_json(name: str, value: Any) -> None:
    """Whatever does not come back as it is would be something else when the run goes on in another process."""
    try:
        json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"input {name[:100]!r} cannot be written as JSON: {error}") from error


def convert(spec: InputSpec, value: Any) -> Any:
    """A value as its declared type. Raises `BadInput`."""
    if spec.type == "string":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        value = _read(spec, value)
    if not _fits(spec, value):
        raise _bad(spec, value)
    return value


def _read(spec: InputSpec, text: str) -> Any:
    if spec.type == "boolean":
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
            text.strip().lower(), text
        )
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _fits(spec: InputSpec, value: Any) -> bool:
    if spec.type == "number":
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    kinds = {"boolean": bool, "object": dict, "array": list}
    return isinstance(value, kinds[spec.type])


def _bad(spec: InputSpec, value: Any) -> BadInput:
    allowed = {
        "number": "a number",
        "boolean": "true or false",
        "object": "a JSON object",
        "array": "a JSON list",
    }[spec.type]
    shown = repr(value)
    return BadInput(f"input {spec.name!r} is {shown if len(shown) <= 80 else shown[:80] + '…'}: use {allowed}")
