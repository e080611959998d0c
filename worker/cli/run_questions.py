"""What a run asks people: which questions are open, and how they are answered from its own terminal."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from typing import cast

import msgspec

from queue_backends import Backend, QueueError, StateChange
from worker.approvals import PREFIX, Approval, Approvals
from worker.cli.live_area import cut
from worker.errors import ApprovalDecided, ApprovalNotFound

_LOOK_AGAIN_S = 5.0
"""The watch may begin late, or miss something."""
_MOST_ARGUMENT_COLUMNS = 2000

_approval = msgspec.json.Decoder(Approval).decode


class RunQuestions:
    """The open questions of a run, and of the runs within it, the oldest first."""

    def __init__(self, backend: Backend, runs: Collection[str], changed: Callable[[], None]) -> None:
        """`runs`: their ids, which may become more. `changed` is called when a question has come or gone."""
        self._state = backend.state
        self._approvals = Approvals(backend.state, wake=backend.queue.wake)
        self._runs = runs
        self._changed = changed
        self._open: dict[str, Approval] = {}

    @property
    def open(self) -> list[Approval]:
        """Those that wait for an answer now."""
        now = time.time()
        return sorted((each for each in self._open.values() if each.is_open(now)), key=lambda each: each.asked_at)

    async def follow(self) -> None:
        """Keep up with them. Endless."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="questions of the run")
            while True:
                with contextlib.suppress(QueueError):
                    for each in await self._approvals.all():
                        self._heard(each)
                await asyncio.sleep(_LOOK_AGAIN_S)

    async def answer(self, question: Approval, *, approved: bool) -> str:
        """Decide it; returns what came of it, for the reader."""
        try:
            await self._approvals.decide(question.id, approved=approved, reviewer=_user())
        except (ApprovalDecided, ApprovalNotFound, QueueError) as error:
            return str(error)
        finally:
            self._open.pop(question.id, None)
            self._changed()
        return "approved" if approved else "rejected"

    async def _watch(self) -> None:
        while True:
            try:
                changes = cast("AsyncGenerator[StateChange, None]", self._state.watch(PREFIX))
                async with aclosing(changes):
                    async for change in changes:
                        if change.value is not None:
                            self._heard(_approval(change.value))
            except (QueueError, msgspec.DecodeError):
                await asyncio.sleep(1.0)

    def _heard(self, each: Approval) -> None:
        if each.run not in self._runs:
            return
        was_open = each.id in self._open
        if each.is_open(time.time()):
            self._open[each.id] = each
        else:
            self._open.pop(each.id, None)
        if was_open != (each.id in self._open):
            self._changed()


def who_asks(question: Approval) -> str:
    """`step publish`, `tool send_mail of writer`."""
    if question.tool:
        return f"tool {question.tool}" + (f" of {question.role or question.agent}" if question.role else "")
    return f"step {question.step}" if question.step else question.agent or "somebody"


def arguments_of(question: Approval) -> str:
    """The tool's arguments on one line; empty if there are none."""
    if question.arguments in (None, {}, ""):
        return ""
    text = question.arguments
    if not isinstance(text, str):
        text = msgspec.json.encode(question.arguments).decode()
    return cut(text, _MOST_ARGUMENT_COLUMNS)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return ""
