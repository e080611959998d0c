"""Leases in arq's own marks: workers of Shoal's and of arq's share a queue, die, and lose their server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from arq import ArqRedis
from arq.connections import RedisSettings
from arq.jobs import Job, JobStatus
from arq.worker import async_check_health
from arq_fleets import LIMIT_S, arq_worker, echo, shoal_worker

from queue_backends import (
    Ack,
    Backend,
    BackendMisconfigured,
    BackendOptions,
    BackendUnavailable,
    LeaseLost,
    Task,
    TaskResult,
    TaskState,
)
from queue_backends.arq import deserializer, serializer
from queue_backends.arq import open_backend as open_arq
from queue_backends.redis.client import RedisClient
from tests.e2e.e2e_programs import workers
from tests.servers import Server


async def enqueue_many(pool: ArqRedis, count: int) -> list[Job]:
    """Jobs of arq's client."""
    jobs = [await pool.enqueue_job("run_task", prompt=str(number)) for number in range(count)]
    return [job for job in jobs if job is not None]


async def results_of(jobs: list[Job]) -> list[Any]:
    """What arq's client says became of them."""
    return list(await asyncio.gather(*(job.result(timeout=LIMIT_S, poll_delay=0.05) for job in jobs)))


async def test_both_kinds_of_worker_share_a_queue(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """Each of many jobs is run once, by a worker of Shoal's or by one of arq's own, and both have some."""
    ran: Counter[str] = Counter()
    begun = {"arq": asyncio.Event(), "shoal": asyncio.Event()}

    async def run(kind: str, prompt: str) -> str:
        """Each kind of worker waits in its first job for the other's: so that neither runs them all."""
        ran[prompt] += 1
        begun[kind].set()
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(event.wait() for event in begun.values()))
        return f"{kind} {prompt}"

    async def run_task(ctx: dict[str, Any], prompt: str) -> str:
        return await run("arq", prompt)

    async def answer(task: Task) -> str:
        return await run("shoal", task.prompt)

    jobs = await enqueue_many(pool, 60)
    async with (
        shoal_worker(arq_url, answer, concurrency=1),
        arq_worker(pool, arq_queue, run_task, max_jobs=1),
    ):
        answers = await results_of(jobs)
    assert sorted(answer.split()[1] for answer in answers) == sorted(map(str, range(60)))
    assert {answer.split()[0] for answer in answers} == {"arq", "shoal"}
    assert set(ran.values()) == {1}


