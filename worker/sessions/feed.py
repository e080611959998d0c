"""All that happens in a session, as one stream: messages, the chunks of their answers, and what waits.

It begins at a position and misses nothing from there on: of each conversation, messages come one after the other in
the order in which they were answered, whichever worker answers and through whichever gateway they came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Protocol

from msgspec import Struct

from queue_backends import Chunk, QueueError, ReplayTrimmed, TaskNotFound, WaitTimeout
from worker.sessions.chats import Chats
from worker.sessions.model import Chat, SessionRecord
from worker.sessions.positions import Position, written
from worker.sessions.store import Sessions
from worker.sessions.watch import ChatWatch

MOST_AHEAD = 64
"""Events that wait for a slow reader; then the tasks' streams wait, in the hub."""
SUBMIT_WITHIN_S = 2.0
"""So long somebody may take to submit the message that is at its turn; then we do it."""
LOOK_AGAIN_S = 60.0
"""Without any change, conversations are looked at so often all the same."""
_RESULT_WITHIN_S = 30.0


class Streams(Protocol):
    """Follows tasks."""

    def follow(self, task_id: str, *, after_seq: int = -1) -> AsyncGenerator[Chunk, None]:
        """As `ChunkStream.subscribe`; ends early when the process leaves."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether the process leaves."""
        ...


class ChatChanged(Struct, frozen=True):
    """What goes on in a conversation is now this; one without an id was deleted."""

    conversation_id: str
    chat: Chat


class MessageBegun(Struct, frozen=True):
    """A message is at its turn: its chunks follow."""

    conversation_id: str
    message_id: str
    number: int
    task_id: str
    content: str
    """What was asked, if it is still known here."""


class ChunkHeard(Struct, frozen=True):
    """A piece of an answer."""

    conversation_id: str
    message_id: str
    chunk: Chunk


class Missed(Struct, frozen=True):
    """Some chunks of a conversation are no longer kept: its messages have to be read anew."""

    conversation_id: str


Happening = ChatChanged | MessageBegun | ChunkHeard | Missed


class SessionEvent(Struct, frozen=True):
    """Something happened, and this is how far its hearer has come with it."""

    what: Happening
    position: str


class _LeavingError(Exception):
    """This process ends: others go on."""


