"""Messages of a conversation, one after the other: what is being answered, what waits, and who starts the next.

A message that is at its turn stands in the conversation's record before its task is submitted, and the task has the
message as its idempotency key: so whoever finds it there without a task submits it again, and there is still one. The
worker that ended a task starts the next message; gateways that watch do it too, and so does every request, and a worker
that now and then goes through all conversations in which something waits. Whichever comes first does it, once.
"""

from __future__ import annotations

import contextlib
import time

from msgspec.structs import replace

from providers import Message, Role, TextPart
from providers import conversation as messages_of
from queue_backends import (
    BackendUnavailable,
    InvalidTask,
    LogRecord,
    QueueError,
    QueueFull,
    StateStore,
    Task,
    TaskQueue,
    TaskResult,
    TaskState,
    WaitTimeout,
)
from queue_backends.messages import encode_json
from worker.gateway.ownership import TaskRecord, note_task
from worker.sessions.conversation_log import Dropped, Exchange, exchanges_of, log_name, log_record, read_records
from worker.sessions.errors import ConversationBusy, ConversationNotFound, NothingToRetry, TooMuch
from worker.sessions.model import (
    MOST_RECENT,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    Asked,
    Chat,
    Done,
    SessionRecord,
    chat_key,
)
from worker.sessions.waiting import Waiting
from worker.shared_record import SharedRecord

_NEWEST = 16
"""Among so many records of a conversation is that of the task that has just ended."""


