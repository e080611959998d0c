"""One task, from delivery to outcome: the story of the product. Read it top to bottom."""

from __future__ import annotations

import asyncio
import enum
import functools
import time
from collections.abc import Coroutine
from datetime import datetime
from typing import Any

import structlog
from msgspec.structs import replace

from providers import (
    ChatProvider,
    ChunkFn,
    LLMProvider,
    ProviderError,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    structured,
    tool_loop,
)
from queue_backends import (
    Ack,
    Delivery,
    InvalidTask,
    LeaseLost,
    Outcome,
    QueueError,
    Retry,
    Task,
)
from worker.agents import Memory, ResolvedAgent
from worker.approvals.tool_approvals import needs_approval, waits_for
from worker.ending import Ending
from worker.errors import DeadlineExceeded, WorkerError
from worker.journal import Recalled, entries_of, read_journal
from worker.metrics import AgentMetrics
from worker.parking import Parked, Parking
from worker.persistence import persistently
from worker.recall import NO_PAST, Past, recall
from worker.routing.run_providers import RunProviders
from worker.routing.run_router import RunRouter
from worker.sessions.conversation_run import ConversationRun
from worker.sessions.conversations import SUMMARY_OF
from worker.streaming import ChunkWriter
from worker.surroundings import Surroundings
from worker.teams.child_tasks import begin_child
from worker.teams.delegation import Children
from worker.teams.marks import Marks, marks_of
from worker.teams.memory.memories import Memories
from worker.teams.memory.recollection import NOTHING, Recollection
from worker.teams.plan import Role
from worker.teams.role_tools import OwnTools
from worker.teams.roles import PLAIN_PURPOSES
from worker.teams.team_budgets import team_budgets
from worker.time_limits import TimeLimits
from worker.tool_book import ToolBook
from worker.tools.catalogue import ToolCatalogue
from worker.tools.client_tools import with_client_tools
from worker.tools.interfaces import ToolContext
from worker.tools.outcome import failed
from worker.turn_book import ROUTE, TurnBook

log = structlog.get_logger(__name__)

STALE = "stale task: age exceeds timeout"
PLUGIN = "(plugin)"
"""Stands for the provider of a run whose agent is a plugin: each of its model calls may go to another."""


class Stop(enum.StrEnum):
    """Why a run is ended from outside."""

    CANCELLED = "cancelled"
    """Somebody asked for it: it ends with the error `run cancelled`."""
    RELEASED = "released"
    """The worker is leaving: somebody else shall run it."""
    LEASE_LOST = "lease lost"
    """Somebody else runs it already: write nothing."""
    PARKED = "parked"
    """Its tool calls wait for something that may take long: it goes on when that is there."""
    TIMED_OUT = "timed out"
    """It has taken too long: a failed attempt, or the end if its deadline has passed."""


