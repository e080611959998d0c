"""Single tasks on their way in: two script calls under way at once, still each task once, and all in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
import redis.asyncio
import redis.exceptions

from queue_backends import (
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    InvalidTask,
    QueueError,
    QueueFull,
    Task,
    open_backend,
)
from queue_backends.interfaces import QueueStats
from queue_backends.redis.client import RedisClient
from queue_backends.redis.keys import Keys
from queue_backends.redis.line import Link, Receiver
from queue_backends.redis.submitting import FIRST_DELAY_S, UNKNOWN_OUTCOME, Submitter
from tests.proxies import Proxy
from tests.servers import Server

LIMIT_S = 30


@pytest.fixture
async def proxy(valkey_server: Server) -> AsyncIterator[Proxy]:
    """A way to the shared server that can be disturbed."""
    async with Proxy(valkey_server.port) as opened:
        yield opened


@pytest.fixture
async def admin(valkey_server: Server) -> AsyncIterator[Any]:
    """Somebody else at the same server."""
    async with redis.asyncio.Redis(port=valkey_server.port) as client:
        yield client


def _tasks(count: int, name: str = "task") -> list[Task]:
    return [Task(prompt=f"<{name} {number}>") for number in range(count)]


async def _submit(backend: Backend, tasks: Sequence[Task]) -> list[str | BaseException]:
    """By one caller for each, all at once."""
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.gather(*map(backend.queue.submit, tasks), return_exceptions=True)


async def _warm(backend: Backend, callers: int) -> int:
    """So many callers have submitted before: from now on they travel in halves. Returns how many tasks there are."""
    await _submit(backend, _tasks(callers, "warm"))
    await _submit(backend, _tasks(callers, "warmer"))
    return 2 * callers


async def _entries(admin: Any, stream: str) -> list[tuple[str, str]]:
    """Ids and prompts, in the order in which workers get them."""
    return [(entry.decode(), fields[b"prompt"].decode()) for entry, fields in await admin.xrange(stream)]


async def test_callers_travel_in_halves_and_in_order(valkey_server: Server, admin: Any, stream: str) -> None:
    """Twenty who submit again and again need two calls each time, and workers get their tasks in their order."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        before = await _warm(backend, 20)
        calls = (await admin.info("commandstats"))["cmdstat_evalsha"]["calls"]
        tasks = [_tasks(20, f"round {number}") for number in range(5)]
        ids = [await _submit(backend, each) for each in tasks]
        assert (await admin.info("commandstats"))["cmdstat_evalsha"]["calls"] - calls == 10
    expected = [(task_id, task.prompt) for n in range(5) for task_id, task in zip(ids[n], tasks[n], strict=True)]
    assert (await _entries(admin, stream))[before:] == expected


@pytest.mark.parametrize("lost", [3, 13], ids=["first-half", "second-half"])
async def test_a_lost_reply_under_way_repeats_both_halves_in_order(
    proxy: Proxy, admin: Any, stream: str, lost: int
) -> None:
    """The connection breaks with both under way, and at least one of them carried out: each task is added once."""
    async with await open_backend(proxy.url(stream)) as backend:
        before = await _warm(backend, 20)
        trap = proxy.lose_reply(f"<task {lost}>".encode())
        tasks = _tasks(20)
        ids = await _submit(backend, tasks)
        await trap.wait()
        again = await _submit(backend, _tasks(1, "later"))
        tasks += _tasks(1, "later")
    expected = [(task_id, task.prompt) for task_id, task in zip([*ids, *again], tasks, strict=True)]
    assert (await _entries(admin, stream))[before:] == expected


async def test_a_server_that_forgot_the_script_is_given_it_again(
    valkey_server: Server, admin: Any, stream: str
) -> None:
    """Both halves find it missing: both are added, once and in order."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        before = await _warm(backend, 20)
        await admin.script_flush()
        tasks = _tasks(20)
        ids = await _submit(backend, tasks)
    expected = [(task_id, task.prompt) for task_id, task in zip(ids, tasks, strict=True)]
    assert (await _entries(admin, stream))[before:] == expected


async def test_a_queue_that_fills_up_takes_the_first_ones(valkey_server: Server, admin: Any, stream: str) -> None:
    """Of twenty in two halves, fifteen fit: those that came first. A known task is none more, wherever it stands."""
    async with await open_backend(valkey_server.url(stream), BackendOptions(max_depth=56)) as backend:
        before = await _warm(backend, 20)
        known = Task(prompt="known", idempotency_key="k")
        (known_id,) = await _submit(backend, [known])
        tasks = [*_tasks(18), known, Task(prompt="last")]
        answers = await _submit(backend, tasks)
        assert answers[18] == known_id
        assert [isinstance(answer, QueueFull) for answer in answers] == [False] * 15 + [True] * 3 + [False, True]
        assert (await backend.queue.stats()).ready == 56
    assert [entry for entry, _ in await _entries(admin, stream)][before + 1 :] == answers[:15]


async def test_cancelled_callers_take_nobody_with_them(valkey_server: Server, admin: Any, stream: str) -> None:
    """Their tasks were on their way; the others learn their ids."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        before = await _warm(backend, 20)
        calls = [asyncio.create_task(backend.queue.submit(task)) for task in _tasks(20)]
        await asyncio.sleep(0)  # both halves are sent
        for call in calls[5:15]:
            call.cancel()
        async with asyncio.timeout(LIMIT_S):
            answers = await asyncio.gather(*calls, return_exceptions=True)
        entries = (await _entries(admin, stream))[before:]
    assert [prompt for _, prompt in entries] == [task.prompt for task in _tasks(20)]
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers[5:15]] == [True] * 10
    assert [*answers[:5], *answers[15:]] == [entry for entry, _ in (*entries[:5], *entries[15:])]


