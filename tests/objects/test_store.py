"""A store of declared objects: what one process writes, all others see; nobody overwrites what he has not seen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from queue_backends import Backend, LogRecord, open_backend
from tests.proxies import Proxy
from tests.servers import Server
from worker.agents.model import Agent
from worker.objects import BadObject, ObjectConflict, ObjectExists, ObjectNotFound, ObjectStore, Stored

LIMIT_S = 30.0


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A store of the test's own."""
    async with await open_backend("memory://") as opened:
        yield opened


@pytest.fixture
def store(backend: Backend) -> ObjectStore[Agent]:
    """Objects, not followed."""
    return of(backend)


def of(backend: Backend) -> ObjectStore[Agent]:
    """The agents of a backend."""
    return ObjectStore(backend.state, "agent", Agent)


def agent(slug: str = "a", **fields: Any) -> Agent:
    """Some agent."""
    return Agent(slug=slug, **fields)


async def until(holds: Callable[[], bool], store: ObjectStore[Agent]) -> None:
    """Return once it holds; looked at with each change."""
    changed = asyncio.Event()
    forget = store.on_change(lambda _before, _after: changed.set())
    try:
        async with asyncio.timeout(LIMIT_S):
            while not holds():
                await changed.wait()
                changed.clear()
    finally:
        forget()


@asynccontextmanager
async def two_processes(url: str) -> AsyncIterator[tuple[ObjectStore[Agent], ObjectStore[Agent]]]:
    """Two mirrors with connections of their own."""
    async with (
        await open_backend(url) as one,
        await open_backend(url) as other,
        of(one) as here,
        of(other) as there,
    ):
        yield here, there


async def test_an_object_keeps_its_id_and_counts_its_versions(store: ObjectStore[Agent]) -> None:
    """Created once, changed twice: one id, versions 1, 2, 3, and who made each."""
    made = await store.create(agent(model="m"), by="ann")
    changed = await store.update(agent(model="n"), by="bob")
    last = await store.change("a", lambda value: agent(model=value.model + "!"), by="cid")
    assert (made.id, changed.id, last.id) == (made.id,) * 3
    assert [(each.version, each.updated_by, each.value.model) for each in (made, changed, last)] == [
        (1, "ann", "m"),
        (2, "bob", "n"),
        (3, "cid", "n!"),
    ]
    assert last.created_at == made.created_at <= last.updated_at
    assert store.get("a") == last == store.by_id(made.id)


async def test_what_stays_the_same_is_no_new_version(store: ObjectStore[Agent]) -> None:
    """An update to the same value changes nothing, so that applying a file twice does no harm."""
    made = await store.create(agent(model="m"))
    assert await store.update(agent(model="m")) == made
    assert len(await store.versions("a")) == 1


async def test_creating_what_is_there_and_changing_what_is_not(store: ObjectStore[Agent]) -> None:
    """Both are refused, and leave what there is."""
    await store.create(agent(model="m"))
    with pytest.raises(ObjectExists, match="'a'"):
        await store.create(agent(model="n"))
    for attempt in (store.update(agent("b")), store.delete("b"), store.read("b"), store.delete("a", "acme")):
        with pytest.raises(ObjectNotFound):
            await attempt
    assert (await store.read("a")).value.model == "m"


async def test_who_expects_another_version_is_refused(store: ObjectStore[Agent]) -> None:
    """For updates, changes and deletions alike."""
    await store.create(agent(model="m"))
    await store.update(agent(model="n"), expected_version=1)
    for attempt in (
        store.update(agent(model="o"), expected_version=1),
        store.change("a", lambda value: value, expected_version=1),
        store.delete("a", expected_version=1),
    ):
        with pytest.raises(ObjectConflict, match="version 2"):
            await attempt
    assert (await store.read("a")).value.model == "n"


async def test_slug_and_namespace_are_the_address(store: ObjectStore[Agent]) -> None:
    """The same slug in two namespaces is two objects; a member of one sees its own before everybody's."""
    everybodys = await store.create(agent())
    acmes = await store.create(agent(namespace="acme"))
    assert store.visible("a", "acme") == acmes
    assert store.visible("a", "beta") == everybodys == store.get("a")
    assert store.get("a", "beta") is None
    assert [each.id for each in store.all()] == [acmes.id, everybodys.id]
    with pytest.raises(BadObject, match="cannot be changed"):
        await store.change("a", lambda _value: agent("b"))


@pytest.mark.parametrize("slug", ["", "A", "a b", "-a", "a-", "a/b", "../a", "a" * 64, "ä", "~hello"])
async def test_what_is_no_slug_is_refused(store: ObjectStore[Agent], slug: str) -> None:
    """As slug and as namespace: it becomes a part of a key."""
    with pytest.raises(BadObject, match="slug"):
        await store.create(agent(slug))
    if slug:
        with pytest.raises(BadObject, match="namespace"):
            await store.create(agent(namespace=slug))


