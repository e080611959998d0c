"""Sessions and the order of their messages: over several processes, on a real server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from providers import Message
from queue_backends import (
    RUN_CANCELLED,
    Backend,
    BackendOptions,
    BackendUnavailable,
    InvalidTask,
    QueueFull,
    Task,
    TaskState,
    open_backend,
)
from tests.sessions.talking import ECHO, WITHIN_S, kept, settings_with, texts, until
from worker.assembly import open_worker
from worker.gateway.ownership import read_record
from worker.sessions.conversation_log import Exchange, log_name, log_record
from worker.sessions.conversations import SUMMARY_OF, SUMMARY_UP_TO
from worker.sessions.errors import (
    ConversationBusy,
    ConversationNotFound,
    NothingToRetry,
    SessionClosed,
    SessionNotFound,
    TooLong,
    TooMuch,
)
from worker.sessions.model import MOST_CONVERSATIONS, MOST_WAITING, Asked, Chat, SessionRecord
from worker.sessions.store import Sessions
from worker.sessions.waiting import WAITING

SLOW = {"scenarios": [{"match": "slow", "turns": [{"text": "a b c d e", "chunk_delay_s": 0.05}]}, *ECHO["scenarios"]]}


class House:
    """A queue, some workers, and as many views of its sessions as there are gateways."""

    def __init__(self, backend: Backend, stack: AsyncExitStack, url: str = "") -> None:
        """With a `url`, everybody has connections of their own."""
        self.backend = backend
        self.stack = stack
        self.url = url

    async def connection(self) -> Backend:
        """As another process has it."""
        if not self.url:
            return self.backend
        return await self.stack.enter_async_context(await open_backend(self.url, BackendOptions()))

    async def sessions(self, *, refuses_when_busy: bool = False) -> Sessions:
        """As another gateway has them."""
        backend = await self.connection()
        return Sessions(backend.state, backend.queue, keep_s=600, tasks_keep_s=600, refuses_when_busy=refuses_when_busy)

    async def work(self, script: object = ECHO) -> None:
        """Start a worker, on a connection of its own."""
        backend = await self.connection()
        await self.stack.enter_async_context(open_worker(settings_with(script), backend))  # type: ignore[arg-type]  # scripts are plain JSON


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A queue in memory: all that is said of a conversation goes through its store all the same."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend("memory://", BackendOptions()))
        yield House(backend, stack)


@pytest.fixture
async def valkey_house(queue_url: str) -> AsyncIterator[House]:
    """A fresh queue on the shared server, with connections of their own for all."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(await open_backend(queue_url, BackendOptions()))
        yield House(backend, stack, queue_url)


def only(session: SessionRecord) -> str:
    """The session's one conversation."""
    [conversation_id] = session.conversations
    return conversation_id


async def exchanges(house: House, session: SessionRecord, count: int) -> list[str]:
    """The questions that were answered, once there are so many."""

    async def are_there() -> bool:
        return len(await kept(house.backend.state, only(session))) >= count

    await until(are_there)
    return [texts(each.asked)[0] for each in await kept(house.backend.state, only(session))]


async def test_messages_from_two_gateways_run_one_after_the_other(valkey_house: House) -> None:
    """Thirty messages through two gateways, answered by two workers: each once, never two at a time, and in the order
    in which the conversation took them."""
    house = valkey_house
    one, other = await house.sessions(), await house.sessions()
    session = await one.create(agent="", owner="me")

    async def post(number: int) -> None:
        await (one, other)[number % 2].post(session, only(session), Task(prompt=f"m{number}"))

    await asyncio.gather(*(post(number) for number in range(30)))
    chat = await one.chats.get(session.id, only(session))
    assert chat.running is not None
    taken = [each.task.prompt for each in (chat.running, *chat.waiting)]
    await house.work(SLOW)
    await house.work(SLOW)
    answered = await exchanges(house, session, 30)
    assert sorted(taken) == sorted(f"m{number}" for number in range(30))
    assert answered == taken
    finished = await kept(house.backend.state, only(session))
    results = await house.backend.queue.results([each.task_id for each in finished])
    ends = [result.finished_at for result in results if result is not None]
    assert ends == sorted(ends)
    assert all(later.began_at >= end for later, end in zip(finished[1:], ends, strict=False))