class TaskRun:
    """One delivery of a task, being worked on."""

    __slots__ = (
        "_agent",
        "_job",
        "_own_tools",
        "_parking",
        "_provider",
        "_routed",
        "_time_limits",
        "around",
        "chunks",
        "delivery",
        "ending",
        "marks",
        "started_at",
        "stop_reason",
        "task",
    )

    def __init__(self, delivery: Delivery, around: Surroundings, time_limits: TimeLimits) -> None:
        self.delivery = delivery
        self.task: Task = delivery.task
        self.around = around
        self._time_limits = time_limits
        self.chunks = ChunkWriter(around.publisher, delivery, self._lease_lost)
        self.ending = Ending(delivery, self.chunks, around.retries)
        self.marks: Marks | None = marks_of(self.task.meta)
        """Whose work it is; None outside teams."""
        if self.task.conversation_id and around.conversations is not None:
            self.ending.conversation = ConversationRun(around.conversations, self.task, again=delivery.next_attempt)
        self.stop_reason: Stop | None = None
        self.started_at = time.time()
        self._job: asyncio.Task[Any] | None = None
        self._agent: ResolvedAgent | None = None
        """As it was when the run began."""
        self._own_tools: OwnTools | None = None
        """Of its role, and to be given back."""
        self._parking: Parking | None = None
        """Which of its calls wait; None as long as it has made none."""
        self._provider: LLMProvider | None = None
        """Taken from those in use, and to be given back."""
        self._routed: tuple[RunRouter, RunProviders] | None = None
        """Instead of it, where the calls have a choice; the second is to be given back."""

    def stop(self, reason: Stop) -> None:
        """End the run; the first reason counts. Its outcome says so, unless it has ended by itself meanwhile."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if reason is Stop.LEASE_LOST:
                self.chunks.lost = True
            if self._job is not None:
                self._job.cancel()

    @property
    def parking(self) -> Parking:
        """What of it is under way, and what waits."""
        if self._parking is None:
            self._parking = Parking(functools.partial(self.stop, Stop.PARKED), self.around.backend)
        return self._parking

    def time_is_up(self) -> None:
        """The run has taken as long as any may, or its deadline has come."""
        self.stop(Stop.TIMED_OUT)

    def _lease_lost(self) -> None:
        """A write of the run was refused."""
        if not self.was_stopped():
            log.warning("lease lost, the run is stopped", task=self.task.id)
            self.around.metrics.worker.lease_lost += 1
        self.stop(Stop.LEASE_LOST)

    def crashed(self, error: Exception) -> Outcome:
        """How a run ends whose `outcome` has failed."""
        return self.ending.crashed(error)

    def was_stopped(self) -> bool:
        """Whether somebody has told the run to end."""
        return self.stop_reason is not None

    @property
    def is_working(self) -> bool:
        """Whether it is still about its work, not yet about its last words."""
        return self._job is not None

    async def abandoned(self) -> Outcome | None:
        """How a run ends that was stopped and goes on all the same. What it does from now on is heard by nobody."""
        outcome = await self._stopped()
        self.chunks.lost = True
        return outcome

    async def outcome(self) -> Outcome | None:
        """Run the task; returns what shall be committed, or None if it is no longer ours."""
        around, task = self.around, self.task
        self._job = asyncio.current_task()
        waited_s = queue_wait_s(task)
        self._metrics.task_started(waited_s)
        team, role = self._team_and_role
        with around.telemetry.task(task, role=role, team=team, queue_wait_s=waited_s) as span:
            if self.was_stopped():  # before it had begun
                return await self._stopped()
            limits = self._begin_limits()
            try:
                try:
                    past = NO_PAST if self.delivery.first else await self._recall()
                    if not around.agents.knows(task):
                        await around.agents.make_sure(task)
                    if self.marks is not None:
                        limits = self._own_limit(limits)
                        await self._begin_team_work(self.marks, past)
                    if around.providers.unsettled:  # a provider's live settings have changed
                        await self._settle_provider()
                    if self.ending.conversation is not None:
                        await self._load_conversation(self.ending.conversation)
                    run = await self._work(past)
                finally:
                    self._end_limits(limits)
                if self.marks is not None:
                    await self._keep_in_memory(self.marks, run.output)
            except asyncio.CancelledError:
                if not self.was_stopped():
                    raise
                if self.stop_reason is not Stop.PARKED:
                    span.fail(str(self.stop_reason), kind="stopped")
                return await self._stopped()
            except LeaseLost:
                self.chunks.lost = True
                return None
            except (ProviderError, WorkerError, QueueError) as error:
                span.fail(error)
                return await self._failed(error)
            except Exception as error:  # a provider is anybody's code: whatever it raises is a failed attempt
                log.exception("provider crashed", task=task.id)
                span.fail(error)
                return await self._failed(error)
            span.usage(self.ending.spent.usage)
            self._book.answered(run)
            if SUMMARY_OF in task.meta and around.conversations is not None:
                self.chunks.note(*around.conversations.summary_records(task, run.output))
            return await self.ending.succeeded(run.output)

    def close(self, outcome: Outcome | None, took_s: float) -> None:
        """The run is over, and this came of it: give back what it held."""
        around = self.around
        if self.ending.book is not None:
            self.ending.book.close()
        if self._provider is not None:
            around.providers.give_back(self._provider)
        elif self._routed is not None:
            self._routed[1].give_back()
        if self._own_tools is not None and around.teams is not None:
            around.teams.tools.give_back(self._own_tools)
        if outcome is None:
            return
        self.chunks.on_lost = None  # nothing of the run is on its way any more
        if not (isinstance(outcome, Retry) and not outcome.counts):  # a run that was postponed has not failed
            ok = isinstance(outcome, Ack) and outcome.result.ok
            self._metrics.task_ended(took_s, ok=ok)

    def _begin_limits(self) -> asyncio.TimerHandle | None:
        """The timer of the task's own deadline, if it has one."""
        self._time_limits.begin(self)
        if self.task.deadline is None:
            return None
        seconds_left = min(max(0.0, self.task.deadline - time.time()), self._time_limits.limit_s)
        return asyncio.get_running_loop().call_later(seconds_left, self.time_is_up)

    def _end_limits(self, deadline: asyncio.TimerHandle | None) -> None:
        """The work has ended or was stopped; from now on nothing may cut its last words short."""
        self._time_limits.end(self)
        if deadline is not None:
            deadline.cancel()
        self._job = None

    # Each coroutine that waits for another one weighs 300 bytes per task and costs 0.3 µs: hence few, and longer ones.

    def _work(self, past: Past) -> Coroutine[Any, Any, tool_loop.Run]:
        """The run itself: refuse what cannot run, then let the provider work, or the agent's plugin."""
        if self._has_plugin:
            return self._answer_of_plugin(past)
        provider, book = self._open_book(past)
        self._refuse_hopeless()
        config, tools = book.config, self._tool_specs()
        if config.client_tools:
            tools = with_client_tools(config, tools, provider)
        task, chunk_fn, observer = self._heard(book, past)
        if not (provider is None or isinstance(provider, ChatProvider)):
            task = structured.asked(provider, config, task)
            return book.whole_run(provider.run_task(config, task, tools, self._call_tool_and_note, chunk_fn))
        return tool_loop.run(
            provider,
            config,
            task,
            tools,
            self._call_tool,
            chunk_fn,
            observer,
            attempt=self.delivery.next_attempt,
            resumption=past.resumption,
            router=self._routed[0] if self._routed is not None else None,
        )

    @property
    def _has_plugin(self) -> bool:
        """Whether a plugin's code answers. Conversations are summed up by the agent's model."""
        agent = self.agent.agent
        return agent is not None and bool(agent.plugin) and SUMMARY_OF not in self.task.meta

    def _answer_of_plugin(self, past: Past) -> Coroutine[Any, Any, tool_loop.Run]:
        from worker.agent_plugins.message_run import MessageGiven, answer_message  # most workers have no plugin
        from worker.agent_plugins.recording import Recording

        recording = Recording(past.plugin_entries, self.delivery)
        past = replace(past, lost_calls=recording.lost_calls())
        _, book = self._open_book(past)
        self._refuse_hopeless()
        task, chunk_fn, _ = self._heard(book, past)
        return answer_message(
            MessageGiven(
                around=self.around,
                delivery=self.delivery,
                task=task,
                agent=self.agent,
                chunks=self.chunks,
                chunk_fn=chunk_fn,
                book=book,
                recording=recording,
                parking=self.parking,
                tool_specs=self._tool_specs,
                call_tool=self._call_tool,
            )
        )

    @property
    def agent(self) -> ResolvedAgent:
        """What the run goes by; it keeps what it began with. Raises what `AgentDirectory.resolve` does."""
        if self._agent is None:
            self._agent = self.around.agents.resolve(self.task)
        return self._agent

    async def _load_conversation(self, conversation: ConversationRun) -> None:
        agent = self.agent.agent
        await conversation.load(Memory() if agent is None else agent.memory, agent=self.task.agent)

    def _heard(self, book: TurnBook, past: Past) -> tuple[Task, ChunkFn, tool_loop.LoopObserver]:
        """The task as it is run, where its chunks go, and who is told of its turns: its conversation too, if any."""
        conversation = self.ending.conversation
        if conversation is None:
            return self.task, self.chunks, book
        return conversation.task, *conversation.begin(past, self.chunks, book, is_plugin=self._has_plugin)

    async def _settle_provider(self) -> None:
        config = self.agent.config
        if self._has_plugin:  # each of its calls takes a provider of its own
            return
        if not self.around.providers.routed(config):  # a route's targets are settled when they are taken
            await self.around.providers.settle(config)

    def _open_book(self, past: Past) -> tuple[LLMProvider | None, TurnBook]:
        """Who runs the task, None if that is decided for each call; and the account of what it has spent, which begins
        with what earlier deliveries did."""
        around, delivery = self.around, self.delivery
        self.ending.past = past
        config = self.agent.config
        if self._has_plugin:
            provider, name = None, PLUGIN
        elif around.providers.routed(config):
            self._routed = around.routing.begin(config, self.task, answered_before=past.answered_by)
            provider, name = None, ROUTE
        else:
            provider = self._provider = self._provider or around.providers.take(config)
            name = provider.name
        book = self.ending.book = TurnBook(around, delivery, config, name, self.chunks, self._metrics, past)
        if self.marks is not None:
            book.budgets = team_budgets(self.agent.team, self.agent.role, self.task.tenant)
        book.take_over()
        return provider, book

    def _own_limit(self, deadline: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
        """The timer of a role's own time limit, which counts instead of the worker's, or else the one given."""
        role = self.agent.role
        if role is None or not role.timeout_s:
            return deadline
        self._time_limits.end(self)
        if deadline is not None:
            deadline.cancel()
        seconds = role.timeout_s
        if self.task.deadline is not None:
            seconds = min(seconds, max(0.0, self.task.deadline - time.time()))
        return asyncio.get_running_loop().call_later(seconds, self.time_is_up)

    async def _begin_team_work(self, marks: Marks, past: Past) -> None:
        """Have ready what a team's task needs."""
        teams, agent = self.around.teams, self.agent
        if teams is None or agent.role is None or agent.team is None:
            return
        if marks.depth:
            self.ending.child = await begin_child(teams.runs, self.task, marks)
        if marks.purpose not in PLAIN_PURPOSES:
            self._own_tools = await teams.tools.take(agent.team, agent.role)
        if agent.role.memory is not None and not self.task.conversation_id:  # a conversation is a memory of its own
            await self._remember(teams.memories, marks, agent.role, past)

    async def _remember(self, memories: Memories, marks: Marks, role: Role, past: Past) -> None:
        """Put before the task what its role remembers. A run that was begun goes on from turns that followed from what
        was remembered then, whatever has come to it since."""
        found = NOTHING
        if past.recalled is not None:
            found = Recollection(history=past.recalled.history, preface=past.recalled.preface)
        elif not past.has_begun:
            found = await memories.recall(self.task, marks, role)
            if found:
                entry = Recalled(worker=self.delivery.worker, history=found.history, preface=found.preface)
                self.chunks.note(*self.around.journal.records(self.task.id, entry))
        self.task = found.before(self.task)

    async def _keep_in_memory(self, marks: Marks, output: str) -> None:
        """The answer is there already: that its role shall remember it does not cost it any more."""
        teams, agent = self.around.teams, self.agent
        if teams is not None and agent.role is not None:
            await teams.memories.keep(self.delivery.task, marks, agent.role, output)

    def _tool_specs(self) -> tuple[ToolSpec, ...]:
        """What its model is told of."""
        shared = self.agent.tool_specs(self.around.tools)
        return shared if self._own_tools is None else self._own_tools.beside(shared, self.around.tools)

    def _children(self) -> Children | None:
        teams = self.around.teams
        return None if teams is None else Children(self.task, self.marks, self.agent, teams)

    @property
    def _team_and_role(self) -> tuple[str, str]:
        """As spans name them."""
        marks = self.marks
        return (self.around.team, self.around.role) if marks is None else (marks.team, marks.role)

    @property
    def _metrics(self) -> AgentMetrics:
        """Of its agent. A role of a team is counted as the agent that stands in for it, and by its name."""
        around, marks = self.around, self.marks
        if marks is None:
            return around.metrics.agent(self.task.agent, around.role)
        return around.metrics.agent(self.task.agent or f"{marks.team}.{marks.role}", marks.role)

    @property
    def _book(self) -> TurnBook:
        assert self.ending.book is not None  # noqa: S101 - it is opened before the provider begins
        return self.ending.book

    async def _recall(self) -> Past:
        state, task_id = self.around.backend.state, self.task.id
        moments = await persistently(lambda: read_journal(state, task_id), "read the journal")
        return recall(entries_of(moments), self.delivery)

    def _refuse_hopeless(self) -> None:
        task, limits = self.task, self.around.limits
        if self.delivery.redeliveries >= limits.max_deliveries:
            raise Poisonous(f"worker lost: {self.delivery.redeliveries} workers died while they ran this task")
        if task.deadline is not None and time.time() >= task.deadline:
            raise DeadlineExceeded("the task's deadline had passed before it was started")
        if limits.drop_stale and not self.ending.past.was_parked and is_stale(task, limits.timeout_s):
            raise Poisonous(STALE)

    async def _call_tool_and_note(self, call: ToolCall) -> ToolOutcome:
        outcome = await self._call_tool(call)
        await self._book.after_tool(call, outcome)
        if self.ending.conversation is not None:
            self.ending.conversation.tool_ended(call, outcome)
        return outcome

    async def _call_tool(self, call: ToolCall, book: ToolBook | None = None) -> ToolOutcome:
        """Carry a tool call out; if it has to wait for long, the run is put down. Steps of a plugin have books of their
        own."""
        parking, book = self.parking, book or self._book.tools
        parking.begun()
        book.on_ended = parking.ended
        try:
            return await self._carry_out(call, book)
        except Parked as parked:
            await book.waits(call, parked.reason)
            await parking.park(parked)
        except BaseException:
            parking.ended()
            raise

    async def _carry_out(self, call: ToolCall, book: ToolBook) -> ToolOutcome:
        around, task = self.around, self.task
        tools = around.tools
        if self._own_tools is not None and self._own_tools.catalogue.spec(call.name) is not None:
            tools = self._own_tools.catalogue
        spec = tools.spec(call.name)
        if known := book.known(call, spec):
            return known
        kind = spec.kind if spec else "unknown"
        is_own = tools is not around.tools
        if not (is_own or self.agent.may_call(call.name, kind)) or (spec is None and self._is_given_others):
            return failed(call, self._not_its_tool(call.name))
        if spec is not None and (refused := await self._refused(call, book, tools)):
            return refused
        await book.before_tool(call)
        context = ToolContext(
            task_id=task.id,
            agent=task.agent,
            tenant=task.tenant,
            session_id=task.session_id,
            submit=around.backend.queue.submit,
            datasources=self.agent.datasources,
            marks=self.marks,
            state=around.backend.state,
            children=self._children() if kind == "builtin" else None,
            outputs=around.outputs.of(task.id, self.chunks.note_kept) if around.outputs else None,
        )
        started = time.monotonic()
        with around.telemetry.tool_call(name=call.name, kind=kind, call_id=call.id) as span:
            outcome = await tools.call(call, context)
            if outcome.is_error:
                span.fail(outcome.content[:500], kind="tool_error")
        self._metrics.tool(call.name if spec else "(unknown)", kind).called(
            time.monotonic() - started, is_error=outcome.is_error
        )
        return outcome

    async def _refused(self, call: ToolCall, book: ToolBook, tools: ToolCatalogue) -> ToolOutcome | None:
        """Whether a person has to approve the call, and has not. Raises `Parked` while nobody has decided."""
        approvals, agent = self.around.approvals, self.agent
        if approvals is None or not needs_approval(agent.config, agent.role, call.name):
            return None
        if (problem := tools.problem(call)) is not None:  # nobody is asked about what cannot be called
            return problem
        await book.waits(call, waits_for(call.name))
        return await approvals.refused(call, book.identity(call), self.task, agent.role, self.marks)

    @property
    def _is_given_others(self) -> bool:
        """Whether its model was given other tools than those that the workers have."""
        return bool(self.agent.tools_within or self.agent.config.client_tools or self.marks)

    def _not_its_tool(self, name: str) -> str:
        """A model may ask for a tool that it was not given; it hears of no others than its own."""
        log.warning("a model has asked for a tool that its agent does not have", task=self.task.id, tool=name[:100])
        names = [spec.name for spec in self._tool_specs()]
        given = ", ".join([*names, *(tool.name for tool in self.agent.config.client_tools)])
        return f'tool "{name}" is not available to this agent; available: {given or "none"}'

    # How it ended

    async def _failed(self, error: Exception) -> Outcome:
        await self._settle_past()
        return await self.ending.failed(error)

    async def _stopped(self) -> Outcome | None:
        if self.stop_reason is Stop.LEASE_LOST:
            await self.chunks.finish()
            return None
        if self.stop_reason is Stop.TIMED_OUT:
            return await self._failed(self._overtime())
        if self.stop_reason is Stop.PARKED:
            return await self.ending.parked(self.parking, self.around.backend)
        await self._settle_past()
        if self.stop_reason is Stop.CANCELLED:
            log.info("run cancelled", task=self.task.id)
            return await self.ending.cancelled()
        return await self.ending.released()

    async def _settle_past(self) -> None:
        """A run that ended before it had begun still has to account for what earlier deliveries spent."""
        if self.ending.book is None and not self.delivery.first:
            try:
                if self.marks is not None:
                    await self.around.agents.make_sure(self.task)
                self._open_book(await self._recall())
            except (ProviderError, WorkerError, QueueError) as error:
                log.warning("earlier deliveries of a task are not all accounted", task=self.task.id, error=str(error))

    def _overtime(self) -> WorkerError:
        deadline = self.task.deadline
        if deadline is not None and time.time() >= deadline:
            when = "had passed before it was started" if deadline <= self.started_at else "has passed"
            return DeadlineExceeded(f"the task's deadline {when}")
        limit_s = self.around.limits.timeout_s
        role = self._agent.role if self._agent is not None else None
        if role is not None and role.timeout_s:
            return RunTimeout(
                f"the run took longer than {role.timeout_s:g} s: raise the time limit of role {role.name!r}"
            )
        return RunTimeout(f"the run took longer than {limit_s:g} s: raise AGENT_TIMEOUT_SECONDS")


def is_stale(task: Task, limit_s: float) -> bool:
    """Whether a task has waited for longer than its run may take."""
    age_s = task_age_s(task)
    return age_s is not None and age_s > limit_s


class Poisonous(InvalidTask):
    """A task that is given up without being run."""


class RunTimeout(WorkerError):
    """One attempt took too long; the next one may not."""


def queue_wait_s(task: Task) -> float | None:
    """How long the task was on its way, by the clocks of both sides; None if nobody noted when it began."""
    if not task.enqueued_at:
        return None
    enqueued_at = _unix_seconds(task.enqueued_at)
    return None if enqueued_at is None else time.time() - enqueued_at


@functools.lru_cache(maxsize=64)
def _unix_seconds(moment: str) -> float | None:
    """An RFC 3339 moment, if it is one. Tasks that come together mostly name the same: it is in whole seconds."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def task_age_s(task: Task) -> float | None:
    """The age that a task's id tells, as on ark's wire: it begins with the Unix milliseconds of its birth."""
    milliseconds = task.id.partition("-")[0]
    return time.time() - int(milliseconds) / 1000 if milliseconds.isdigit() else None
