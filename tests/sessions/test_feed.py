"""One stream of all that happens in a session: wherever its hearer says that it was, it comes to what is said now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import cast

import pytest
from msgspec.structs import replace

from queue_backends import Backend, BackendOptions, Task, open_backend
from tests.sessions.talking import ECHO, WITHIN_S, kept, settings_with, until
from worker.assembly import open_worker
from worker.gateway.chunk_hub import ChunkHub
from worker.sessions.feed import ChunkHeard, MessageBegun, Missed, SessionEvent, SessionFeed
from worker.sessions.model import Asked, Chat, SessionRecord, chat_key
from worker.sessions.positions import Position
from worker.sessions.store import Sessions
from worker.sessions.watch import ChatWatch
from worker.shared_record import SharedRecord

ENDLESS = {"match": "endless", "turns": [{"text": "word " * 2000, "chunk_delay_s": 0.02}]}
SCRIPT = {"scenarios": [ENDLESS, *ECHO["scenarios"]]}


class Talk:
    """A session with one conversation, and all that a stream of it needs."""

    def __init__(self, backend: Backend, sessions: Sessions, watch: ChatWatch, hub: ChunkHub) -> None:
        self.backend = backend
        self.sessions = sessions
        self.watch = watch
        self.hub = hub
        self.session = SessionRecord()
        self.is_heard = asyncio.Event()
        """Set as soon as a stream has told something."""

    @property
    def conversation(self) -> str:
        """Its id."""
        [conversation_id] = self.session.conversations
        return conversation_id

    async def say(self, prompt: str) -> None:
        """Ask something, and wait until that is over."""
        before = len(await kept(self.backend.state, self.conversation))
        await self.sessions.post(self.session, self.conversation, Task(prompt=prompt))

        async def is_over() -> bool:
            chat = await self.sessions.chats.advance(self.session.id, self.conversation)
            return chat.running is None and len(await kept(self.backend.state, self.conversation)) > before

        await until(is_over)

    async def heard(self, positions: Mapping[int, Position], text: str) -> list[str]:
        """What a stream tells from there until an answer with this text is told."""
        feed = SessionFeed(self.sessions, self.watch, self.hub, self.session, positions)
        told: list[str] = []
        async with asyncio.timeout(WITHIN_S):
            async with aclosing(cast("AsyncGenerator[SessionEvent, None]", feed.events())) as events:
                async for event in events:
                    self.is_heard.set()
                    match event.what:
                        case MessageBegun(number=number):
                            told.append(f"message {number}")
                        case ChunkHeard(chunk=chunk) if chunk.content:
                            told.append(chunk.content)
                        case Missed():
                            told.append("missed")
                    if text in "".join(told):
                        return told
        raise AssertionError(f"the stream has ended after {told}")


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    """A worker that echoes, and one session, in which one thing was said."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend("memory://", BackendOptions()))
        await stack.enter_async_context(open_worker(settings_with(SCRIPT), backend))
        watch = await stack.enter_async_context(ChatWatch(backend.state))
        hub = await stack.enter_async_context(ChunkHub(backend))
        sessions = Sessions(backend.state, backend.queue, keep_s=600, tasks_keep_s=600)
        talk = Talk(backend, sessions, watch, hub)
        talk.session = await sessions.create(agent="", owner="me")
        await talk.say("one")
        yield talk


@pytest.mark.parametrize(
    ("position", "told"),
    [
        (Position(1), ["message 1", "echo one", "message 2", "echo two"]),
        (Position(1, 0), ["message 2", "echo two"]),
        (Position(2), ["message 2", "echo two"]),
        (Position(1, 99), ["message 1", "echo one", "message 2", "echo two"]),
        (Position(2, 99), ["message 2", "echo two"]),
        (Position(50, 7), ["message 2", "echo two"]),
    ],
)
async def test_any_position_leads_to_what_is_said_now(talk: Talk, position: Position, told: list[str]) -> None:
    """Positions within what was said, behind its end, and of another session: the next message is heard, once."""
    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(talk.heard({0: position}, "echo two"))
        await talk.is_heard.wait()
        group.create_task(talk.say("two"))
    assert hearing.result() == told


@pytest.mark.parametrize("forgotten", [("streams",), ("results", "streams")])
async def test_what_is_forgotten_holds_nobody_up(talk: Talk, forgotten: tuple[str, ...]) -> None:
    """Somebody comes back after the chunks of all that was answered meanwhile are forgotten, and later their results,
    too: it is told so, and hears what is said next."""
    await talk.say("two")
    for what in forgotten:  # time passes
        getattr(talk.backend.queue._store, what).clear()  # type: ignore[attr-defined]
    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(talk.heard({0: Position(1)}, "echo three"))
        group.create_task(talk.say("three"))
    assert hearing.result()[-2:] == ["message 3", "echo three"]
    assert "missed" in hearing.result()


async def test_a_stream_submits_what_its_gateway_could_not(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway dies between taking a message and submitting it: the stream of another one sees to it."""
    monkeypatch.setattr("worker.sessions.feed.SUBMIT_WITHIN_S", 0.02)
    asked = Asked(id="x", task=Task(prompt="two", session_id=talk.session.id, conversation_id=talk.conversation))
    record = SharedRecord(talk.backend.state, chat_key(talk.session.id, talk.conversation), Chat, ttl_s=600)
    await record.update(lambda chat: (replace(chat, running=replace(asked, number=2), count=2), None))
    assert await talk.heard({0: Position(2)}, "echo two") == ["message 2", "echo two"]


async def test_a_gateway_that_leaves_repeats_nothing(talk: Talk) -> None:
    """It closes in the middle of an answer: the stream ends, and its last position is where that was, so that whoever
    goes on with it elsewhere hears the rest alone."""
    feed = SessionFeed(talk.sessions, talk.watch, talk.hub, talk.session, {0: Position(2, 0)})
    told: list[SessionEvent] = []
    await talk.sessions.post(talk.session, talk.conversation, Task(prompt="endless"))
    async with asyncio.timeout(WITHIN_S):
        async with aclosing(cast("AsyncGenerator[SessionEvent, None]", feed.events())) as events:
            async for event in events:
                told.append(event)
                if isinstance(event.what, ChunkHeard) and event.what.chunk.seq == 2:
                    await talk.hub.close()
    await talk.sessions.chats.stop(talk.session.id, talk.conversation)
    heard = [event for event in told if isinstance(event.what, ChunkHeard)]
    assert not any(isinstance(event.what, MessageBegun) for event in told)
    assert told[-1].position == heard[-1].position != "0.2.-"