class Chats:
    """What goes on in conversations. Every method may raise `BackendUnavailable`."""

    def __init__(
        self, state: StateStore, queue: TaskQueue, *, keep_s: float, tasks_keep_s: float, refuses_when_busy: bool
    ) -> None:
        self._tasks_keep_s = tasks_keep_s
        self._state = state
        self._queue = queue
        self._keep_s = keep_s
        self._refuses_when_busy = refuses_when_busy
        self.waiting = Waiting(state, self.advance, keep_s=keep_s)

    async def create(self, session: SessionRecord, conversation_id: str, *, title: str = "", ttl_s: float) -> Chat:
        """Begin a conversation."""
        now = time.time()
        chat = Chat(
            id=conversation_id,
            session_id=session.id,
            owner=session.owner,
            tenant=session.tenant,
            title=title,
            created_at=now,
            used_at=now,
        )
        await self._record(session.id, conversation_id, ttl_s).update(lambda _: (chat, None))
        return chat

    async def read(self, session_id: str, conversation_id: str) -> Chat:
        """A conversation; one without id if there is none."""
        return await self._record(session_id, conversation_id).read()

    async def get(self, session_id: str, conversation_id: str) -> Chat:
        """A conversation. Raises `ConversationNotFound`."""
        return _there(await self.read(session_id, conversation_id), conversation_id)

    async def rename(self, session_id: str, conversation_id: str, title: str) -> Chat:
        """Give it another title. Raises `ConversationNotFound`."""

        def renamed(chat: Chat) -> tuple[Chat, Chat]:
            after = replace(_there(chat, conversation_id), title=title)
            return after, after

        return await self._record(session_id, conversation_id).update(renamed)

    async def post(
        self, session_id: str, conversation_id: str, asked: Asked, *, title: str, is_retry: bool = False
    ) -> Asked | Done:
        """Take a message: it is started at once, or waits for its turn, which a retry does not.

        Raises `ConversationNotFound`, `ConversationBusy`, `TooMuch`, `NothingToRetry`, `InvalidTask`, `QueueFull`.
        """

        owner = ""

        def take(chat: Chat) -> tuple[Chat, tuple[Asked | Done, bool]]:
            nonlocal owner
            owner = chat.owner
            if (known := _there(chat, conversation_id).known(asked.id)) is not None:
                return chat, (known, False)
            chat = replace(chat, title=chat.title or title, used_at=asked.at)
            if chat.running is None:
                chat = _begun(chat, asked)
                assert chat.running is not None  # noqa: S101 - it was just begun
                return chat, (chat.running, True)
            if is_retry:  # somebody else was faster
                raise _busy_for_retry(conversation_id)
            if self._refuses_when_busy:
                raise ConversationBusy(
                    f"conversation {conversation_id} is being answered: wait for the end of the answer, or stop it"
                )
            _check_room(chat, asked)
            return replace(chat, waiting=(*chat.waiting, asked)), (asked, False)

        record = self._record(session_id, conversation_id)
        if self._refuses_when_busy:
            await self.advance(session_id, conversation_id)  # what has ended counts as ended
        taken, is_next = await record.update(take)
        if isinstance(taken, Done):
            return taken
        if not is_next:
            await self.waiting.note(session_id, conversation_id)
            chat = await self.advance(session_id, conversation_id)
            return chat.known(asked.id) or taken
        try:
            return await self._submitted(record, taken, owner)
        except QueueError as error:
            if not isinstance(error, BackendUnavailable):  # it is known that there is no task
                await record.update(lambda chat: (_withdrawn(chat, taken.id), None))
            raise

    async def retry(self, session_id: str, conversation_id: str, message_id: str, at: float) -> Asked | Done:
        """Ask the last message again; the answer that it had before no longer counts.

        Raises `ConversationNotFound`, `NothingToRetry`, and as `post`.
        """
        chat = await self.advance(session_id, conversation_id)
        if (known := _there(chat, conversation_id).known(message_id)) is not None:
            return known  # the same request again: what it has brought is not taken back
        if chat.running is not None or chat.waiting:
            raise _busy_for_retry(conversation_id)
        if chat.last is None or not chat.recent:
            raise NothingToRetry(f"conversation {conversation_id} has no message that could be asked again")
        dropped = Dropped(task_id=chat.recent[-1].task_id)
        await self._state.append_once([self._log_record(chat, dropped)])
        asked = Asked(id=message_id, task=chat.last, at=at)
        return await self.post(session_id, conversation_id, asked, title="", is_retry=True)

    async def stop(self, session_id: str, conversation_id: str, *, within_s: float = 0.0) -> list[str]:
        """End the answer that is being written, and forget what waits; returns ids of the messages concerned.

        Waits for up to `within_s` until the answer has ended.
        """

        def cleared(chat: Chat) -> tuple[Chat, tuple[Asked, ...]]:
            return (replace(chat, waiting=()) if chat.waiting else chat), chat.waiting

        record = self._record(session_id, conversation_id)
        waiting = await record.update(cleared)
        chat = await record.read()
        stopped = [each.id for each in waiting]
        if (running := chat.running) is not None:
            task_id = running.task_id or (await self._submitted(record, running, chat.owner)).task_id
            await self._queue.cancel([task_id])
            stopped.insert(0, running.id)
            if within_s:
                with contextlib.suppress(WaitTimeout):
                    await self._queue.wait(task_id, within_s)
            await self.advance(session_id, conversation_id)
        return stopped

    # Who is next

    async def advance(self, session_id: str, conversation_id: str) -> Chat:
        """Start the next message if the one before has ended; returns what goes on then. Harmless at any time."""
        record = self._record(session_id, conversation_id)
        chat = await record.read()
        while (running := chat.running) is not None:
            if not running.task_id:
                try:
                    await self._submitted(record, running, chat.owner)
                except InvalidTask as error:  # nobody will ever run it
                    await self._keep_unrun(chat, running, str(error))
                    chat = await self._settled(record, running)
                    continue
                except QueueFull:  # whoever comes next tries again
                    return chat
                chat = await record.read()
                continue  # it may have ended before its task was noted: who ended it could not go on then
            if not await self._has_ended(chat, running):
                return chat
            chat = await self._settled(record, running)
        return chat

    async def _settled(self, record: SharedRecord[Chat], done: Asked) -> Chat:
        def settled(chat: Chat) -> tuple[Chat, Chat]:
            after = _ended(chat, done)
            return after, after

        return await record.update(settled)

    async def ended(self, session_id: str, conversation_id: str, task_id: str, *, within_s: float) -> None:
        """As `advance`, once the task's result is there, which its last chunk may come a moment before."""
        await self._queue.wait(task_id, within_s)
        await self.advance(session_id, conversation_id)

    async def is_known(self, task_id: str) -> bool:
        """Whether the queue still knows of a task, ended or not."""
        result, is_unknown = await self._result(task_id)
        return result is not None or not is_unknown

    async def _result(self, task_id: str) -> tuple[TaskResult | None, bool]:
        """A task's result; and whether it has none because nobody knows of it any more."""
        [result] = await self._queue.results([task_id])
        if result is not None:
            return result, False
        [status] = await self._queue.status([task_id])
        return None, status.state is TaskState.UNKNOWN

    async def _has_ended(self, chat: Chat, running: Asked) -> bool:
        result, is_unknown = await self._result(running.task_id)
        if result is None and not is_unknown:
            return False
        await self._keep_unrun(chat, running, result.error if result is not None else "")
        return True

    async def _keep_unrun(self, chat: Chat, running: Asked, error: str) -> None:
        """What ended before any worker had it (cancelled while it waited, say) is kept by us."""
        if not error:
            return
        entries = await self._state.read_log(log_name(chat.tenant, chat.id), limit=_NEWEST, newest_first=True)
        task_id = running.task_id or f"message-{running.id}"
        if any(each.task_id == task_id for each in exchanges_of(read_records(entries))):
            return
        asked = messages_of((), running.task.prompt) or (Message(role=Role.USER, parts=(TextPart(text=""),)),)
        exchange = Exchange(task_id=task_id, asked=asked, error=error, agent=running.task.agent, began_at=running.at)
        await self._state.append_once([self._log_record(chat, exchange)])

    async def _submitted(self, record: SharedRecord[Chat], asked: Asked, owner: str) -> Asked:
        """Submit the task of a message that is at its turn, and note its id."""
        task = replace(asked.task, idempotency_key=f"message/{asked.task.conversation_id}/{asked.id}")
        task_id = await self._queue.submit(task)
        await self._note_owner(task_id, task, owner)

        def noted(chat: Chat) -> tuple[Chat, Asked]:
            if chat.running is None or chat.running.id != asked.id:
                return chat, replace(asked, task_id=task_id)
            running = replace(chat.running, task_id=task_id)
            return (chat if running == chat.running else replace(chat, running=running)), running

        return await record.update(noted)

    async def _note_owner(self, task_id: str, task: Task, owner: str) -> None:
        """Whose the task is, for the tasks API."""
        note = TaskRecord(
            id=task_id,
            tenant=task.tenant,
            caller=owner,
            agent=task.agent,
            session_id=task.session_id,
            conversation_id=task.conversation_id,
            submitted_at=time.time(),
        )
        await note_task(self._state, note, keep_s=self._tasks_keep_s)

    def _log_record(self, chat: Chat, record: Dropped | Exchange) -> LogRecord:
        return log_record(log_name(chat.tenant, chat.id), record, keep_s=self._keep_s)

    def _record(self, session_id: str, conversation_id: str, ttl_s: float | None = None) -> SharedRecord[Chat]:
        return SharedRecord(self._state, chat_key(session_id, conversation_id), Chat, ttl_s=ttl_s or self._keep_s)