async def test_closing_lets_both_halves_arrive(valkey_server: Server, admin: Any, stream: str) -> None:
    """Whoever submits and hangs up has submitted."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        before = await _warm(backend, 20)
        calls = [asyncio.create_task(backend.queue.submit(task)) for task in _tasks(20)]
        await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_S):
        ids = await asyncio.gather(*calls)
    assert [entry for entry, _ in (await _entries(admin, stream))[before:]] == ids


async def test_both_halves_end_in_silence(proxy: Proxy, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for good: each caller is told that the outcome is open. Then it works again."""
    async with await open_backend(proxy.url(stream)) as backend:
        await _warm(backend, 20)
        for module in ("client", "submitting"):
            monkeypatch.setattr(f"queue_backends.redis.{module}.COMMAND_TIMEOUT_S", 0.2)
        monkeypatch.setattr("queue_backends.redis.submitting.SUBMIT_LIMIT_S", 0.5)
        proxy.silence()
        answers = await _submit(backend, _tasks(20))
        assert all(isinstance(answer, BackendUnavailable) for answer in answers)
        assert all("idempotency_key" in str(answer) for answer in answers)
        monkeypatch.undo()
        proxy.heal()
        assert all(isinstance(answer, str) for answer in await _submit(backend, _tasks(20, "later")))


async def test_large_tasks_go_apart(valkey_server: Server, admin: Any, stream: str) -> None:
    """More than a server may take at once is not sent blindly: it arrives all the same, in order."""
    async with await open_backend(valkey_server.url(stream)) as backend:
        before = await _warm(backend, 20)
        tasks = [Task(prompt=str(number) * 300_000) for number in range(9)]
        ids = await _submit(backend, tasks)
    assert [entry for entry, _ in (await _entries(admin, stream))[before:]] == ids


class _Wire(RedisClient):
    """A client whose connection is the test: what is sent at once, and what is called in a coroutine."""

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1")
        self.link: Any = object()
        self.sent: list[Receiver] = []
        self.calls: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()
        """Script calls that wait for the test's reply."""

    def link_at_once(self) -> Link | None:
        return cast("Link", self.link)

    def send_script(self, link: Link, name: str, keys: Sequence[str], args: Sequence[Any], receiver: Receiver) -> None:
        self.sent.append(receiver)

    async def script(
        self, name: str, keys: Sequence[str], args: Sequence[Any], *, timeout_s: float | None = None
    ) -> Any:
        reply = asyncio.get_running_loop().create_future()
        self.calls.put_nowait(reply)
        return await reply


async def _in_halves(wire: _Wire) -> tuple[Submitter, list[asyncio.Future[str]]]:
    """Twenty callers, whose two calls are sent."""

    submitter = await _warm_submitter(wire)
    futures = [submitter.submit(task, None) for task in _tasks(20)]
    assert len(wire.sent) == 2
    return submitter, futures


async def _warm_submitter(wire: _Wire) -> Submitter:
    """Twenty have submitted before, so that they go in halves from now on."""

    async def stats() -> QueueStats:
        raise AssertionError("not asked for single tasks")

    submitter = Submitter(wire, Keys("q"), BackendOptions(), stats)
    warm = [submitter.submit(task, None) for task in _tasks(20, "warm")]
    (await wire.calls.get()).set_result([b"0-1"] * 20)
    await asyncio.gather(*warm)
    return submitter


async def test_halves_are_repeated_one_after_the_other() -> None:
    """Else the second, if only its call got through at once, would stand before the first. Then both go at once."""
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        submitter, futures = await _in_halves(wire)
        for receiver in wire.sent:
            receiver.lose(redis.exceptions.ConnectionError("gone"))
        first = await wire.calls.get()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wire.calls.get(), 3 * FIRST_DELAY_S)
        first.set_result([b"1-1"] * 10)
        assert await asyncio.gather(*futures[:10]) == ["1-1"] * 10
        (await wire.calls.get()).set_result([b"2-1"] * 10)
        assert await asyncio.gather(*futures[10:]) == ["2-1"] * 10
        for task in _tasks(20, "later"):
            submitter.submit(task, None)
        assert len(wire.sent) == 4


