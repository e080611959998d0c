"""Long results of tools are kept apart: the model reads a digest, and more of it by `sandbox_recall`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from providers import ToolCall
from worker.journal import Sandboxed
from worker.loop_policy.model import SandboxPolicy
from worker.tools.interfaces import KeptOutputs, OutputNotKept

_ID = re.compile(r"(?:result-)?([0-9]{1,9})")


class Sandbox:
    """Of one run. What is kept stands where all long outputs do, under the id of its call."""

    def __init__(
        self,
        policy: SandboxPolicy,
        outputs: KeptOutputs,
        *,
        most_chars: int,
        earlier: Mapping[int, Sandboxed],
        note: Callable[[int, str, int], None],
    ) -> None:
        """`most_chars` is how much the store takes of one task; `note` is told of each result that is kept: its number,
        the call's id, its size in bytes."""
        self._policy = policy
        self._outputs = outputs
        self._most_chars = most_chars
        self._note = note
        self._numbers = {entry.call_id: number for number, entry in earlier.items()}
        self._sizes = {entry.call_id: entry.size_bytes for entry in earlier.values()}
        """In bytes, by call, also of those that are about to be stored."""
        self._next = max(earlier, default=0) + 1

    async def digest(self, call: ToolCall, text: str) -> str | None:
        """What the model reads instead of a result; None: it is to read all of it. Raises `OutputNotKept`, and what
        the store does."""
        size = len(text.encode("utf-8", "replace"))
        if size <= self._policy.shown_bytes:
            return None
        before = self._sizes.get(call.id, 0)  # a call that is repeated after a crash counts once, under its number
        if sum(self._sizes.values()) - before + size > self._policy.most_bytes or len(text) > self._most_chars:
            raise OutputNotKept(f"there is no room for another {size:,} bytes")
        self._sizes[call.id] = size
        try:
            await self._outputs.keep(call.id, text)
        except BaseException:
            self._sizes[call.id] = before
            raise
        if (number := self._numbers.get(call.id)) is None:
            number = self._numbers[call.id] = self._next
            self._next += 1
        self._note(number, call.id, size)
        beginning = text.encode("utf-8", "replace")[: self._policy.preview].decode("utf-8", "ignore")
        return (
            f"[sandboxed: result-{number}]\n"
            f"tool: {call.name}\n"
            f"size: {size:,} bytes, about {size // 4:,} tokens\n"
            f"beginning: {beginning}\n"
            f'[not shown: the rest; sandbox_recall(id="result-{number}") reads it]'
        )

    def call_id(self, name: str) -> str | None:
        """What a digest's id stands for; None if there is no such digest."""
        if (found := _ID.fullmatch(name.strip())) is None:
            return None
        return next((call_id for call_id, number in self._numbers.items() if number == int(found[1])), None)
