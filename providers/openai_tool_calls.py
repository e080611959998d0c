"""Tool calls of a streamed completion, put together from their pieces. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.messages import ToolCall


class Function(Struct, gc=False):
    """What is called, and a piece of its arguments."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallDelta(Struct, gc=False):
    """A piece of a tool call as on the wire. Any field may be missing."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class _Call:
    """A tool call that is being put together."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ToolCallAssembly:
    """Takes the pieces in the order in which they come. Servers differ in how they say which call a piece is of."""

    def __init__(self, new_id: Callable[[], str] = lambda: f"call_{uuid.uuid4().hex[:24]}") -> None:
        self._new_id = new_id
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._chars = 0

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls in the order in which they began; one without an id gets one, one without arguments `{}`."""
        return tuple(
            ToolCall(id=call.id or self._new_id(), name=call.name, arguments="".join(call.arguments) or "{}")
            for call in self._calls
        )

    def add(self, delta: CallDelta) -> None:
        """Put the piece where it belongs. Raises `LimitReached`."""
        function = delta.function or Function()
        call = self._call_for(delta, function)
        if delta.id and not call.id:
            call.id = delta.id
        if function.name and not call.name:
            call.name = function.name
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if arguments:
            call.arguments.append(arguments)
            self._chars += len(arguments)
        check_argument_chars(self._chars + CALL_CHARS * len(self._calls), "")

    def _call_for(self, delta: CallDelta, function: Function) -> _Call:
        if delta.index is None:
            known = next((call for call in self._calls if delta.id and call.id == delta.id), None)
            if known is None and not delta.id and not function.name and self._calls:
                known = self._calls[-1]
            return known or self._new_call()
        call = self._by_index.get(delta.index)
        # Some servers send every call, whole, as index 0: another id is another call. Others give each piece of a call
        # an id of its own, but only the first piece a name.
        if call is None or (function.name and delta.id and call.id and delta.id != call.id):
            call = self._by_index[delta.index] = self._new_call()
        return call

    def _new_call(self) -> _Call:
        call = _Call()
        self._calls.append(call)
        return call
