"""Tools that are Python functions: the schema comes from the signature, the description from the docstring."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from providers.messages import ImagePart, ToolSpec
from worker.errors import ToolCallFailed, ToolSetupFailed
from worker.tools.config import TOOL_NAME
from worker.tools.docstring import read_docstring
from worker.tools.interfaces import ToolContext, ToolResult
from worker.tools.signature import Arguments
from worker.tools.threads import Threads

_MARK = "__shoal_tool__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class ToolOptions(Struct, frozen=True, kw_only=True):
    """What cannot be read from the function itself."""

    name: str = ""
    """Empty: the function's own name."""
    description: str = ""
    """Empty: the docstring's text before its first section."""
    idempotent: bool = False
    timeout_s: float = 60.0
    max_output_chars: int = 100_000
    max_threads: int = 32
    """For a plain function: calls at once, those that hang included."""


@overload
def tool(function: _Function, /) -> _Function: ...
@overload
def tool(
    *,
    name: str = "",
    description: str = "",
    idempotent: bool = False,
    timeout_s: float = 60.0,
    max_output_chars: int = 100_000,
    max_threads: int = 32,
) -> Callable[[_Function], _Function]: ...
def tool(function: _Function | None = None, /, **options: Any) -> _Function | Callable[[_Function], _Function]:
    """Mark a function as a tool, for `load_tools` to find; it stays an ordinary function.

    `idempotent` says that calling it twice does no harm; `timeout_s` limits one call. Raises `ToolSetupFailed` at once
    if the function's signature cannot be a tool's.
    """
    chosen = ToolOptions(**options)

    def mark(target: _Function) -> _Function:
        PythonTool(target, chosen)  # so that a mistake shows where the function is defined
        setattr(target, _MARK, chosen)
        return target

    return mark if function is None else mark(function)


def is_tool(value: object) -> bool:
    """Whether the value is a function marked by `@tool`."""
    return isinstance(getattr(value, _MARK, None), ToolOptions)


def python_tool(function: Callable[..., Any], **options: Any) -> PythonTool:
    """A tool of a function; the options are those of `@tool`, and replace what the function was marked with.

    Raises `ToolSetupFailed`.
    """
    chosen: ToolOptions = getattr(function, _MARK, ToolOptions())
    return PythonTool(function, msgspec.structs.replace(chosen, **options))


class PythonTool:
    """A `Tool` that calls a function: a coroutine function in the event loop, a plain one in a thread of its own."""

    def __init__(self, function: Callable[..., Any], options: ToolOptions) -> None:
        name = options.name or getattr(function, "__name__", "")
        if not TOOL_NAME.fullmatch(name):
            raise ToolSetupFailed(f"tool name {name!r}: use 1 to 64 letters, digits, '_' or '-', or pass name=")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise ToolSetupFailed(f"tool {name!r} is a generator: return the whole result instead")
        self._function = function
        self._arguments = Arguments(function, name)
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads = Threads(options.max_threads)
        self.after_timeout = (
            "it was cancelled" if self._is_async else "its thread cannot be stopped and may still be running"
        )
        self.spec = ToolSpec(
            name=name,
            description=options.description or read_docstring(function)[0],
            input_schema=self._arguments.schema,
            idempotent=options.idempotent,
            timeout_s=options.timeout_s,
            max_output_chars=options.max_output_chars,
            kind="python",
        )

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Call the function. Raises `ToolCallFailed`, or what the function raises."""
        values = self._arguments.bind(arguments, context)
        try:
            if self._is_async:
                return to_result(await self._function(**values))
            return to_result(await self._threads.run(lambda: self._function(**values), name=f"tool {self.spec.name}"))
        except SystemExit as error:
            raise ToolCallFailed(f'tool "{self.spec.name}" tried to end the process (exit {error.code})') from error


def to_result(value: Any) -> ToolResult:
    """What a function returned, as a result: text as it is, pictures apart, everything else as JSON."""
    match value:
        case ToolResult():
            return value
        case None:
            return ToolResult()
        case str():
            return ToolResult(text=value)
        case ImagePart():
            return ToolResult(images=(value,))
        case bytes():
            return ToolResult(text=value.decode("utf-8", "replace"))
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, ValueError):
        return ToolResult(text=str(value))
    return ToolResult(text=msgspec.json.encode(plain).decode(), structured=plain)