class SessionFeed:
    """One hearer of one session."""

    def __init__(
        self,
        sessions: Sessions,
        watch: ChatWatch,
        streams: Streams,
        session: SessionRecord,
        positions: Mapping[int, Position],
    ) -> None:
        """`positions` by the conversations' numbers; of others, what is being answered now is heard from its
        beginning."""
        self._chats: Chats = sessions.chats
        self._sessions = sessions
        self._watch = watch
        self._streams = streams
        self._session = session
        self._positions = dict(positions)
        self._known: dict[str, Chat] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._queue: asyncio.Queue[SessionEvent | None] = asyncio.Queue(MOST_AHEAD)
        self._has_begun = False
        self._unsubmitted: set[str] = set()
        """Conversations whose message is at its turn and has no task yet."""
        self._error: QueueError | None = None

    @property
    def session(self) -> SessionRecord:
        """The session, as it was seen last."""
        return self._session

    @property
    def position(self) -> str:
        """How far it has come."""
        return written(self._positions)

    async def events(self) -> AsyncIterator[SessionEvent]:
        """What happens, until the session is deleted or this process leaves. Raises `BackendUnavailable`."""
        running = asyncio.create_task(self._run(), name=f"feed of session {self._session.id}")
        try:
            while (event := await self._queue.get()) is not None:
                yield event
            if self._error is not None:
                raise self._error
            running.result()
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def _run(self) -> None:
        try:
            with self._watch.of(self._session.id) as changes:
                async with asyncio.TaskGroup() as group:
                    changed: set[str] | None = None
                    while await self._look(group, changed):
                        self._has_begun = True
                        changed = await changes.next(SUBMIT_WITHIN_S if self._unsubmitted else LOOK_AGAIN_S)
                    for follower in self._followers.values():
                        follower.cancel()
        except* _LeavingError:
            self._error = None
        except* QueueError as errors:
            self._error = _first(errors)
        finally:
            if (current := asyncio.current_task()) is not None and not current.cancelling():
                await self._queue.put(None)

    async def _look(self, group: asyncio.TaskGroup, changed: set[str] | None) -> bool:
        """Look at the conversations that have changed; says whether the session is still there."""
        if not changed or not changed <= set(self._session.conversations):
            session = await self._sessions.again(self._session.id)
            if not session.id:
                return False
            self._session = session
        for conversation_id, number in self._session.conversations.items():
            if changed is None or not changed or conversation_id in changed or conversation_id not in self._known:
                await self._look_at(group, conversation_id, number, is_late=changed is not None and not changed)
        for conversation_id in [each for each in self._known if each not in self._session.conversations]:
            await self._gone(conversation_id)
        return True

    async def _look_at(self, group: asyncio.TaskGroup, conversation_id: str, number: int, *, is_late: bool) -> None:
        chat = await self._chats.read(self._session.id, conversation_id)
        if is_late and chat.running is not None:  # who should have submitted it, or gone on after it, is no more
            chat = await self._chats.advance(self._session.id, conversation_id)
        if chat.running is not None and not chat.running.task_id:
            self._unsubmitted.add(conversation_id)
        else:
            self._unsubmitted.discard(conversation_id)
        before = self._known.get(conversation_id)
        if chat == before:
            return
        if not chat.id:
            await self._gone(conversation_id)
            return
        self._known[conversation_id] = chat
        if before is None:
            self._positions[number] = self._beginning(chat, self._positions.get(number))
        await self._say(ChatChanged(conversation_id, chat))
        if before is None:
            self._news[conversation_id] = asyncio.Event()
            self._followers[conversation_id] = group.create_task(
                self._follow(conversation_id, number), name=f"feed of conversation {conversation_id}"
            )
        self._news[conversation_id].set()

    def _beginning(self, chat: Chat, said: Position | None) -> Position:
        """Where the hearer of a conversation begins, which may have said where it is."""
        if said is not None and said.message <= chat.count + 1:
            return said if said.message <= chat.count else Position(said.message)
        if self._has_begun:  # it is a new one
            return Position(1)
        return present(chat)

    async def _gone(self, conversation_id: str) -> None:
        if self._known.pop(conversation_id, None) is None:
            return
        if (follower := self._followers.pop(conversation_id, None)) is not None:
            follower.cancel()
            await asyncio.wait([follower])
        await self._say(ChatChanged(conversation_id, Chat()))

    async def _say(self, what: Happening) -> None:
        await self._queue.put(SessionEvent(what, self.position))

    # One conversation

    async def _follow(self, conversation_id: str, number: int) -> None:
        while True:
            news = self._news[conversation_id]
            news.clear()
            chat, at = self._known[conversation_id], self._positions[number]
            message = _message_at(chat, at.message)
            if message is None:
                if (later := _next_after(chat, at.message)) is not None:  # it was so long ago that it is forgotten
                    self._positions[number] = Position(later)
                    await self._say(Missed(conversation_id))
                    continue
                await news.wait()
                continue
            if at.seq < 0:
                await self._say(message)
            running = chat.running
            if await self._hear(message, number, is_over=running is None or running.number != at.message):
                self._positions[number] = Position(at.message + 1)
            else:
                self._positions[number] = Position(at.message)

    async def _hear(self, message: MessageBegun, number: int, *, is_over: bool) -> bool:
        """Hear a message's chunks from our position on, which may be `is_over` already. False: it has none such, and
        has to be heard from the beginning."""
        conversation_id, at = message.conversation_id, self._positions[number]
        if is_over and not await self._chats.is_known(message.task_id):
            self._positions[number] = Position(at.message + 1)
            await self._say(Missed(conversation_id))
            return True
        try:
            async with aclosing(self._streams.follow(message.task_id, after_seq=at.seq)) as chunks:
                is_whole = False
                async for chunk in chunks:
                    is_whole = chunk.is_final
                    self._positions[number] = Position(at.message + is_whole, -1 if is_whole else chunk.seq)
                    await self._say(ChunkHeard(conversation_id, message.message_id, chunk))
                if not is_whole:
                    if self._streams.is_closed or at.seq < 0:
                        raise _LeavingError
                    return False
        except (ReplayTrimmed, TaskNotFound):
            self._positions[number] = Position(at.message + 1)
            await self._say(Missed(conversation_id))
        # Without a result after all that time there is no end yet that anybody could go on from.
        with contextlib.suppress(WaitTimeout):
            await self._chats.ended(self._session.id, conversation_id, message.task_id, within_s=_RESULT_WITHIN_S)
        return True


def present(chat: Chat) -> Position:
    """Where somebody is in a conversation who has read its messages: at the beginning of what is being answered."""
    return Position(chat.running.number if chat.running is not None else chat.count + 1)


def _first(errors: BaseExceptionGroup[QueueError]) -> QueueError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, QueueError)  # noqa: S101 - the group holds no others
    return error


def _message_at(chat: Chat, number: int) -> MessageBegun | None:
    """A message that was started and is still known."""
    running = chat.running
    if running is not None and running.number == number:
        if not running.task_id:
            return None
        return MessageBegun(chat.id, running.id, number, running.task_id, running.task.prompt)
    done = next((each for each in reversed(chat.recent) if each.number == number), None)
    return MessageBegun(chat.id, done.id, number, done.task_id, "") if done is not None and done.task_id else None


def _next_after(chat: Chat, number: int) -> int | None:
    """The number of the next message that is known after one that is not."""
    known = [each.number for each in chat.recent if each.task_id]
    if chat.running is not None:
        known.append(chat.running.number)
    if number in known:
        return None
    return min((each for each in known if each > number), default=None)