async def test_a_refusal_is_no_lost_reply() -> None:
    """The server says that it did nothing: callers of that half hear so at once, the other half is added."""
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        _, futures = await _in_halves(wire)
        wire.sent[0].take(redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."))
        wire.sent[1].take([b"2-1"] * 10)
        answers = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(answer, BackendUnavailable) for answer in answers[:10])
    assert answers[10:] == ["2-1"] * 10
    assert wire.calls.empty()


async def test_a_large_second_half_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the slower way, and would be repeated before the first one if the connection broke under both."""
    monkeypatch.setattr("queue_backends.redis.submitting.LONGEST_AT_ONCE", 500)
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        submitter = await _warm_submitter(wire)
        tasks = [*_tasks(10), *(Task(prompt="large" * 100) for _ in range(10))]
        futures = [submitter.submit(task, None) for task in tasks]
        assert len(wire.sent) == 1
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(wire.calls.get(), FIRST_DELAY_S)
        wire.sent[0].lose(redis.exceptions.ConnectionError("gone"))
        (await wire.calls.get()).set_result([b"1-1"] * 10)
        assert await asyncio.gather(*futures[:10]) == ["1-1"] * 10
        (await wire.calls.get()).set_result([b"2-1"] * 10)
        assert await asyncio.gather(*futures[10:]) == ["2-1"] * 10


async def test_a_final_refusal_after_a_lost_reply_leaves_the_outcome_open() -> None:
    """The first try may have been carried out before the server's mind was changed."""
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        _, futures = await _in_halves(wire)
        wire.sent[0].lose(redis.exceptions.ConnectionError("gone"))
        wire.sent[1].take([b"2-1"] * 10)
        (await wire.calls.get()).set_exception(BackendMisconfigured("the server's ACL forbids a command we need"))
        answers = await asyncio.gather(*futures[:10], return_exceptions=True)
    assert all(isinstance(answer, BackendMisconfigured) and UNKNOWN_OUTCOME in str(answer) for answer in answers)


async def test_a_refusal_of_the_first_try_is_final() -> None:
    """Nothing was added, and nothing else is said."""
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        _, futures = await _in_halves(wire)
        wire.sent[0].take(
            redis.exceptions.NoPermissionError("this user has no permissions to run the 'evalsha' command")
        )
        wire.sent[1].take([b"2-1"] * 10)
        answers = await asyncio.gather(*futures[:10], return_exceptions=True)
    assert all(isinstance(answer, BackendMisconfigured) and UNKNOWN_OUTCOME not in str(answer) for answer in answers)


@pytest.mark.parametrize("answer", [b"OK", [b"1-1"], 7, None], ids=repr)
async def test_an_answer_to_something_else_lets_nobody_hang(answer: Any) -> None:
    """The callers are told, and the next ones are served."""
    wire = _Wire()
    async with asyncio.timeout(LIMIT_S):
        submitter, futures = await _in_halves(wire)
        wire.sent[0].take(answer)
        wire.sent[1].take([b"2-1"] * 10)
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(each, QueueError) and UNKNOWN_OUTCOME in str(each) for each in answers[:10])
        assert answers[10:] == ["2-1"] * 10
        later = submitter.submit(Task(prompt="later"), None)
        await asyncio.sleep(0)
        wire.sent[-1].take([b"3-1"])
        assert await later == "3-1"


async def test_a_first_try_that_the_network_held_up_adds_nothing(
    valkey_server: Server, admin: Any, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that was given up may still deliver what was sent over it, when the call has been repeated over
    another one, or even a later one has been carried out."""
    sent: list[tuple[Any, ...]] = []
    send_script = RedisClient.send_script

    def send(client: RedisClient, link: Link, name: str, keys: Any, args: Any, receiver: Receiver) -> None:
        sent.append(("EVALSHA", client._script(name)[1], len(keys), *keys, *args))
        send_script(client, link, name, keys, args, receiver)

    monkeypatch.setattr(RedisClient, "send_script", send)
    async with asyncio.timeout(LIMIT_S), await open_backend(valkey_server.url(stream)) as backend:
        await backend.queue.submit(Task(prompt="warm"))
        task_id = await backend.queue.submit(Task(prompt="once"))
        (first,) = sent
        assert await admin.execute_command(*first) == [task_id.encode()]
        assert (await backend.queue.stats()).ready == 2
        await backend.queue.submit(Task(prompt="later"))
        with pytest.raises(redis.exceptions.ResponseError, match="a later call"):
            await admin.execute_command(*first)
        assert (await backend.queue.stats()).ready == 3


async def test_a_date_that_cannot_be_written_is_the_fault_of_its_own_task_alone() -> None:
    """It is refused at the edge: packed with the others, it would take all of their call with it."""
    submitter = await _warm_submitter(_Wire())
    with pytest.raises(InvalidTask, match="enqueued_at"):
        submitter.submit(Task(prompt="fine", enqueued_at="\ud800"), None)