async def test_an_object_that_is_too_large_is_refused(store: ObjectStore[Agent]) -> None:
    """With its size and what is allowed."""
    with pytest.raises(BadObject, match="bytes"):
        await store.create(agent(system_prompt="x" * 300_000))


async def test_a_deleted_object_is_gone_and_may_be_made_anew(store: ObjectStore[Agent], backend: Backend) -> None:
    """The new one has another id and goes on counting versions, so that nobody takes it for the old one; all versions
    of both stay readable."""
    first = await store.create(agent(model="m"))
    assert await store.delete("a") == first
    assert store.get("a") is None
    assert store.by_id(first.id) is None
    assert store.was_deleted("a")
    again = await store.create(agent(model="n"))
    assert again.id > first.id
    assert again.version == 2
    assert not store.was_deleted("a")
    assert [each.value.model for each in await store.versions("a")] == ["n", "m"]
    other = of(backend)
    await other.load()
    assert other.all() == [again]


async def test_versions_are_the_newest_first_and_bounded(store: ObjectStore[Agent]) -> None:
    """A limit leaves out the older ones; a deleted object has its own still."""
    await store.create(agent(model="1"))
    for number in range(2, 6):
        await store.update(agent(model=str(number)))
    await store.delete("a")
    assert [each.version for each in await store.versions("a", limit=3)] == [5, 4, 3]
    assert await store.versions("nobody") == []


async def test_writers_at_once_each_have_their_change(backend: Backend) -> None:
    """Twelve processes add to one list at the same moment: nothing is lost, every version is there."""
    stores = [of(backend) for _ in range(12)]
    await stores[0].create(agent())

    def joins(name: str) -> Callable[[Agent], Agent]:
        return lambda value: agent(groups=(*value.groups, name))

    await asyncio.gather(*(each.change("a", joins(f"g{number}")) for number, each in enumerate(stores)))
    end = await stores[0].read("a")
    assert sorted(end.value.groups) == sorted(f"g{number}" for number in range(12))
    assert [each.version for each in await stores[0].versions("a")] == list(range(13, 0, -1))


async def test_of_two_that_create_the_same_one_fails(backend: Backend) -> None:
    """Exactly one of many creates wins."""
    outcomes = await asyncio.gather(
        *(of(backend).create(agent(model=str(number))) for number in range(8)), return_exceptions=True
    )
    made = [each for each in outcomes if isinstance(each, Stored)]
    assert len(made) == 1
    assert all(isinstance(each, ObjectExists) for each in outcomes if each not in made)
    assert (await of(backend).read("a")).value == made[0].value


async def test_another_process_sees_what_is_made_changed_and_deleted(queue_url: str) -> None:
    """On a real server: each step arrives, with what was there before it."""
    async with two_processes(queue_url) as (here, there):
        heard: list[tuple[str | None, str | None]] = []
        there.on_change(lambda before, after: heard.append((_model(before), _model(after))))
        await here.create(agent(model="m"))
        await until(lambda: there.get("a") is not None, there)
        await here.update(agent(model="n"))
        await until(lambda: _model(there.get("a")) == "n", there)
        await here.delete("a")
        await until(lambda: there.get("a") is None, there)
        assert there.was_deleted("a")
        assert heard == [(None, "m"), ("m", "n"), ("n", None)]


async def test_a_process_that_begins_later_knows_everything(queue_url: str) -> None:
    """What is there when it is entered, without what was deleted."""
    async with await open_backend(queue_url) as backend:
        store = of(backend)
        await store.create(agent("a"))
        await store.create(agent("b"))
        await store.delete("b")
        async with of(backend) as later:
            assert [each.value.slug for each in later.all()] == ["a"]
            assert later.was_deleted("b")


async def test_a_mirror_that_was_cut_off_catches_up(valkey_server: Server, stream: str) -> None:
    """Made, changed and deleted while it could not hear: it keeps what it knew meanwhile and knows all afterwards."""
    async with await open_backend(valkey_server.url(stream)) as direct, Proxy(valkey_server.port) as proxy:
        here = of(direct)
        await here.create(agent("kept", model="m"))
        await here.create(agent("gone"))
        async with await open_backend(proxy.url(stream)) as behind, of(behind) as there:
            with capture_logs():
                await proxy.refuse()
                await here.update(agent("kept", model="n"))
                await here.delete("gone")
                await here.create(agent("new"))
                assert _model(there.get("kept")) == "m"
                assert there.get("gone") is not None
                await proxy.accept()
                await until(lambda: there.get("new") is not None, there)
            await until(lambda: _model(there.get("kept")) == "n" and there.get("gone") is None, there)


