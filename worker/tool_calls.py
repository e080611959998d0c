"""The tool calls of one run: which tools it has, who has to approve what, and how one that waits puts the run down."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct

from providers import ToolCall, ToolOutcome, ToolSpec
from queue_backends import Task
from worker.agents import ResolvedAgent
from worker.approvals.tool_approvals import needs_approval, waits_for
from worker.artifacts.tool_files import with_files_kept
from worker.metrics import AgentMetrics
from worker.parking import Parked, Parking
from worker.surroundings import Surroundings
from worker.teams.delegation import Children
from worker.teams.marks import Marks
from worker.teams.role_tools import OwnTools
from worker.tool_book import ToolBook
from worker.tools.catalogue import ToolCatalogue
from worker.tools.interfaces import ToolContext
from worker.tools.outcome import failed
from worker.tools.outputs import OnKept

if TYPE_CHECKING:
    from worker.artifacts import TaskArtifacts
    from worker.loop_policy.run_policy import RunPolicy

log = structlog.get_logger(__name__)


class ToolCalls(Struct, frozen=True, kw_only=True, eq=False):
    """Made with the first call of a run: most runs make none."""

    around: Surroundings
    task: Task
    agent: ResolvedAgent
    marks: Marks | None
    """Whose work it is; None outside teams."""
    own: OwnTools | None
    """Of its role."""
    specs: Callable[[], Sequence[ToolSpec]]
    """What its model is told of."""
    parking: Parking
    metrics: AgentMetrics
    note_kept: OnKept
    """Told of a long output that is kept."""
    policy: RunPolicy | None = None
    """What happens around the calls, beside making them; None: nothing does."""
    artifacts: TaskArtifacts | None = None
    """The run's files; None: they are not kept."""

    async def make(self, call: ToolCall, book: ToolBook) -> ToolOutcome:
        """Carry a tool call out; if it has to wait for long, the run is put down."""
        self.parking.begun()
        book.on_ended = self.parking.ended
        try:
            return await self._carry_out(call, book)
        except Parked as parked:
            await book.waits(call, parked.reason)
            await self.parking.park(parked)
        except BaseException:
            self.parking.ended()
            raise

    async def _carry_out(self, call: ToolCall, book: ToolBook) -> ToolOutcome:
        tools = self._catalogue(call.name)
        spec = tools.spec(call.name)
        if known := book.known(call, spec):
            if self.policy is not None:
                self.policy.heard(call, known)
            return known
        if not self._has(call.name, spec, is_own=tools is not self.around.tools):
            return failed(call, self._not_its_tool(call.name))
        if self.policy is None:
            return await self._made(call, book, tools, spec)
        made = functools.partial(self._made, call, book, tools, spec)
        return await self.policy.govern(call, spec, made, functools.partial(book.raw, call))

    async def _made(self, call: ToolCall, book: ToolBook, tools: ToolCatalogue, spec: ToolSpec | None) -> ToolOutcome:
        if spec is not None and (refused := await self._refused(call, book, tools)):
            return refused
        await book.before_tool(call)
        kind = spec.kind if spec else "unknown"
        started = time.monotonic()
        with self.around.telemetry.tool_call(name=call.name, kind=kind, call_id=call.id) as span:
            outcome = await tools.call(call, self._context(kind))
            if self.artifacts is not None:
                outcome = await with_files_kept(self.artifacts, outcome)
            span.contents(call.arguments, outcome.content)
            if outcome.is_error:
                span.fail(outcome.content[:500], kind="tool_error")
        self.metrics.tool(call.name if spec else "(unknown)", kind).called(
            time.monotonic() - started, is_error=outcome.is_error
        )
        return outcome

    def _catalogue(self, name: str) -> ToolCatalogue:
        """Where a tool of that name is: its policy's come first, then its role's own."""
        if self.policy is not None and self.policy.catalogue.spec(name) is not None:
            return self.policy.catalogue
        if self.own is not None and self.own.catalogue.spec(name) is not None:
            return self.own.catalogue
        return self.around.tools

    def _has(self, name: str, spec: ToolSpec | None, *, is_own: bool) -> bool:
        """Whether the run has a tool. One that nobody has is the catalogue's to refuse, unless its model was given
        other tools than those that the workers have."""
        agent = self.agent
        if spec is None and (agent.tools_within or agent.config.client_tools or self.marks):
            return False
        return is_own or agent.may_call(name, spec.kind if spec else "unknown")

    def _not_its_tool(self, name: str) -> str:
        """A model may ask for a tool that it was not given; it hears of no others than its own."""
        log.warning("a model has asked for a tool that its agent does not have", task=self.task.id, tool=name[:100])
        names = [spec.name for spec in self.specs()]
        given = ", ".join([*names, *(tool.name for tool in self.agent.config.client_tools)])
        return f'tool "{name}" is not available to this agent; available: {given or "none"}'

    async def _refused(self, call: ToolCall, book: ToolBook, tools: ToolCatalogue) -> ToolOutcome | None:
        """Whether a person has to approve the call, and has not. Raises `Parked` while nobody has decided."""
        approvals, agent = self.around.approvals, self.agent
        if approvals is None or not needs_approval(agent.config, agent.role, call.name):
            return None
        if (problem := tools.problem(call)) is not None:  # nobody is asked about what cannot be called
            return problem
        await book.waits(call, waits_for(call.name))
        return await approvals.refused(call, book.identity(call), self.task, agent.role, self.marks)

    def _context(self, kind: str) -> ToolContext:
        around, task = self.around, self.task
        return ToolContext(
            task_id=task.id,
            agent=task.agent,
            tenant=task.tenant,
            session_id=task.session_id,
            submit=around.backend.queue.submit,
            datasources=self.agent.datasources,
            marks=self.marks,
            state=around.backend.state,
            children=self._children() if kind == "builtin" else None,
            outputs=around.outputs.of(task.id, self.note_kept) if around.outputs else None,
            policy=self.policy,
            artifacts=self.artifacts,
        )

    def _children(self) -> Children | None:
        teams = self.around.teams
        return None if teams is None else Children(self.task, self.marks, self.agent, teams)
