"""All tools that agents of this worker may call, and the one way to call them.

A call never raises for a tool's failure: what went wrong becomes an outcome with `is_error` that the model can react
to. Only cancellation passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from providers.messages import ToolCall, ToolOutcome, ToolSpec
from queue_backends import QueueError
from queue_backends.messages import JsonObject
from worker.errors import BadSetting, ToolCallFailed, ToolSetupFailed
from worker.tools.config import check_unique
from worker.tools.interfaces import KeptOutputs, OutputNotKept, Tool, ToolContext, ToolResult, ToolServer
from worker.tools.outcome import Digest, Keep, failed, outcome_of
from worker.tools.read_output import READ_OUTPUT
from worker.tools.schema import ArgumentSchema

log = structlog.get_logger(__name__)

KIND_ORDER = {"mcp": 0, "webhook": 1, "builtin": 2, "python": 3}
"""ark's order of the tool list, then what ark does not have."""


MOST_CHOICES = 1000
"""Tasks may override which tools they want: so many different wishes are remembered."""


class _Entry(Struct, frozen=True):
    tool: Tool
    schema: ArgumentSchema


class ToolCatalogue:
    """Tools of servers that come and go, and tools that are always there. Use it with `async with`.

    Entering starts the servers' connections and waits for the first attempt of each, at most `connect_wait_s`; a
    server that is down is retried in the background, shows in `problems()`, and takes nothing from the others.
    """

    __slots__ = (
        "_chosen",
        "_connect_wait_s",
        "_entries",
        "_fixed",
        "_group",
        "_left_out",
        "_listed",
        "_max_output_chars",
        "_servers",
        "_serving",
    )

    def __init__(
        self,
        *,
        servers: Sequence[ToolServer] = (),
        tools: Sequence[Tool] = (),
        connect_wait_s: float = 15.0,
        max_output_chars: int | None = None,
    ) -> None:
        """`max_output_chars` lowers every tool's own limit.

        Raises `BadSetting` if two tools or servers have the same name, or a tool's schema is none.
        """
        self._servers = tuple(servers)
        check_unique("tool server", [server.name for server in servers])
        self._fixed = _fixed_entries(sorted(tools, key=lambda tool: KIND_ORDER.get(tool.spec.kind, len(KIND_ORDER))))
        self._connect_wait_s = connect_wait_s
        self._max_output_chars = max_output_chars
        self._listed: tuple[tuple[ToolServer, Sequence[Tool]], ...] = ()
        """What the entries were made of; none before they were first asked for."""
        self._entries: dict[str, _Entry] = dict(self._fixed)
        self._left_out: dict[str, str] = {}
        self._chosen: tuple[dict[str, _Entry], dict[tuple[str, ...] | None, tuple[ToolSpec, ...]]] = (self._entries, {})
        """What `specs` has found among these entries."""
        self._group: asyncio.TaskGroup | None = None
        self._serving: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._serving = [
            self._group.create_task(server.serve(), name=f"tool server {server.name}") for server in self._servers
        ]
        try:
            await self._first_attempts()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        for task in self._serving:
            task.cancel()
        if group is not None:
            # An error of the body is not handed to the group: it would come out wrapped in an ExceptionGroup.
            await group.__aexit__(None, None, None)

    async def _first_attempts(self) -> None:
        waits = [asyncio.ensure_future(server.first_attempt()) for server in self._servers]
        if not waits:
            return
        try:
            await asyncio.wait(waits, timeout=self._connect_wait_s)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def specs(self, names: Sequence[str] | None = None) -> tuple[ToolSpec, ...]:
        """The tools to tell a model of, in ark's order: MCP servers' as declared, webhooks, built-ins, Python.

        `names` chooses among them by name or by pattern, such as `search__*`; None means all. `read_output` comes with
        any tool whose output may be too long to be shown, and never alone.
        """
        entries = self._current()
        if self._chosen[0] is not entries or len(self._chosen[1]) >= MOST_CHOICES:
            self._chosen = (entries, {})
        known, key = self._chosen[1], None if names is None else tuple(names)
        found = known.get(key)
        if found is None:
            found = known[key] = self._choose(entries, names)
        return found

    def _choose(self, entries: dict[str, _Entry], names: Sequence[str] | None) -> tuple[ToolSpec, ...]:
        # A data source's tool is given with the data source, not by name (`ResolvedAgent.tool_specs`).
        specs = [spec for entry in entries.values() if (spec := entry.tool.spec).kind != "datasource"]
        chosen = [spec for spec in specs if spec is not READ_OUTPUT and (names is None or _is_chosen(spec.name, names))]
        if all(spec.kind == "builtin" for spec in chosen):
            return tuple(chosen)
        names_chosen = {spec.name for spec in chosen}
        return tuple(spec for spec in specs if spec is READ_OUTPUT or spec.name in names_chosen)

    def spec(self, name: str) -> ToolSpec | None:
        """The tool of that name, if there is one now."""
        entry = self._current().get(name)
        return None if entry is None else entry.tool.spec

    def problems(self) -> dict[str, str]:
        """What cannot be used right now: name of the server or tool -> why. Empty when all is well."""
        self._current()
        down = {server.name: problem for server in self._servers if (problem := server.problem())}
        return {**down, **self._left_out}

    def problem(self, call: ToolCall) -> ToolOutcome | None:
        """Why a call cannot be made as it is: there is no such tool, or its arguments do not fit. None: it can."""
        entry = self._current().get(call.name)
        if entry is None:
            return failed(call, self._not_found(call.name))
        try:
            _checked_arguments(call, entry.schema)
        except ToolCallFailed as error:
            return failed(call, str(error))
        return None

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Run the tool that the model asked for and return what the model shall read.

        Arguments are checked against the tool's schema before, and the output is cut to its limit after; the whole is
        kept in `context.outputs`. Raises nothing but `asyncio.CancelledError`, and `worker.parking.Parked` where the
        tool does.
        """
        entry = self._current().get(call.name)
        if entry is None:
            return failed(call, self._not_found(call.name))
        try:
            arguments = _checked_arguments(call, entry.schema)
        except ToolCallFailed as error:
            return failed(call, str(error))
        if context.outputs is not None and entry.tool.spec.kind != "builtin":
            await _room_for_output(context.outputs, entry.tool.spec.timeout_s)
        result = await _run(entry.tool, arguments, replace(context, call_id=call.id))
        limit, keep = self._output_limit(entry.tool.spec), _keeper(call, entry.tool, context)
        return await outcome_of(call, result, limit, keep, _digest(entry.tool, context))

    def _output_limit(self, spec: ToolSpec) -> int:
        return (
            spec.max_output_chars
            if self._max_output_chars is None
            else min(spec.max_output_chars, self._max_output_chars)
        )

    def _not_found(self, name: str) -> str:
        text = f'tool "{name}" not found; available: {", ".join(self._current()) or "none"}'
        if problems := self.problems():
            text += f"; not available right now: {', '.join(problems)}"
        return text

    def _current(self) -> dict[str, _Entry]:
        """The present tools by name. Built anew only after a server's list has changed."""
        known = self._listed
        for server, tools in known:
            if server.tools() is not tools:
                break
        else:
            if known or not self._servers:
                return self._entries
        listed = tuple((server, server.tools()) for server in self._servers)
        # `_listed` last: the health pages' thread looks here too, and must not take the old entries for the new.
        self._entries, self._left_out = self._index([tools for _, tools in listed])
        self._listed = listed
        return self._entries

    def _index(self, listed: Sequence[Sequence[Tool]]) -> tuple[dict[str, _Entry], dict[str, str]]:
        entries: dict[str, _Entry] = {}
        left_out: dict[str, str] = {}
        for tool in (tool for tools in listed for tool in tools):
            name = tool.spec.name
            if name in entries or name in self._fixed:
                left_out[name] = f"tool {name!r} is left out: another tool has the same name"
                continue
            try:
                entries[name] = _Entry(tool, ArgumentSchema(tool.spec.input_schema))
            except ToolSetupFailed as error:
                left_out[name] = f"tool {name!r} is left out: bad input schema: {error}"
        for name in left_out.keys() - self._left_out.keys():
            log.warning("tool left out", tool=name, reason=left_out[name])
        return {**entries, **self._fixed}, left_out