async def test_queues_side_by_side(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """Other queues of the database are none of our business: a worker of arq's own has its own jobs."""

    async def run_task(ctx: dict[str, Any], prompt: str) -> str:
        return f"arq {prompt}"

    other = f"{arq_queue}-other"
    theirs = await pool.enqueue_job("run_task", prompt="a", _queue_name=other)
    ours = await pool.enqueue_job("run_task", prompt="b")
    assert theirs is not None
    assert ours is not None
    async with shoal_worker(arq_url, echo), arq_worker(pool, other, run_task):
        assert await results_of([theirs, ours]) == ["arq a", "you said b"]


async def test_a_job_at_a_worker_of_arqs_own_is_running(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """While a worker of arq's own has a job, nobody here gets it, it is shown as running, and what comes behind it is
    delivered; its result is Shoal's to read."""
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def run_task(ctx: dict[str, Any], prompt: str) -> dict[str, str]:
        begun.set()
        await let_go.wait()
        return {"said": prompt}

    async with arq_worker(pool, arq_queue, run_task, max_jobs=1):
        (job,) = await enqueue_many(pool, 1)
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        behind = await backend.queue.submit(Task(prompt="behind"))
        assert [delivery.task.id for delivery in await backend.queue.pull(5, LIMIT_S)] == [behind]
        (status,) = await backend.queue.status([job.job_id])
        assert (status.state, status.worker) == (TaskState.RUNNING, "arq")
        let_go.set()
        result = await backend.queue.wait(job.job_id, LIMIT_S)
    assert (result.output, result.structured) == ('{"said":"0"}', {"said": "0"})


async def test_a_worker_of_arqs_own_leaves_our_jobs_alone(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """While we have a job, a worker of arq's own passes it over and runs the other one."""
    ran: list[str] = []

    async def run_task(ctx: dict[str, Any], prompt: str) -> None:
        ran.append(prompt)

    jobs = {job.job_id: job for job in await enqueue_many(pool, 2)}
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    ours = jobs.pop(delivery.task.id)
    assert await ours.status() is JobStatus.in_progress
    async with arq_worker(pool, arq_queue, run_task):
        assert await results_of(list(jobs.values())) == [None]
        assert await backend.queue.renew([delivery]) == []
    assert len(ran) == 1
    assert delivery.task.prompt not in ran
    await backend.queue.ack(delivery, TaskResult(task_id=delivery.task.id, output="ours"))
    assert await ours.result(timeout=LIMIT_S) == "ours"


async def test_a_lease_that_arq_took_over_is_lost(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """When our lease has run out and a worker of arq's own has the job, we write nothing more for it; nor after it has
    ended there."""
    async with await open_arq(arq_url, BackendOptions(lease_s=0.2)) as backend:
        (job,) = await enqueue_many(pool, 1)
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        begun, let_go = asyncio.Event(), asyncio.Event()

        async def run_task(ctx: dict[str, Any], prompt: str) -> str:
            begun.set()
            await let_go.wait()
            return "arq's"

        ours = TaskResult(task_id=job.job_id, output="ours")
        async with arq_worker(pool, arq_queue, run_task):
            async with asyncio.timeout(LIMIT_S):
                await begun.wait()
            with pytest.raises(LeaseLost):
                await backend.queue.ack(delivery, ours)
            assert await backend.queue.renew([delivery]) == [delivery]
            let_go.set()
            assert await job.result(timeout=LIMIT_S, poll_delay=0.05) == "arq's"
        with pytest.raises(LeaseLost):
            await backend.queue.ack(delivery, ours)
        assert await job.result(timeout=LIMIT_S) == "arq's"


async def test_a_lapsed_lease_that_nobody_took_is_kept(pool: ArqRedis, arq_url: str) -> None:
    """A worker that could not renew in time goes on if nobody has the task yet: only arq's mark has expired."""
    async with await open_arq(arq_url, BackendOptions(lease_s=0.1)) as backend:
        (job,) = await enqueue_many(pool, 1)
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        async with asyncio.timeout(LIMIT_S):
            while await pool.exists(f"arq:in-progress:{job.job_id}"):
                await asyncio.sleep(0.02)  # the end of a lease, which nothing announces
        assert await backend.queue.renew([delivery]) == []
        assert await job.status() is JobStatus.in_progress
        await backend.queue.ack(delivery, TaskResult(task_id=job.job_id, output="late"))
        assert await job.result(timeout=LIMIT_S) == "late"


async def test_a_job_that_was_taken_out_of_its_queue_is_lost(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """An operator who removes a running job by hand ends its lease: its worker is told to stop."""
    await enqueue_many(pool, 2)
    gone, held = await backend.queue.pull(2, LIMIT_S)
    await pool.zrem(arq_queue, gone.task.id)
    assert await backend.queue.renew([gone, held]) == [gone]


async def test_a_letter_does_not_replace_a_job_of_its_id(pool: ArqRedis, backend: Backend) -> None:
    """When an engine has enqueued a job under the id of a dead one, the letter stays where it is."""
    (job,) = await enqueue_many(pool, 1)
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    await backend.queue.nack(delivery, "hopeless", dead=True)
    await pool.delete(f"arq:result:{job.job_id}")
    assert await pool.enqueue_job("run_task", "anew", _job_id=job.job_id) is not None
    (letter,) = await backend.queue.dead_letters()
    assert await backend.queue.requeue([letter.id]) == []
    assert [kept.id for kept in await backend.queue.dead_letters()] == [letter.id]
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    assert delivery.task.prompt == "anew"


SLOW = {"scenarios": [{"turns": [{"text": "one two three four", "chunk_delay_s": 600}]}]}


async def test_a_killed_worker_loses_no_job(pool: ArqRedis, arq_url: str, arq_queue: str, tmp_path: Path) -> None:
    """`shoal worker` with arq's queue is killed in the middle of an answer: another one ends the job, with one stream
    and one result."""
    agent = {"model": "scripted", "provider": "scripted", "options": {"script": SLOW}}
    (job,) = await enqueue_many(pool, 1)
    with workers(1, tmp_path, arq_url, {"agent": agent}, {"SHOAL_LEASE_SECONDS": "1"}) as (process,):
        async with await open_arq(arq_url, BackendOptions()) as watching, asyncio.timeout(LIMIT_S):
            stream = watching.chunks.subscribe(job.job_id)
            assert (await anext(stream)).seq == 0
        assert await job.status() is JobStatus.in_progress
        process.signal(signal.SIGKILL)
        process.wait()
    async with shoal_worker(arq_url, echo, lease_s=1.0, max_retries=3) as fleet:
        assert await job.result(timeout=LIMIT_S, poll_delay=0.05) == "you said 0"
        async with asyncio.timeout(LIMIT_S):
            chunks = [chunk async for chunk in fleet.backend.chunks.subscribe(job.job_id)]
    assert [chunk.seq for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.is_final for chunk in chunks].count(True) == 1
    info = await job.result_info()
    assert info is not None
    assert info.job_try == 2


async def test_jobs_outlive_the_server(durable_server: Server, arq_queue: str) -> None:
    """The server crashes while one job waits, one is running and somebody waits for both: they end all the same."""
    from arq import create_pool

    pool = await create_pool(
        RedisSettings.from_dsn(durable_server.url()),
        job_serializer=serializer,
        job_deserializer=deserializer,
        default_queue_name=arq_queue,
    )
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def answer(task: Task) -> str:
        begun.set()
        await let_go.wait()
        return f"you said {task.prompt}"

    async with shoal_worker(f"arq+{durable_server.url()}?queue={arq_queue}", answer, concurrency=1) as fleet:
        jobs = await enqueue_many(pool, 2)
        waiting = [asyncio.create_task(fleet.backend.queue.wait(job.job_id, LIMIT_S)) for job in jobs]
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        await asyncio.to_thread(durable_server.restart)
        let_go.set()
        assert [result.output for result in await asyncio.gather(*waiting)] == ["you said 0", "you said 1"]
    assert await jobs[1].result(timeout=LIMIT_S) == "you said 1"
    await pool.aclose()


async def test_a_server_that_was_away_hands_over_nothing_at_once(durable_server: Server, arq_queue: str) -> None:
    """Nobody could renew while the server was away: the first pull after its return takes over no lease that ran out
    meanwhile, and its holder goes on."""
    url, options = f"arq+{durable_server.url()}?queue={arq_queue}", BackendOptions(lease_s=0.5)
    async with await open_arq(url, options) as worker, await open_arq(url, options) as other:
        await worker.queue.submit(Task(prompt="hello"))
        (delivery,) = await worker.queue.pull(1, LIMIT_S)
        await asyncio.to_thread(durable_server.kill)
        with pytest.raises(BackendUnavailable):
            await other.queue.pull(1, 0)
        await asyncio.sleep(0.6)  # longer than the lease
        await asyncio.to_thread(durable_server.start)
        async with asyncio.timeout(LIMIT_S):
            assert await until_reachable(lambda: other.queue.pull(1, 0)) == []
            assert await until_reachable(lambda: worker.queue.renew([delivery])) == []
            assert (await other.queue.pull(1, LIMIT_S))[0].redeliveries == 1  # nobody renews any more


async def until_reachable(call: Callable[[], Awaitable[Any]]) -> Any:
    """What the call returns once the server is back."""
    while True:
        with contextlib.suppress(BackendUnavailable):
            return await call()
        await asyncio.sleep(0.02)  # nothing announces a server


async def test_what_was_handed_back_comes_first(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """A task that its worker gave back has waited longest: it comes before urgent ones, and for arq's client it never
    left its queue. An aborted one does not come at all."""
    jobs = await enqueue_many(pool, 2)
    held = await backend.queue.pull(2, LIMIT_S)
    urgent = await pool.enqueue_job("run_task", prompt="urgent", _queue_name=f"{arq_queue}:high")
    assert urgent is not None
    for delivery in held:
        await backend.queue.nack(delivery, "")
    assert [await job.status() for job in jobs] == [JobStatus.queued, JobStatus.queued]
    await pool.zadd("arq:abort", {jobs[0].job_id: time.time() * 1000})
    found = [delivery.task.id for _ in range(2) for delivery in await backend.queue.pull(1, LIMIT_S)]
    assert found == [jobs[1].job_id, urgent.job_id]
    with pytest.raises(asyncio.CancelledError):
        await jobs[0].result(timeout=LIMIT_S)
    assert await pool.exists(f"{arq_queue}:front") == 0


async def test_what_was_handed_back_and_cancelled_leaves_nothing(
    pool: ArqRedis, backend: Backend, arq_queue: str
) -> None:
    """A task that ends before anybody claims it again is nowhere any more, but for its result and its last chunk."""
    (job,) = await enqueue_many(pool, 1)
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    await backend.queue.nack(delivery, "")
    await backend.queue.cancel([job.job_id])
    assert await pool.exists(f"{arq_queue}:front") == 0
    left = {f"arq:result:{job.job_id}".encode(), f"{arq_queue}:chunks:{job.job_id}".encode()}
    assert set(await pool.keys(f"*{job.job_id}*")) == left


async def test_a_submit_wakes_who_waits(arq_url: str) -> None:
    """A pull that looks by itself only once a minute gets what Shoal submits, retries and resumes at once."""
    url = arq_url.replace("poll_ms=50", "poll_ms=60000")
    async with await open_arq(url, BackendOptions()) as worker, await open_arq(url, BackendOptions()) as engine:
        pulled = asyncio.create_task(worker.queue.pull(1, 55))
        await asyncio.sleep(0.05)  # lets the pull begin to wait; if it has not, the test proves less
        task_id = await engine.queue.submit(Task(prompt="hello"))
        async with asyncio.timeout(LIMIT_S):
            (delivery,) = await pulled
        pulled = asyncio.create_task(engine.queue.pull(1, 55))
        await asyncio.sleep(0.05)  # as before
        await worker.queue.nack(delivery, "busy", retry_in_s=0)
        async with asyncio.timeout(LIMIT_S):
            (delivery,) = await pulled
        await engine.queue.nack(delivery, "busy", retry_in_s=0.3)
        async with asyncio.timeout(LIMIT_S):
            (delivery,) = await worker.queue.pull(1, 55)
        assert delivery.task.id == task_id


def cut_behind(carried_out: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Scripts that are carried out, and whose replies never come."""

    async def cut(self: RedisClient, *args: Any, **options: Any) -> Any:
        await carried_out(self, *args, **options)
        raise BackendUnavailable("the connection was cut behind the command")

    return cut


async def test_a_claim_whose_reply_is_lost_is_found(
    pool: ArqRedis, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that the server gave us in a reply that never came are delivered by the next pull, once, as new ones."""
    jobs = await enqueue_many(pool, 3)
    with monkeypatch.context() as patch:
        patch.setattr(RedisClient, "script", cut_behind(RedisClient.script))
        with pytest.raises(BackendUnavailable):
            await backend.queue.pull(2, 0)
    found = [*await backend.queue.pull(5, 0), *await backend.queue.pull(5, 0)]
    assert sorted(delivery.task.id for delivery in found) == sorted(job.job_id for job in jobs)
    assert {delivery.redeliveries for delivery in found} == {0}
    assert await backend.queue.renew(found) == []


async def test_an_end_whose_reply_is_lost_is_written_once(
    pool: ArqRedis, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever repeats a commit after an unknown outcome is told that it is done; another end is refused."""
    (job,) = await enqueue_many(pool, 1)
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    ended = Ack(delivery=delivery, result=TaskResult(task_id=job.job_id, output="ours", finished_at=time.time()))
    other = Ack(delivery=delivery, result=TaskResult(task_id=job.job_id, output="other", finished_at=time.time()))
    with monkeypatch.context() as patch:
        patch.setattr(RedisClient, "script", cut_behind(RedisClient.script))
        with pytest.raises(BackendUnavailable):
            await backend.commit([ended])
    assert await backend.commit([ended]) == []
    assert await backend.commit([other]) == [other]
    assert await job.result(timeout=LIMIT_S) == "ours"


async def test_what_nobody_took_is_given_back_at_the_end(
    pool: ArqRedis, arq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such jobs are not held until their lease runs out if their worker leaves: the next one has them at once."""
    (job,) = await enqueue_many(pool, 1)
    async with await open_arq(arq_url, BackendOptions()) as leaving:
        with monkeypatch.context() as patch:
            patch.setattr(RedisClient, "script", cut_behind(RedisClient.script))
            with pytest.raises(BackendUnavailable):
                await leaving.queue.pull(1, 0)
        assert await job.status() is JobStatus.in_progress
    assert await job.status() is JobStatus.queued
    async with await open_arq(arq_url, BackendOptions()) as next_one:
        (delivery,) = await next_one.queue.pull(1, LIMIT_S)
        assert (delivery.task.attempt, delivery.redeliveries) == (0, 0)


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # in arq's own check
async def test_arqs_health_check_is_content(valkey_server: Server, arq_url: str, arq_queue: str) -> None:
    """`arq --check` finds the line of a Shoal worker, and none before there is one."""
    settings = RedisSettings.from_dsn(valkey_server.url())
    assert await async_check_health(settings, queue_name=arq_queue) == 1
    async with shoal_worker(arq_url, echo), asyncio.timeout(LIMIT_S):
        while await async_check_health(settings, queue_name=arq_queue) != 0:
            await asyncio.sleep(0.05)  # nothing announces a worker's line


@pytest.mark.parametrize(("patterns", "is_enough"), [(("~arq:*",), True), (("~{queue}*",), False)])
async def test_an_acl_user(
    valkey_server: Server, pool: ArqRedis, arq_queue: str, patterns: tuple[str, ...], is_enough: bool
) -> None:
    """A user with arq's keys and few commands is enough; without them it is one clear error at the start."""
    keys = [pattern.format(queue=arq_queue) for pattern in patterns]
    rights = ["resetchannels", "&arq:*", "+@all", "-@dangerous", "+info", "+client|setname"]
    await pool.execute_command("ACL", "SETUSER", "shoal", "reset", "on", ">secret", *keys, *rights)
    url = f"arq+{valkey_server.url().replace('://', '://shoal:secret@')}?queue={arq_queue}"
    if not is_enough:
        with pytest.raises(BackendMisconfigured, match="ACL"):
            await open_arq(url, BackendOptions())
        return
    async with shoal_worker(url, echo):
        job = await pool.enqueue_job("run_task", "hello")
        assert job is not None
        assert await job.result(timeout=LIMIT_S, poll_delay=0.05) == "you said hello"


async def test_through_a_unix_socket(valkey_server: Server, arq_queue: str) -> None:
    """`arq+unix://` is the same queue."""
    url = f"arq+unix://{valkey_server.socket_path}?db=0&queue={arq_queue}"
    async with (
        await open_arq(url, BackendOptions()) as one,
        await open_arq(f"arq+{valkey_server.url()}?queue={arq_queue}", BackendOptions()) as other,
    ):
        task_id = await one.queue.submit(Task(prompt="hello"))
        assert [delivery.task.id for delivery in await other.queue.pull(1, LIMIT_S)] == [task_id]


async def test_a_line_of_waiting_jobs_costs_a_pull_nothing(pool: ArqRedis, arq_url: str) -> None:
    """A thousand running tasks stand in nobody's way: a pull looks at what is due, and a status call agrees."""
    async with await open_arq(arq_url, BackendOptions()) as backend:
        await backend.queue.submit_many([Task(prompt=str(number)) for number in range(1000)])
        held = [delivery for _ in range(10) for delivery in await backend.queue.pull(100, LIMIT_S)]
        assert len(held) == 1000
        task_id = await backend.queue.submit(Task(prompt="last"))
        due = await pool.zrangebyscore(pool.default_queue_name, "-inf", time.time() * 1000 + 1000)
        assert due == [task_id.encode()]
        assert [delivery.task.id for delivery in await backend.queue.pull(5, LIMIT_S)] == [task_id]