def _there(chat: Chat, conversation_id: str) -> Chat:
    if not chat.id:
        raise ConversationNotFound(f"there is no conversation {conversation_id[:100]!r}")
    return chat


def _busy_for_retry(conversation_id: str) -> NothingToRetry:
    return NothingToRetry(f"conversation {conversation_id} is being answered: stop that first")


def _begun(chat: Chat, asked: Asked) -> Chat:
    """The conversation with a message at its turn."""
    number = chat.count + 1
    return replace(chat, running=replace(asked, number=number), count=number)


def _ended(chat: Chat, done: Asked) -> Chat:
    """The conversation after a message, with the next one at its turn."""
    if chat.running is None or chat.running.id != done.id:
        return chat
    entry = Done(id=done.id, number=chat.running.number, task_id=chat.running.task_id or done.task_id)
    chat = replace(chat, running=None, last=chat.running.task, recent=(*chat.recent, entry)[-MOST_RECENT:])
    if chat.waiting:
        chat = _begun(replace(chat, waiting=chat.waiting[1:]), chat.waiting[0])
    return chat


def _withdrawn(chat: Chat, message_id: str) -> Chat:
    """The conversation without a message that could not be submitted."""
    if chat.running is None or chat.running.id != message_id or chat.running.task_id:
        return chat
    chat = replace(chat, running=None, count=chat.count - 1)
    return _begun(replace(chat, waiting=chat.waiting[1:]), chat.waiting[0]) if chat.waiting else chat


def _check_room(chat: Chat, asked: Asked) -> None:
    if len(chat.waiting) >= MOST_WAITING:
        raise TooMuch(f"{MOST_WAITING} messages wait in conversation {chat.id} already: wait for the answers")
    size = sum(len(encode_json(each.task)) for each in (*chat.waiting, asked))
    if size > MOST_WAITING_BYTES:
        raise TooMuch(
            f"the messages that wait in conversation {chat.id} would have {size} bytes, at most {MOST_WAITING_BYTES} "
            "are allowed: wait for the answers"
        )