async def test_the_worker_starts_the_next_message_by_itself(house: House) -> None:
    """Nobody watches, no gateway is there any more: what waits is answered all the same."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    for number in range(3):
        await sessions.post(session, only(session), Task(prompt=f"m{number}"))
    await house.work()
    assert await exchanges(house, session, 3) == ["m0", "m1", "m2"]


async def test_the_same_message_sent_again_is_one(house: House) -> None:
    """A client that did not hear the answer sends again, through another gateway: there is one task, however far it
    has come; and all of a conversation's messages stay apart."""
    one, other = await house.sessions(), await house.sessions()
    session = await one.create(agent="", owner="me")
    first = await one.post(session, only(session), Task(prompt="hi"), message_id="x")
    again = await other.post(session, only(session), Task(prompt="hi"), message_id="x")
    waiting = await other.post(session, only(session), Task(prompt="ho"), message_id="y")
    assert (await one.post(session, only(session), Task(prompt="ho"), message_id="y")).id == waiting.id
    await house.work()
    assert await exchanges(house, session, 2) == ["hi", "ho"]
    after = await other.post(session, only(session), Task(prompt="hi"), message_id="x")
    assert first.task_id == again.task_id == after.task_id
    second = await one.add_conversation(session)
    elsewhere = await one.post(await one.again(session.id), second.id, Task(prompt="hi"), message_id="x")
    assert elsewhere.task_id != first.task_id


async def test_a_message_that_lost_its_gateway_is_started_by_the_next_one(house: House) -> None:
    """A gateway dies after it has taken a message and before it has submitted it: whoever comes next submits it."""
    dying, next_one = await house.sessions(), await house.sessions()
    session = await dying.create(agent="", owner="me")

    async def die(task: Task, **_: object) -> str:
        raise BackendUnavailable("gone")

    dying.chats._queue = _Dying(dying.chats._queue, die)  # type: ignore[assignment]  # only `submit` is asked of it
    with pytest.raises(BackendUnavailable):
        await dying.post(session, only(session), Task(prompt="hello"))
    chat = await next_one.chats.get(session.id, only(session))
    assert chat.running is not None
    assert chat.running.task_id == ""
    await next_one.chats.advance(session.id, only(session))
    await house.work()
    assert await exchanges(house, session, 1) == ["hello"]


async def test_a_message_that_ends_before_its_task_is_noted_holds_nothing_up(house: House) -> None:
    """A gateway is held up between submitting a message's task and noting it, for so long that the task ends: what
    waits behind it is started all the same, and each is asked once."""
    slow, other = await house.sessions(), await house.sessions()
    session = await slow.create(agent="", owner="me")
    queue, submitted, may_go_on = house.backend.queue, asyncio.Event(), asyncio.Event()

    async def submit(task: Task, **_: object) -> str:
        task_id = await queue.submit(task)
        submitted.set()
        await may_go_on.wait()
        return task_id

    async def refuse(task: Task, **_: object) -> str:
        raise BackendUnavailable("gone")

    slow.chats._queue = _Dying(queue, submit)  # type: ignore[assignment]  # only `submit` is asked of it
    other.chats._queue = _Dying(queue, refuse)  # type: ignore[assignment]  # only `submit` is asked of it
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(slow.post(session, only(session), Task(prompt="first")))
        await submitted.wait()
        with pytest.raises(BackendUnavailable):
            await other.post(session, only(session), Task(prompt="second"))
        await house.work()
        await exchanges(house, session, 1)
        may_go_on.set()
    assert await exchanges(house, session, 2) == ["first", "second"]


class _Dying:
    """A queue that dies when it is given a task."""

    def __init__(self, queue: object, submit: object) -> None:
        self._queue = queue
        self.submit = submit

    def __getattr__(self, name: str) -> object:
        return getattr(self._queue, name)


