"""Parameters that OpenAI's two ways to talk to a model have in common: what they mean here, and which are refused.

Source: https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from providers import ClientTool, Thinking, ToolChoice
from queue_backends import Priority
from queue_backends.messages import JsonObject
from worker.gateway.problem import Problem

MOST_METADATA = 16
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
_PRIORITIES: Mapping[str, Priority] = {
    "flex": Priority.LOW,
    "priority": Priority.HIGH,
    "fast": Priority.HIGH,
}


def refused(param: str, why: str, *, code: str = "unsupported_parameter") -> Problem:
    """A parameter that cannot be served."""
    return Problem(400, f"{param}: {why}", code=code, extra={"param": param})


def check_range(param: str, value: float | None, low: float, high: float) -> None:
    """Raise `Problem` 400 for a number outside of its range."""
    if value is not None and not low <= value <= high:
        raise refused(param, f"{value:g} is not allowed: give {low:g} to {high:g}", code="invalid_value")


def check_count(param: str, value: int | None) -> None:
    """Raise `Problem` 400 for what is no positive number."""
    if value is not None and value < 1:
        raise refused(param, f"{value} is not allowed: give at least 1", code="invalid_value")


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """The stop sequences."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > 4:
        raise refused("stop", f"{len(stops)} sequences are given, at most 4 are allowed", code="invalid_value")
    return stops


def thinking_of(param: str, effort: str | None) -> Thinking | UnsetType | None:
    """How much the model shall reason; UNSET: as the agent has it."""
    if effort is None:
        return UNSET
    if effort == "none":
        return None
    if effort not in _EFFORTS:
        raise refused(param, f"{effort[:50]!r} is unknown: use none, {', '.join(_EFFORTS)}", code="invalid_value")
    return Thinking(effort=_EFFORTS[effort])


def priority_of(service_tier: str | None) -> Priority:
    """`flex` waits behind the others, `priority` goes before them."""
    return _PRIORITIES.get(service_tier or "", Priority.NORMAL)


def meta_of(api: str, user: str | None, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """What the task carries along of a request."""
    if metadata and len(metadata) > MOST_METADATA:
        raise refused("metadata", f"it has {len(metadata)} keys, at most {MOST_METADATA} are allowed")
    own = {f"metadata.{key}": value for key, value in (metadata or {}).items()}
    return {"api": api, **({"user": user} if user else {}), **own}


class Schema(Struct, frozen=True, kw_only=True):
    """A JSON schema that an answer has to fit."""

    name: str
    schema: JsonObject = {}
    description: str | None = None
    strict: bool | None = None


def tool_of(name: str, description: str | None, parameters: JsonObject | None, where: str) -> ClientTool:
    """One of the client's tools."""
    if not _TOOL_NAME.fullmatch(name):
        raise refused(where, f"the name {name[:70]!r} is not allowed: use 1 to 64 letters, digits, '_' and '-'")
    return ClientTool(name=name, description=description or "", input_schema=parameters or {"type": "object"})


class Choice(Struct, frozen=True, kw_only=True):
    """A tool choice in our terms."""

    choice: ToolChoice | None = None
    only_tool: str = ""
    allowed: frozenset[str] | None = None
    """None: all."""


def choice_of(given: str | JsonObject | None, tools: Sequence[ClientTool]) -> Choice:
    """Chat Completions nests a tool's name in `function`, Responses does not; both are read."""
    if given is None or given == "auto":
        return Choice()
    names = {tool.name for tool in tools}
    if given == "none":
        return Choice(choice=ToolChoice.NONE)
    if given == "required":
        if not names:
            raise refused("tool_choice", "'required' needs tools", code="invalid_value")
        return Choice(choice=ToolChoice.REQUIRED)
    if isinstance(given, dict) and given.get("type") == "function":
        return Choice(only_tool=_known(_name_in(given), names))
    if isinstance(given, dict) and given.get("type") == "allowed_tools":
        return _allowed(given.get("allowed_tools", given), names)
    raise refused("tool_choice", "use 'auto', 'none', 'required', or an object of type 'function' or 'allowed_tools'")


def _allowed(given: Any, names: set[str]) -> Choice:
    listed = given.get("tools") if isinstance(given, dict) else None
    if not isinstance(listed, list):
        raise refused("tool_choice", "'allowed_tools' needs a list 'tools'", code="invalid_value")
    allowed = frozenset(_known(_name_in(tool), names) for tool in listed)
    return Choice(choice=ToolChoice.REQUIRED if given.get("mode") == "required" else None, allowed=allowed)


def _name_in(given: Any) -> str:
    inner = given.get("function", given) if isinstance(given, dict) else {}
    return str(inner.get("name", "")) if isinstance(inner, dict) else ""


def _known(name: str, names: set[str]) -> str:
    if name not in names:
        raise refused("tool_choice", f"there is no function {name[:70]!r} among the tools", code="invalid_value")
    return name