def _fixed_entries(tools: Sequence[Tool]) -> dict[str, _Entry]:
    check_unique("tool", [tool.spec.name for tool in tools])
    entries: dict[str, _Entry] = {}
    for tool in tools:
        try:
            entries[tool.spec.name] = _Entry(tool, ArgumentSchema(tool.spec.input_schema))
        except ToolSetupFailed as error:
            raise BadSetting(f"tool {tool.spec.name!r} has a bad input schema: {error}") from error
    return entries


def _is_chosen(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _checked_arguments(call: ToolCall, schema: ArgumentSchema) -> JsonObject:
    arguments = _parse_arguments(call)
    if errors := schema.errors(arguments):
        raise ToolCallFailed(f'invalid arguments for tool "{call.name}": {"; ".join(errors)}')
    return arguments


def _parse_arguments(call: ToolCall) -> JsonObject:
    if not call.arguments.strip():
        return {}
    try:
        arguments: Any = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ToolCallFailed(f'arguments of tool "{call.name}" are not valid JSON: {error}') from error
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise ToolCallFailed(
            f'arguments of tool "{call.name}" are a JSON {type(arguments).__name__}: give an object of named arguments'
        )
    return arguments


async def _room_for_output(outputs: KeptOutputs, most_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(most_s):
            await outputs.ready()


def _keeper(call: ToolCall, tool: Tool, context: ToolContext) -> Keep | None:
    """How a long output of this call is kept. What built-in tools say can be asked for again."""
    outputs, limit_s = context.outputs, tool.spec.timeout_s
    if outputs is None or tool.spec.kind == "builtin":
        return None

    async def keep(text: str) -> str:
        try:
            async with asyncio.timeout(limit_s):
                where = await outputs.keep(call.id, text)
        except TimeoutError:
            return f"it could not be stored within {limit_s:g} s"
        except (OutputNotKept, QueueError) as error:
            return f"it could not be stored: {error}"
        return f"{where}: read on with {READ_OUTPUT.name}"

    return keep


def _digest(tool: Tool, context: ToolContext) -> Digest | None:
    """How a long output of this tool is shortened by the run's loop policy, if it has one. What built-in tools say is
    what the model wants to read now."""
    return None if context.policy is None or tool.spec.kind == "builtin" else context.policy.digest


async def _run(tool: Tool, arguments: JsonObject, context: ToolContext) -> ToolResult:
    name, limit_s = tool.spec.name, tool.spec.timeout_s
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            return await tool.call(arguments, context)
    except ToolCallFailed as error:
        return ToolResult(text=str(error), is_error=True)
    except TimeoutError as error:
        if limit.expired():
            text = f'tool "{name}" gave no answer within {limit_s:g} s; {tool.after_timeout}'
            return ToolResult(text=text, is_error=True)
        return _crashed(name, error)
    except Exception as error:  # noqa: BLE001  a tool is foreign code: whatever it raises is for the model to read
        return _crashed(name, error)


def _crashed(name: str, error: Exception) -> ToolResult:
    log.warning("tool raised", tool=name, error_type=type(error).__name__, exc_info=error)
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ToolResult(text=f'tool "{name}" failed: {reason}', is_error=True)