async def test_a_message_that_is_refused_leaves_nothing(house: House) -> None:
    """The queue is full: the sender is told so, and the conversation is free for another message."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")

    async def refuse(task: Task, **_: object) -> str:
        raise QueueFull("full")

    queue = sessions.chats._queue
    sessions.chats._queue = _Dying(queue, refuse)  # type: ignore[assignment]  # only `submit` is asked of it
    with pytest.raises(QueueFull):
        await sessions.post(session, only(session), Task(prompt="hello"))
    sessions.chats._queue = queue
    chat = await sessions.chats.get(session.id, only(session))
    assert (chat.running, chat.count) == (None, 0)
    posted = await sessions.post(session, only(session), Task(prompt="again"))
    assert isinstance(posted, Asked)
    assert posted.number == 1


async def test_a_message_that_nobody_can_run_holds_nothing_up(house: House) -> None:
    """The queue refuses the message when it is at its turn: it is kept as failed, once, and the next one runs."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    queue = sessions.chats._queue

    async def refuse(task: Task, **_: object) -> str:
        if task.prompt == "wrong":
            raise InvalidTask("nobody can run this")
        return await queue.submit(task)

    sessions.chats._queue = _Dying(queue, refuse)  # type: ignore[assignment]  # only `submit` is asked of it
    first = await sessions.post(session, only(session), Task(prompt="one"))
    for prompt in ("wrong", "three"):
        await sessions.post(session, only(session), Task(prompt=prompt))
    await queue.cancel([first.task_id])
    for _ in range(2):
        await sessions.chats.advance(session.id, only(session))
    chat = await sessions.chats.get(session.id, only(session))
    assert chat.running is not None
    assert chat.running.task.prompt == "three"
    found = await kept(house.backend.state, only(session))
    assert [(texts(each.asked)[0], each.error) for each in found] == [
        ("one", RUN_CANCELLED),
        ("wrong", "nobody can run this"),
    ]


async def test_what_a_failed_answer_came_to_stays(house: House) -> None:
    """A worker has kept how far an answer came that failed on its second delivery: whoever goes on with the
    conversation puts no bare failure in its place."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    posted = await sessions.post(session, only(session), Task(prompt="one"))
    so_far = Exchange(
        task_id=posted.task_id,
        asked=(Message.user("one"),),
        answered=(Message.assistant("so far"),),
        error=RUN_CANCELLED,
    )
    await house.backend.state.append_once([log_record(log_name("", only(session)), so_far, keep_s=600, again=1)])
    await house.backend.queue.cancel([posted.task_id])
    assert (await sessions.chats.advance(session.id, only(session))).running is None
    assert await kept(house.backend.state, only(session)) == [so_far]


async def test_whose_a_message_is_and_how_many_are_remembered(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of a message is its owner's for the tasks API, too; of those that were answered only so many stand in
    the conversation's own record."""
    monkeypatch.setattr("worker.sessions.chats.MOST_RECENT", 2)
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me", tenant="acme")
    for number in range(4):
        posted = await sessions.post(session, only(session), Task(prompt=f"m{number}"))
        note = await read_record(house.backend.state, posted.task_id)
        assert note is not None
        assert (note.caller, note.tenant, note.conversation_id) == ("me", "acme", only(session))
        await sessions.chats.stop(session.id, only(session))
    chat = await sessions.chats.get(session.id, only(session))
    assert [each.number for each in chat.recent] == [3, 4]


async def test_a_busy_conversation_may_refuse(house: House) -> None:
    """With `refuse`, a second message is an error while the first is being answered, and not afterwards."""
    sessions = await house.sessions(refuses_when_busy=True)
    session = await sessions.create(agent="", owner="me")
    first = await sessions.post(session, only(session), Task(prompt="one"))
    with pytest.raises(ConversationBusy, match="is being answered"):
        await sessions.post(session, only(session), Task(prompt="two"))
    await house.work()
    await house.backend.queue.wait(first.task_id, WITHIN_S)
    await sessions.post(session, only(session), Task(prompt="three"))
    assert await exchanges(house, session, 2) == ["one", "three"]


