"""Sessions: talks with an agent that belong to nobody's connection and to no gateway process.

Whoever has a session's id and is its owner goes on with it, from any device and through any gateway.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from queue_backends import LogRecord, StateStore, Task, TaskQueue
from queue_backends.messages import check_task, encode_json
from worker.agent_plugins.closed_sessions import announce_closed
from worker.sessions.chats import Chats
from worker.sessions.conversation_log import log_name
from worker.sessions.conversation_owner import disown, own
from worker.sessions.conversations import SUMMARY_OF
from worker.sessions.errors import ConversationNotFound, SessionClosed, SessionNotFound, TooLong, TooMuch
from worker.sessions.model import (
    MOST_CONVERSATIONS,
    MOST_TASK_BYTES,
    Asked,
    Chat,
    Done,
    SessionRecord,
    chat_key,
    deleted_key,
    owner_log,
    session_key,
)
from worker.shared_record import SharedRecord

UNUSED_S = 24 * 3600.0
"""A session in which nothing was said yet is kept so long."""
MOST_TITLE_CHARS = 200
MOST_LISTED = 1000
_AT_ONCE = 100
_DAY_S = 86_400.0
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AUTO_TITLE_CHARS = 60
_ENDED_WITHIN_S = 3.0
"""What is deleted waits so long for its last answer to end, so that it leaves nothing behind."""

Change = Callable[[SessionRecord], SessionRecord]


class Sessions:
    """All sessions of a backend. Every method may raise `BackendUnavailable`."""

    def __init__(
        self,
        state: StateStore,
        queue: TaskQueue,
        *,
        keep_s: float,
        tasks_keep_s: float,
        refuses_when_busy: bool = False,
    ) -> None:
        """What is said is kept for `keep_s` after its last use, and for `tasks_keep_s` whose each task is."""
        self.chats = Chats(state, queue, keep_s=keep_s, tasks_keep_s=tasks_keep_s, refuses_when_busy=refuses_when_busy)
        self.keep_s = keep_s
        self.state = state

    # Sessions

    async def create(
        self, *, agent: str, owner: str, tenant: str = "", title: str = "", with_conversation: bool = True
    ) -> SessionRecord:
        """A new session with an agent (a slug), with one conversation unless that is not wanted."""
        now = time.time()
        conversations = {str(uuid.uuid4()): 0} if with_conversation else {}
        session = SessionRecord(
            id=str(uuid.uuid4()),
            agent=agent,
            owner=owner,
            tenant=tenant,
            title=title[:MOST_TITLE_CHARS],
            created_at=now,
            used_at=now,
            conversations=conversations,
            next_number=len(conversations),
        )
        for conversation_id in conversations:
            await self._own(session, conversation_id)
            await self.chats.create(session, conversation_id, ttl_s=UNUSED_S)
        await self._record(session.id, UNUSED_S).update(lambda _: (session, None))
        await self._list(session, now)
        return session

    async def get(self, session_id: str, *, owner: str, tenant: str = "") -> SessionRecord:
        """A session of that owner. Raises `SessionNotFound`, for others' too."""
        if not _ID.fullmatch(session_id):
            raise _not_found(session_id)
        session = await self._record(session_id).read()
        if not session.id or session.owner != owner or (tenant and session.tenant != tenant):
            raise _not_found(session_id)
        return session

    async def again(self, session_id: str) -> SessionRecord:
        """A session as it is now; one without id if it is gone."""
        return await self._record(session_id).read()

    async def of_owner(
        self, owner: str, tenant: str | None = None, *, limit: int = 50, offset: int = 0
    ) -> list[SessionRecord]:
        """An owner's sessions, those used last first; with `tenant`, of that one alone."""
        entries = await self.state.read_log(owner_log(owner), limit=10 * MOST_LISTED, newest_first=True)
        day_of: dict[str, str] = {}  # of the last use
        for entry in entries:
            day_of.setdefault(entry.value.decode(), entry.id.rpartition("/")[2])
        days: dict[str, list[str]] = {}
        for session_id, day in islice(day_of.items(), MOST_LISTED):
            days.setdefault(day, []).append(session_id)
        sessions: list[SessionRecord] = []
        for day in sorted(days, key=int, reverse=True):
            if len(sessions) >= offset + limit:  # what was used on days before comes after all of these
                break
            sessions += [
                session
                for session in await self._read_all(days[day])
                if session.id and session.owner == owner and (tenant is None or session.tenant == tenant)
            ]
        sessions.sort(key=lambda session: session.used_at, reverse=True)
        return sessions[offset : offset + limit]

    async def _read_all(self, ids: Sequence[str]) -> list[SessionRecord]:
        found: list[SessionRecord] = []
        for start in range(0, len(ids), _AT_ONCE):
            found += await asyncio.gather(*(self._record(each).read() for each in ids[start : start + _AT_ONCE]))
        return found

    async def rename(self, session: SessionRecord, title: str) -> SessionRecord:
        """Give a session another title."""
        return await self._change(session, lambda now: replace(now, title=title[:MOST_TITLE_CHARS]))

    async def close(self, session: SessionRecord) -> SessionRecord:
        """Take no more messages; what was said can still be read."""
        closed = await self._change(session, lambda now: replace(now, closed_at=now.closed_at or time.time()))
        await announce_closed(self.state, session.id)
        return closed

    async def delete(self, session: SessionRecord) -> None:
        """Delete a session with all its conversations and messages; answers that are being written are stopped."""
        await self.close(session)
        session = await self._record(session.id).read()
        for conversation_id in session.conversations:
            await self._delete_conversation(session, conversation_id)
        await self.state.delete(session_key(session.id))

    # Conversations

    async def add_conversation(self, session: SessionRecord, *, title: str = "") -> Chat:
        """A further conversation in a session. Raises `SessionClosed`, `TooMuch`."""
        conversation_id = str(uuid.uuid4())

        def add(now: SessionRecord) -> SessionRecord:
            if now.closed_at is not None:
                raise SessionClosed(f"session {now.id} is closed: open another one")
            if len(now.conversations) >= MOST_CONVERSATIONS:
                raise TooMuch(f"session {now.id} has {MOST_CONVERSATIONS} conversations: delete some, or open another")
            return replace(
                now,
                conversations={**now.conversations, conversation_id: now.next_number},
                next_number=now.next_number + 1,
            )

        session = await self._change(session, add)
        await self._own(session, conversation_id)
        return await self.chats.create(session, conversation_id, title=title[:MOST_TITLE_CHARS], ttl_s=self.keep_s)

    async def conversation(self, session: SessionRecord, conversation_id: str) -> Chat:
        """What goes on in one conversation. Raises `ConversationNotFound`."""
        if conversation_id not in session.conversations:
            raise ConversationNotFound(f"session {session.id} has no conversation {conversation_id[:100]!r}")
        return await self.chats.get(session.id, conversation_id)

    async def conversations(self, session: SessionRecord) -> list[Chat]:
        """All conversations of a session, in the order in which they were opened."""
        numbered = sorted(session.conversations.items(), key=lambda item: item[1])
        chats = await asyncio.gather(*(self.chats.read(session.id, each) for each, _ in numbered))
        return [chat for chat in chats if chat.id]

    async def rename_conversation(self, session: SessionRecord, conversation_id: str, title: str) -> Chat:
        """Give a conversation another title."""
        return await self.chats.rename(session.id, conversation_id, title[:MOST_TITLE_CHARS])

    async def delete_conversation(self, session: SessionRecord, conversation_id: str) -> None:
        """Delete a conversation with its messages; an answer that is being written is stopped."""
        await self._delete_conversation(session, conversation_id)
        await self._change(session, lambda now: replace(now, conversations=_without(now, conversation_id)))

    async def _delete_conversation(self, session: SessionRecord, conversation_id: str) -> None:
        await self.state.set(deleted_key(session.tenant, conversation_id), b"1", ttl_s=self.keep_s)
        await self.chats.stop(session.id, conversation_id, within_s=_ENDED_WITHIN_S)
        await self.state.delete(chat_key(session.id, conversation_id))
        await self.state.delete_log(log_name(session.tenant, conversation_id))
        await disown(self.state, session.tenant, conversation_id)

    async def _own(self, session: SessionRecord, conversation_id: str) -> None:
        await own(self.state, session.tenant, conversation_id, session.owner, keep_s=self.keep_s)

    # Messages

    async def post(
        self, session: SessionRecord, conversation_id: str, task: Task, *, message_id: str = ""
    ) -> Asked | Done:
        """Ask something: at once, or after what is being answered. Sending the same `message_id` again asks nothing.

        `task` is ready to be submitted, but for what ties it to the conversation. Raises `SessionClosed`, `TooLong`,
        `ConversationNotFound`, `ConversationBusy`, `TooMuch`, `InvalidTask`, `QueueFull`.
        """
        if session.closed_at is not None:
            raise SessionClosed(f"session {session.id} is closed: open another one")
        _check_size(check_task(task))
        await self.conversation(session, conversation_id)
        await self._own(session, conversation_id)
        asked = Asked(
            id=message_id or str(uuid.uuid4()),
            task=replace(task, session_id=session.id, conversation_id=conversation_id, tenant=session.tenant),
            at=time.time(),
        )
        posted = await self.chats.post(session.id, conversation_id, asked, title=_auto_title(task.prompt))
        await self._used(session, _auto_title(task.prompt))
        return posted

    async def retry(self, session: SessionRecord, conversation_id: str, *, message_id: str) -> Asked | Done:
        """Ask the last message again. Raises `NothingToRetry`, and as `post`."""
        if session.closed_at is not None:
            raise SessionClosed(f"session {session.id} is closed: open another one")
        await self.conversation(session, conversation_id)
        posted = await self.chats.retry(session.id, conversation_id, message_id, time.time())
        await self._used(session, "")
        return posted

    async def task_ended(self, task: Task) -> None:
        """A task of a conversation, or one that sums it up, has ended, and its result is stored: start what waits
        behind it. What has ended after its conversation was deleted is deleted, too. Harmless for any task."""
        conversation_id = task.conversation_id or task.meta.get(SUMMARY_OF, "")
        if not (task.session_id and conversation_id):
            return
        chat = await self.chats.advance(task.session_id, conversation_id)
        if not chat.id and await self.state.get(deleted_key(task.tenant, conversation_id)) is not None:
            await self.state.delete_log(log_name(task.tenant, conversation_id))

    async def _used(self, session: SessionRecord, title: str) -> None:
        now = time.time()
        await self._change(session, lambda kept: replace(kept, used_at=now, title=kept.title or title))
        if int(now // _DAY_S) != int(session.used_at // _DAY_S) or session.used_at == session.created_at:
            await self._list(session, now)

    async def _list(self, session: SessionRecord, now: float) -> None:
        record = LogRecord(
            log=owner_log(session.owner),
            id=f"{session.id}/{now // _DAY_S:.0f}",
            value=session.id.encode(),
            keep_s=self.keep_s,
        )
        await self.state.append_once([record])

    async def _change(self, session: SessionRecord, change: Change) -> SessionRecord:
        def changed(now: SessionRecord) -> tuple[SessionRecord, SessionRecord]:
            if not now.id:
                raise _not_found(session.id)
            after = change(now)
            return after, after

        return await self._record(session.id).update(changed)

    def _record(self, session_id: str, ttl_s: float | None = None) -> SharedRecord[SessionRecord]:
        return SharedRecord(self.state, session_key(session_id), SessionRecord, ttl_s=ttl_s or self.keep_s)


def _without(session: SessionRecord, conversation_id: str) -> Mapping[str, int]:
    return {each: number for each, number in session.conversations.items() if each != conversation_id}


def _check_size(task: Task) -> None:
    size = len(encode_json(task))
    if size > MOST_TASK_BYTES:
        raise TooLong(
            f"the message, with all that is sent beside it, has {size} bytes, at most {MOST_TASK_BYTES} are allowed: "
            "shorten it, or pass a link"
        )


def _not_found(session_id: str) -> SessionNotFound:
    return SessionNotFound(f"there is no session {session_id[:100]!r}")


def _auto_title(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= _AUTO_TITLE_CHARS else f"{line[: _AUTO_TITLE_CHARS - 1].rstrip()}…"
