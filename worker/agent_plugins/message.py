"""What a message is to its host: what the run gives, and what its services share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from providers import ChunkFn, ToolCall, ToolOutcome, ToolSpec
from queue_backends import Delivery, QueueError, Task
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.permissions import Permissions
from worker.agent_plugins.recording import Recording
from worker.agent_plugins.sections import Sections
from worker.agent_plugins.step_book import MessageBook
from worker.agent_plugins.steps import Steps
from worker.agents.resolved import ResolvedAgent
from worker.errors import Postponed
from worker.parking import Parking
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.tool_book import ToolBook
from worker.turn_book import TurnBook

T = TypeVar("T")


class MessageGiven(Struct, frozen=True, kw_only=True):
    """What a task's run hands over."""

    around: Surroundings
    delivery: Delivery
    task: Task
    """With the conversation in its history."""
    agent: ResolvedAgent
    chunks: ChunkWriter
    chunk_fn: ChunkFn
    """Writes to `chunks`, and lets others hear."""
    book: TurnBook
    recording: Recording
    parking: Parking
    """Learns of each model call that is under way, so that none is cut off when another step has to wait."""
    tool_specs: Callable[[], Sequence[ToolSpec]]
    """The tools that its models may be told of at present."""
    call_tool: Callable[[ToolCall, ToolBook], Awaitable[ToolOutcome]]
    """Carries a tool call out, with everything that belongs to it."""


class Message:
    """One message that is being handled, as its services see it."""

    def __init__(self, given: MessageGiven, package: PluginPackage) -> None:
        self.given = given
        self.package = package
        around, delivery, recording = given.around, given.delivery, given.recording
        self.permissions = Permissions(package, given.agent.app)
        self.steps = Steps(recording, around.journal, delivery)
        self.sections = Sections(
            given.chunks,
            given.chunk_fn,
            around.journal,
            delivery,
            shown=recording.shown,
            first=recording.next_section,
            is_taken_over=not delivery.first,
        )
        self.books = MessageBook(around, delivery, given.book, given.chunks, given.parking)
        self.fatal: BaseException | None = None
        """What ends the run, whatever the plugin makes of it."""
        self._is_over = False
        self._handler: asyncio.Task[None] | None = None
        self._parts: set[asyncio.Task[Any]] = set()

    @property
    def namespace(self) -> str:
        """Whose message it is."""
        agent = self.given.agent.agent
        return self.given.task.tenant or (agent.namespace if agent is not None else "")

    def handled_by(self, handler: asyncio.Task[None]) -> None:
        """The task that runs the plugin's code."""
        self._handler = handler

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run something beside the plugin's code, until the message ends at the latest."""
        part = asyncio.create_task(coroutine, name=f"{name} of {self.given.task.id}")
        self._parts.add(part)
        part.add_done_callback(self._part_ended)
        return part

    def _part_ended(self, part: asyncio.Task[Any]) -> None:
        self._parts.discard(part)
        if not part.cancelled():
            part.exception()  # seen, even if the plugin does not ask for it

    async def service(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something for the plugin. What ends the run ends the plugin's code, too: it is not the plugin's to
        catch."""
        if self._is_over or self.fatal is not None:
            work.close()
            raise asyncio.CancelledError
        try:
            return await work
        except (Postponed, QueueError) as error:
            self.fatal = self.fatal or error
            if self._handler is not None:
                self._handler.cancel()
            raise asyncio.CancelledError from error

    async def end(self) -> None:
        """From now on services do nothing any more; what goes on of them is ended."""
        self._is_over = True
        parts = list(self._parts)
        for part in parts:
            part.cancel()
        if parts:
            await asyncio.wait(parts)