async def test_stop_ends_what_runs_and_what_waits(house: House) -> None:
    """An answer that waits for a worker is cancelled with its followers; the question stays, unanswered; then the
    conversation goes on."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    first = await sessions.post(session, only(session), Task(prompt="one"))
    second = await sessions.post(session, only(session), Task(prompt="two"))
    assert await sessions.chats.stop(session.id, only(session)) == [first.id, second.id]
    chat = await sessions.chats.get(session.id, only(session))
    assert (chat.running, chat.waiting) == (None, ())
    [stopped] = await kept(house.backend.state, only(session))
    assert (texts(stopped.messages), stopped.error) == (["one"], RUN_CANCELLED)
    await house.work()
    await sessions.post(session, only(session), Task(prompt="three"))
    assert await exchanges(house, session, 2) == ["one", "three"]


async def test_retry_asks_the_last_message_again(house: House) -> None:
    """Its answer before no longer counts, for people and for the model; while something runs there is no retry."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    with pytest.raises(NothingToRetry, match="no message"):
        await sessions.retry(session, only(session), message_id="r0")
    await sessions.post(session, only(session), Task(prompt="one"))
    with pytest.raises(NothingToRetry, match="being answered"):
        await sessions.retry(session, only(session), message_id="r1")
    await house.work()
    await exchanges(house, session, 1)
    [before] = await kept(house.backend.state, only(session))

    async def is_idle() -> bool:
        return (await sessions.chats.advance(session.id, only(session))).running is None

    await until(is_idle)
    again = await sessions.retry(session, only(session), message_id="r2")
    await house.backend.queue.wait(again.task_id, WITHIN_S)
    [after] = await kept(house.backend.state, only(session))
    assert before.task_id != after.task_id == again.task_id
    assert texts(after.messages) == ["one", "echo one"]


async def test_a_retry_that_is_sent_again_is_one(house: House) -> None:
    """Its client did not hear the answer, and asks with the same id once more: while it runs and when it is done it is
    the same retry, and what it has brought stays."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    await house.work()
    first = await sessions.post(session, only(session), Task(prompt="one"))
    await exchanges(house, session, 1)

    async def is_idle() -> bool:
        return (await sessions.chats.get(session.id, only(session))).running is None

    await until(is_idle)
    again = await sessions.retry(session, only(session), message_id="r")
    assert (await sessions.retry(session, only(session), message_id="r")).task_id == again.task_id
    await house.backend.queue.wait(again.task_id, WITHIN_S)
    await until(is_idle)
    assert (await sessions.retry(session, only(session), message_id="r")).task_id == again.task_id != first.task_id
    [kept_now] = await kept(house.backend.state, only(session))
    assert kept_now.task_id == again.task_id


async def test_of_two_retries_at_the_same_time_one_is_refused(house: House) -> None:
    """Two devices ask again at the same moment: the question is asked once more, not twice."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    await sessions.post(session, only(session), Task(prompt="one"))
    await sessions.chats.stop(session.id, only(session))
    both = await asyncio.gather(
        *(sessions.retry(session, only(session), message_id=each) for each in ("a", "b")), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in both) == ["Asked", "NothingToRetry"]
    chat = await sessions.chats.get(session.id, only(session))
    assert chat.running is not None
    assert chat.waiting == ()


async def test_a_session_is_its_owners_alone(house: House) -> None:
    """Others do not find it, whatever they know; its owner finds it through any gateway, and in the list of theirs."""
    one, other = await house.sessions(), await house.sessions()
    mine = await one.create(agent="a", owner="me", tenant="acme", title="hello")
    later = await one.create(agent="a", owner="me", tenant="acme")
    await one.create(agent="a", owner="you", tenant="acme")
    assert (await other.get(mine.id, owner="me", tenant="acme")).title == "hello"
    for owner, tenant in (("you", "acme"), ("me", "other")):
        with pytest.raises(SessionNotFound):
            await other.get(mine.id, owner=owner, tenant=tenant)
    for wrong in (str(uuid.uuid4()), "", "../x", "a" * 10_000):
        with pytest.raises(SessionNotFound):
            await other.get(wrong, owner="me")
    assert [each.id for each in await other.of_owner("me")] == [later.id, mine.id]
    await other.post(mine, only(mine), Task(prompt="something new"))
    assert [each.id for each in await one.of_owner("me", "acme")] == [mine.id, later.id]
    assert [each.id for each in await one.of_owner("me", limit=1, offset=1)] == [later.id]
    assert await one.of_owner("me", "other") == []
    assert await one.of_owner("nobody") == []


