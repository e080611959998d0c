"""What a tool is, and what it is given.

A tool answers, or raises: `ToolCallFailed` with a text for the model, or anything else, which the catalogue turns into
an outcome for the model too. It honours cancellation at every await; what it started, it ends or leaves to nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from providers.messages import ImagePart, ToolSpec
from queue_backends import StateStore, Task
from worker.datasources.model import Datasource
from worker.teams.marks import Marks

if TYPE_CHECKING:
    from worker.artifacts import TaskArtifacts
    from worker.loop_policy.run_policy import RunPolicy
    from worker.teams.delegation import Children

SubmitTask = Callable[[Task], Awaitable[str]]
"""Enqueues a task and returns its id. Raises a `QueueError`."""


class OutputNotKept(Exception):
    """A tool's output could not be stored; the message says why, for the model to read."""


class OutputPage(Struct, frozen=True, kw_only=True):
    """A part of a kept output. Offsets and lengths are in characters."""

    text: str
    offset: int
    kept_chars: int
    chars: int
    """Of the whole output, kept or not."""


class KeptOutputs(Protocol):
    """Where the outputs of one task are kept that are longer than what its model reads."""

    async def ready(self) -> None:
        """Return when another output may come: not while many are about to be stored."""
        ...

    async def keep(self, call_id: str, text: str) -> str:
        """Store an output and return a note of where it is, for the model. Raises `OutputNotKept`."""
        ...

    async def read(self, call_id: str, offset: int, limit: int) -> OutputPage | None:
        """Up to `limit` characters from `offset` on; None if no such output is kept."""
        ...


class ToolContext(Struct, frozen=True, kw_only=True):
    """On whose behalf a tool is called. A call repeated by a later attempt of the task has the same context."""

    task_id: str = ""
    agent: str = ""
    tenant: str = ""
    session_id: str = ""
    call_id: str = ""
    """The model's id of this call, unique within the task; given by the catalogue."""
    submit: SubmitTask | None = None
    """How to enqueue further tasks; None where there is no queue."""
    outputs: KeptOutputs | None = None
    """Where long outputs go; None where they are only cut."""
    datasources: tuple[Datasource, ...] = ()
    """What the run's agent may search."""
    marks: Marks | None = None
    """Whose work the run is; None outside teams."""
    state: StateStore | None = None
    """What outlives the process; None where there is no store."""
    children: Children | None = None
    """How to make tasks for others, and to get their results; None where there is no queue."""
    policy: RunPolicy | None = None
    """What happens around the run's tool calls; None: nothing does."""
    artifacts: TaskArtifacts | None = None
    """Where the task's files go; None: there is no store for them."""


class ToolResult(Struct, frozen=True, kw_only=True):
    """What a tool answered. `is_error` says that `text` is a failure the model should react to."""

    text: str = ""
    images: tuple[ImagePart, ...] = ()
    structured: Any = None
    """The answer as a JSON value, where the tool has one."""
    is_error: bool = False


class Tool(Protocol):
    """One tool that the model may call."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told of it, and the limits of one call."""
        ...

    @property
    def after_timeout(self) -> str:
        """What the model is told when the time limit has run out: may the work still take effect?"""
        ...

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        """Run it with arguments that fit `spec.input_schema`. Raises `ToolCallFailed`."""
        ...


class ToolServer(Protocol):
    """Something outside this process whose tools come and go, such as an MCP server."""

    @property
    def name(self) -> str:
        """Its name, unique in a catalogue."""
        ...

    def tools(self) -> Sequence[Tool]:
        """The tools it had when it was last reachable, in its own order. A new tuple only when they changed."""
        ...

    def problem(self) -> str:
        """Why it cannot be used right now; empty when it can."""
        ...

    async def first_attempt(self) -> None:
        """Return as soon as the first attempt to reach it has ended, well or not."""
        ...

    async def serve(self) -> None:
        """Keep the connection for as long as this runs, reconnecting after each loss. Ends only by cancellation, and
        has then released everything it held. Raises nothing else."""
        ...