async def test_a_value_that_nobody_can_read_takes_nothing_away(backend: Backend) -> None:
    """An object of a newer version, or garbage, is named in the log; the others are there."""
    store = of(backend)
    await store.create(agent("good"))
    await backend.state.set(
        "objects/agent//newer", b'{"id":9,"version":1,"created_at":0,"updated_at":0,"value":{"x":1}}'
    )
    await backend.state.set("objects/agent//garbage", b"\xff")
    with capture_logs() as logs:
        async with of(backend) as mirror:
            assert [each.value.slug for each in mirror.all()] == ["good"]
    assert {entry["slug"] for entry in logs} >= {"newer", "garbage"}


async def test_an_own_write_shows_at_once_and_old_news_do_not_undo_it(backend: Backend) -> None:
    """The watch tells of earlier versions after our own write: the mirror stays at the newest."""
    async with of(backend) as mirror:
        seen: list[int] = []
        mirror.on_change(lambda _before, after: seen.append(after.version if after else 0))
        await mirror.create(agent(model="0"))
        for number in range(1, 20):
            await mirror.update(agent(model=str(number)))
            assert _model(mirror.get("a")) == str(number)
        await of(backend).create(agent("z"))
        await until(lambda: mirror.get("z") is not None, mirror)
        assert seen == [*range(1, 21), 1]


async def test_a_reading_that_began_before_a_write_does_not_undo_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a slow reading has of an object is older than what this process has written, or deleted, meanwhile."""
    store = of(backend)
    await store.create(agent("changed", model="old"))
    await store.create(agent("deleted"))
    read, go_on = asyncio.Event(), asyncio.Event()
    scan = backend.state.scan

    async def slowly(prefix: str) -> AsyncIterator[tuple[str, bytes]]:
        found = [each async for each in scan(prefix)]
        read.set()
        await go_on.wait()
        for each in found:
            yield each

    monkeypatch.setattr(backend.state, "scan", slowly)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(store.load())
        await read.wait()
        await store.update(agent("changed", model="new"))
        await store.delete("deleted")
        await store.create(agent("made"))
        go_on.set()
    assert {each.value.slug: each.value.model for each in store.all()} == {"changed": "new", "made": ""}


async def test_a_listener_that_fails_takes_nothing_from_the_others(backend: Backend) -> None:
    """It is named in the log."""
    store, heard = of(backend), []

    def fails(_before: object, _after: object) -> None:
        raise RuntimeError("no")

    store.on_change(fails)
    forget = store.on_change(lambda _before, after: heard.append(after))
    with capture_logs() as logs:
        await store.create(agent())
    forget()
    forget()
    with capture_logs():
        await store.update(agent(model="n"))
    assert len(heard) == 1
    assert [entry["log_level"] for entry in logs] == ["error"]


def _model(stored: Stored[Agent] | None) -> str | None:
    return None if stored is None else stored.value.model


async def test_what_cannot_be_read_is_no_crash(backend: Backend) -> None:
    """An object that a newer program wrote is not overwritten, and said to be unreadable; of its versions the readable
    ones are shown."""
    store = of(backend)
    await store.create(agent())
    newer = b'{"id":1,"version":2,"created_at":1,"updated_at":1,"value":{"slug":"a","model":"m","later":1}}'
    await backend.state.set("objects/agent//a", newer)
    await backend.state.append_once([LogRecord(log="objects/agent//a", id="1:2", value=newer, keep_s=60.0)])
    with pytest.raises(BadObject, match="later"):
        await store.read("a")
    with pytest.raises(BadObject, match="another version"):
        await store.update(agent(model="mine"))
    assert await backend.state.get("objects/agent//a") == newer
    assert [each.version for each in await store.versions("a")] == [1]


async def test_what_is_nested_too_deeply_is_refused(store: ObjectStore[Agent]) -> None:
    """A process with a deeper stack than the writer's could not read it."""
    config: dict[str, Any] = {}
    for _ in range(100):
        config = {"a": config}
    with pytest.raises(BadObject, match="levels deep"):
        await store.create(agent(plugin="p", config=config))


async def test_reading_many_objects_lets_others_work(backend: Backend) -> None:
    """Between the objects of one reading, other tasks of the loop have their turns."""
    writer, reader = of(backend), of(backend)
    for number in range(500):
        await writer.create(agent(f"a{number}"))
    turns = []

    async def others() -> None:
        while len(reader.all()) < 500:
            turns.append(len(reader.all()))
            await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(reader.load(), others())
    assert len(set(turns)) > 2