async def test_a_long_list_reads_no_more_than_it_shows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of many days: those used last come first, whenever they were opened, and those of days before are not
    even looked at."""
    sessions = Sessions(house.backend.state, house.backend.queue, keep_s=30 * 86_400, tasks_keep_s=600)
    today = time.time()
    opened: list[SessionRecord] = []
    for day in range(20):
        monkeypatch.setattr("worker.sessions.store.time.time", lambda day=day: today + day * 86_400)
        opened.append(await sessions.create(agent="", owner="me"))
    await sessions.post(opened[3], only(opened[3]), Task(prompt="once more"))
    monkeypatch.undo()
    looked_at: list[str] = []
    get = house.backend.state.get

    async def noted(key: str) -> bytes | None:
        looked_at.append(key)
        return await get(key)

    monkeypatch.setattr(house.backend.state, "get", noted)
    newest = [opened[19].id, opened[3].id]
    assert {each.id for each in await sessions.of_owner("me", limit=2)} == set(newest)
    assert len(looked_at) == 2
    assert [each.id for each in await sessions.of_owner("me", limit=2, offset=2)] == [opened[18].id, opened[17].id]
    assert len(await sessions.of_owner("me", limit=100)) == 20


async def test_titles_and_closing(house: House) -> None:
    """The first message names conversation and session, until somebody does; a closed session takes no more."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    long = "What   is the\nmeaning of all this, and of everything else that there is?"
    await sessions.post(session, only(session), Task(prompt=long))
    await sessions.post(session, only(session), Task(prompt="second"))
    chat = await sessions.conversation(session, only(session))
    assert chat.title == "What is the meaning of all this, and of everything else tha…"
    assert (await sessions.again(session.id)).title == chat.title
    renamed = await sessions.rename_conversation(session, only(session), "Life")
    assert renamed.title == "Life"
    assert (await sessions.rename(session, "All")).title == "All"
    closed = await sessions.close(session)
    with pytest.raises(SessionClosed):
        await sessions.post(closed, only(session), Task(prompt="more"))
    with pytest.raises(SessionClosed):
        await sessions.add_conversation(closed)


async def test_what_is_deleted_is_gone(house: House) -> None:
    """A deleted conversation has no messages any more, and what ran in it was stopped; a deleted session neither."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    first = only(session)
    second = (await sessions.add_conversation(session)).id
    session = await sessions.again(session.id)
    await house.work()
    for conversation_id in (first, second):
        await sessions.post(session, conversation_id, Task(prompt="hello"))

    async def are_answered() -> bool:
        return all([await kept(house.backend.state, each) for each in (first, second)])

    await until(are_answered)
    assert list(session.conversations.values()) == [0, 1]
    await sessions.delete_conversation(session, first)
    assert await house.backend.state.read_log(log_name("", first)) == []
    session = await sessions.again(session.id)
    with pytest.raises(ConversationNotFound):
        await sessions.conversation(session, first)
    assert [chat.id for chat in await sessions.conversations(session)] == [second]
    await sessions.delete(session)
    with pytest.raises(SessionNotFound):
        await sessions.get(session.id, owner="me")
    assert await sessions.of_owner("me") == []
    assert await house.backend.state.read_log(log_name("", second)) == []


async def test_what_ends_after_its_deletion_leaves_nothing(house: House) -> None:
    """Answers and summaries that end only after their conversation was deleted, for whatever reason, are not kept; a
    conversation that another engine keeps under the id of a session that we do not know is left alone."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    deleted = only(session)
    await sessions.delete_conversation(session, deleted)
    await house.work()
    late = [
        Task(prompt="late", session_id=session.id, conversation_id=deleted),
        Task(
            prompt="sum",
            session_id=session.id,
            meta={SUMMARY_OF: deleted, SUMMARY_UP_TO: "x"},
            idempotency_key="summary/k",
        ),
    ]
    for task in (*late, Task(prompt="theirs", session_id="s", conversation_id="c")):
        task_id = await house.backend.queue.submit(task)
        await house.backend.queue.wait(task_id, WITHIN_S)

        async def is_gone() -> bool:
            return await house.backend.state.read_log(log_name("", deleted)) == []

        await until(is_gone)
    assert len(await kept(house.backend.state, "c")) == 1


