"""The conversations that runs take part in, as the workers keep them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from queue_backends import LogRecord, QueueError, StateStore, Task, TaskQueue
from worker.agents.model import Memory
from worker.persistence import persistently
from worker.sessions.conversation_log import (
    Exchange,
    Kept,
    Summary,
    SummaryAsked,
    log_name,
    log_record,
    read_newest,
)
from worker.sessions.conversation_memory import (
    SUMMARY_SYSTEM_PROMPT,
    Recollection,
    is_enough,
    recollect,
    summary_prompt,
)
from worker.sessions.waiting import LOOK_S

DAY_S = 86_400.0
SUMMARY_OF = "summary_of"
SUMMARY_UP_TO = "summary_up_to"
"""Meta fields of a summarising task: its conversation, and the task of the last exchange that it covers."""
_KEY = "summary/"
_LAST_WORDS_S = 5.0
_MOST_AT_ONCE = 32

log = structlog.get_logger(__name__)

Ended = Callable[[Task], Awaitable[None]]
"""Is told, after its commit, that a run of a conversation has ended."""


class Conversations:
    """Loads, keeps and sums up conversations. One per worker."""

    def __init__(
        self,
        state: StateStore,
        queue: TaskQueue,
        *,
        keep_s: float,
        on_ended: Ended | None = None,
        look: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`keep_s`: how long messages are kept at least. `look` finds what waits though it need not; it is done now and
        then."""
        self.state = state
        self.keep_s = keep_s
        self._queue = queue
        self._on_ended = on_ended
        self._look = look
        self._ended: asyncio.Queue[Task] = asyncio.Queue()

    async def load(self, task: Task, memory: Memory, *, agent: str) -> Recollection:
        """What a run of the task begins with. Asks for a summary, if one is due.

        Waits while the store is away; raises other `QueueError`s.
        """

        async def read() -> Kept:
            return await read_newest(
                self.state,
                task.tenant,
                task.conversation_id,
                is_enough=lambda kept: is_enough(kept, memory),
                without=task.id,
            )

        kept = await persistently(read, "read a conversation")
        recollection = recollect(kept, memory, now=time.time())
        if kept.asked is not None and kept.asked.task_id == task.id:
            await self._ask(task, kept, kept.asked, memory, agent)  # it may have died before it was submitted
        elif recollection.to_sum_up:
            asked = SummaryAsked(
                task_id=task.id,
                key=secrets.token_hex(12),
                up_to=recollection.to_sum_up[-1].task_id,
                at=time.time(),
            )
            await self._note(task, asked)
            await self._ask(task, kept, asked, memory, agent)
        return recollection

    async def _note(self, task: Task, asked: SummaryAsked) -> None:
        record = log_record(log_name(task.tenant, task.conversation_id), asked, keep_s=self.keep_s)
        await persistently(lambda: self.state.append_once([record]), "note that a summary is asked for")

    async def _ask(self, task: Task, kept: Kept, asked: SummaryAsked, memory: Memory, agent: str) -> None:
        """Submit the summarising task. That it is refused does not concern the run, which goes on without."""
        covered = [number for number, each in enumerate(kept.exchanges) if each.task_id == asked.up_to]
        if not covered:
            return
        before = kept.summary.text if kept.summary is not None else ""
        summarising = Task(
            prompt=summary_prompt(before, kept.exchanges[: covered[0] + 1], 2 * memory.max_tokens),
            agent=agent,
            tenant=task.tenant,
            session_id=task.session_id,
            priority=task.priority,
            idempotency_key=f"{_KEY}{asked.key}",
            meta={SUMMARY_OF: task.conversation_id, SUMMARY_UP_TO: asked.up_to},
            overrides={
                "system_prompt": SUMMARY_SYSTEM_PROMPT,
                "tools": [],
                "client_tools": [],
                "tool_choice": "auto",
                "output_schema": None,
                "thinking": None,
            },
        )
        try:
            submitted = await persistently(lambda: self._queue.submit(summarising), "ask for a summary")
        except QueueError as error:
            log.warning("a conversation cannot be summed up now", task=task.id, error=str(error))
            return
        log.info("a conversation is being summed up", conversation=task.conversation_id, task=submitted)

    def exchange_record(self, task: Task, exchange: Exchange, *, again: int) -> LogRecord:
        """What to store of a run that has ended."""
        name = log_name(task.tenant, task.conversation_id)
        return log_record(name, exchange, keep_s=self.keep_s, again=again)

    def summary_records(self, task: Task, text: str) -> tuple[LogRecord, ...]:
        """What to store of a summarising task's answer; nothing for any other task."""
        conversation = task.meta.get(SUMMARY_OF)
        if conversation is None or not task.idempotency_key.startswith(_KEY):
            return ()
        summary = Summary(
            task_id=task.id,
            key=task.idempotency_key.removeprefix(_KEY),
            up_to=task.meta.get(SUMMARY_UP_TO, ""),
            text=text,
        )
        return (log_record(log_name(task.tenant, conversation), summary, keep_s=self.keep_s),)

    # What follows a run

    def ended(self, task: Task) -> None:
        """A run of a conversation has ended, and that is written."""
        if self._on_ended is not None and task.session_id:
            self._ended.put_nowait(task)

    async def run(self) -> None:
        """Tell `on_ended` of each ended run until cancelled, and then of those that have ended by then."""
        try:
            while True:
                await self._tell([await self._ended.get(), *self._others()])
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._tell(self._others())
            raise

    async def look_after(self) -> None:
        """Now and then look for messages that nobody has started, until cancelled."""
        while (look := self._look) is not None:
            await asyncio.sleep(random.uniform(LOOK_S / 2, LOOK_S))  # noqa: S311 - so that workers do not all come at once
            try:
                await persistently(look, "look for messages that wait")
            except Exception:
                log.exception("messages that wait are not looked for")

    def _others(self) -> list[Task]:
        return [self._ended.get_nowait() for _ in range(min(self._ended.qsize(), _MOST_AT_ONCE))]

    async def _tell(self, tasks: Sequence[Task]) -> None:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(self._tell_of(task), name=f"what follows {task.id}")

    async def _tell_of(self, task: Task) -> None:
        on_ended = self._on_ended
        if on_ended is None:
            return
        try:
            await persistently(lambda: on_ended(task), "start a conversation's next message")
        except Exception:  # whoever looks at the conversation next does it
            log.exception("a conversation's next message is not started yet", task=task.id)