async def test_limits(house: House) -> None:
    """Only so many conversations, and only so much may wait."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    for _ in range(MOST_CONVERSATIONS - 1):
        await sessions.add_conversation(session)
    with pytest.raises(TooMuch, match="conversations"):
        await sessions.add_conversation(session)
    for _ in range(MOST_WAITING + 1):
        await sessions.post(session, next(iter(session.conversations)), Task(prompt="x"))
    with pytest.raises(TooMuch, match="messages wait"):
        await sessions.post(session, next(iter(session.conversations)), Task(prompt="x"))
    other = (await sessions.conversations(await sessions.again(session.id)))[1].id
    session = await sessions.again(session.id)
    await sessions.post(session, other, Task(prompt="x"))
    await sessions.post(session, other, Task(prompt="y" * 200_000))
    with pytest.raises(TooMuch, match="bytes"):
        await sessions.post(session, other, Task(prompt="y" * 200_000))


async def test_a_message_has_a_limit(house: House) -> None:
    """With the history that its sender keeps; and what no task could be is refused before anything is noted."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    history = ({"role": "user", "content": "y" * 300_000},)
    with pytest.raises(TooLong, match="bytes"):
        await sessions.post(session, only(session), Task(prompt="x", history=history))
    for wrong in ("", "\ud800"):
        with pytest.raises(InvalidTask):
            await sessions.post(session, only(session), Task(prompt=wrong))
    assert (await sessions.chats.get(session.id, only(session))).running is None


async def test_what_waits_goes_on_without_anybody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message before has ended and nobody was told, as when a worker dies right after its commit: no request comes
    and nobody watches, and what waits is answered all the same; afterwards nothing is noted any more."""
    monkeypatch.setattr("worker.sessions.conversations.LOOK_S", 0.02)
    monkeypatch.setattr("worker.sessions.waiting.LOOK_S", 0.02)
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    first = await sessions.post(session, only(session), Task(prompt="one"))
    await sessions.post(session, only(session), Task(prompt="two"))
    await house.backend.queue.cancel([first.task_id])
    await house.work()
    assert await exchanges(house, session, 2) == ["one", "two"]

    async def is_forgotten() -> bool:
        return [found async for found in house.backend.state.scan(WAITING)] == []

    await until(is_forgotten)


async def test_a_message_that_comes_while_others_are_looked_at_is_noted(house: House) -> None:
    """Somebody looks at a conversation in which nothing waits any more, and a message begins to wait there meanwhile:
    the next look still finds it."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    waiting = sessions.chats.waiting
    await waiting.note(session.id, only(session))
    advance = waiting._advance

    async def meanwhile(session_id: str, conversation_id: str) -> Chat:
        chat = await advance(session_id, conversation_id)
        await sessions.post(session, only(session), Task(prompt="one"))
        await sessions.post(session, only(session), Task(prompt="two"))
        return chat

    waiting._advance = meanwhile
    await waiting.look()
    assert len([found async for found in house.backend.state.scan(WAITING)]) == 1


async def test_two_conversations_run_at_the_same_time(house: House) -> None:
    """What is being answered in one does not hold up another."""
    sessions = await house.sessions()
    session = await sessions.create(agent="", owner="me")
    second = (await sessions.add_conversation(session)).id
    session = await sessions.again(session.id)
    first = next(each for each in session.conversations if each != second)
    posted = [await sessions.post(session, each, Task(prompt="hi")) for each in (first, second)]
    states = await house.backend.queue.status([each.task_id for each in posted])
    assert [each.state for each in states] == [TaskState.READY, TaskState.READY]
