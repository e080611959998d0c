"""An engine that has arq already: its own client enqueues, watches and aborts what Shoal's workers run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from arq import ArqRedis
from arq.jobs import Job, JobStatus
from arq_fleets import LIMIT_S, arq_worker, echo, shoal_worker

from queue_backends import (
    RUN_CANCELLED,
    Ack,
    Backend,
    BackendOptions,
    ChunkDraft,
    ChunkType,
    Priority,
    Task,
    TaskResult,
    TaskState,
)
from queue_backends.arq import Answer, TaskFailed
from queue_backends.arq import open_backend as open_arq
from worker.usage import UsageReport


async def enqueued(pool: ArqRedis, *args: object, **options: object) -> Job:
    """A job of `run_task` that was not there before."""
    job = await pool.enqueue_job("run_task", *args, **options)  # type: ignore[arg-type]  # passed on as they came
    assert job is not None
    return job


async def first(backend: Backend) -> Task:
    """The next task that a Shoal worker gets."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            for delivery in await backend.queue.pull(1, LIMIT_S):
                return delivery.task


async def test_a_job_is_run_and_its_result_is_the_answer(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """enqueue_job, status, info and result work as with a worker of arq's own; the result is the answer's text."""
    job = await enqueued(pool, "hello", tenant="acme")
    assert await job.status() is JobStatus.queued
    before = await job.info()
    assert before is not None
    assert (before.function, before.args, before.kwargs) == ("run_task", ("hello",), {"tenant": "acme"})
    async with shoal_worker(arq_url, echo):
        answer = await job.result(timeout=LIMIT_S, poll_delay=0.05)
    assert answer == "you said hello"
    assert await job.status() is JobStatus.complete
    after = await job.result_info()
    assert after is not None
    assert (after.function, after.args, after.kwargs) == ("run_task", ("hello",), {"tenant": "acme"})
    assert (after.success, after.result, after.job_try, after.queue_name) == (True, "you said hello", 1, arq_queue)
    assert after.enqueue_time == before.enqueue_time
    assert after.enqueue_time <= after.start_time <= after.finish_time
    assert [result.job_id for result in await pool.all_job_results() if result.job_id == job.job_id] == [job.job_id]


async def test_an_answer_has_its_usage(pool: ArqRedis, arq_url: str) -> None:
    """What arq's client returns is a text that has the whole result of Shoal beside it."""
    job = await enqueued(pool, prompt="hello")
    async with shoal_worker(arq_url, echo):
        answer = await job.result(timeout=LIMIT_S, poll_delay=0.05)
    assert isinstance(answer, Answer)
    assert answer.task_result.output == answer
    assert (answer.task_result.usage.input_tokens, answer.task_result.usage.output_tokens) == (7, 3)


async def test_streaming_and_usage_come_with_it(pool: ArqRedis, arq_url: str) -> None:
    """A job of arq's has chunks that a consumer of Shoal's can follow by its id, and its usage is in the ledger."""
    async with shoal_worker(arq_url, echo) as fleet:
        job = await enqueued(pool, prompt="hello", tenant="acme")
        async with asyncio.timeout(LIMIT_S):
            chunks = [chunk async for chunk in fleet.backend.chunks.subscribe(job.job_id)]
            await fleet.backend.queue.wait(job.job_id, LIMIT_S)
        assert [(chunk.type, chunk.content) for chunk in chunks] == [
            (ChunkType.CONTENT, "you said hello"),
            (ChunkType.DONE, ""),
        ]
        (record,) = await UsageReport(fleet.backend.state).recent(limit=10)
        assert (record.task_id, record.tenant, record.usage.input_tokens) == (job.job_id, "acme", 7)


HISTORY = [{"role": "user", "content": []}]
FIELDS = {"priority": "high", "deadline": 4102444800.25, "history": HISTORY}
TASK = Task(prompt="hello", priority=Priority.HIGH, deadline=4102444800.25, history=tuple(HISTORY))


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [(("hello",), FIELDS), ((), {"prompt": "hello", **FIELDS}), ((TASK,), {})],
    ids=["prompt and fields", "fields", "a task"],
)
async def test_arguments_are_a_tasks_fields(
    pool: ArqRedis, backend: Backend, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """A prompt, a task's fields by name, or a whole task; what is no field of a task is its meta."""
    job = await enqueued(pool, *args, **kwargs, meta={"ticket": "42"}, colour="red", overrides={"model": "m"})
    task = await first(backend)
    assert (task.id, task.prompt, task.priority) == (job.job_id, "hello", Priority.HIGH)
    assert (task.deadline, task.history) == (4102444800.25, ({"role": "user", "content": []},))
    assert (task.meta, task.overrides) == ({"ticket": "42", "colour": "red"}, {"model": "m"})
    assert task.enqueued_at.endswith("Z")


async def test_the_same_job_id_is_the_same_job(pool: ArqRedis, arq_url: str) -> None:
    """arq's `_job_id` keeps a job from being enqueued twice: while it waits, and while its result is kept."""
    job = await enqueued(pool, "hello", _job_id="once-" + arq_url[-20:])
    assert await pool.enqueue_job("run_task", "again", _job_id=job.job_id) is None
    async with shoal_worker(arq_url, echo):
        assert await job.result(timeout=LIMIT_S, poll_delay=0.05) == "you said hello"
    assert await pool.enqueue_job("run_task", "again", _job_id=job.job_id) is None


async def test_a_job_id_that_is_used_anew_has_a_stream_of_its_own(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """When a result has expired before its chunks, the next job of that id begins at chunk 0 all the same."""
    options = BackendOptions(result_retention_s=0.05)
    async with await open_arq(arq_url, options) as backend:
        for number in range(2):
            async with asyncio.timeout(LIMIT_S):
                while await pool.enqueue_job("run_task", str(number), _job_id=f"daily-{arq_queue}") is None:
                    await asyncio.sleep(0.02)  # until its result has expired, which nothing announces
            (delivery,) = await backend.queue.pull(1, LIMIT_S)
            assert delivery.first
            said = ChunkDraft(type=ChunkType.CONTENT, content=str(number))
            final = ChunkDraft(type=ChunkType.DONE, is_final=True)
            ended = Ack(delivery=delivery, result=TaskResult(task_id=delivery.task.id), chunks=(said, final))
            assert await backend.commit([ended]) == []
            chunks = [chunk async for chunk in backend.chunks.subscribe(delivery.task.id)]
            assert [(chunk.seq, chunk.content) for chunk in chunks] == [(0, str(number)), (1, "")]


async def test_deferred_jobs_wait(pool: ArqRedis, backend: Backend) -> None:
    """`_defer_by` and `_defer_until` are honoured, and both sides call the state by their name for it."""
    later = await enqueued(pool, "later", _defer_by=3600)
    past = await enqueued(pool, "past", _defer_until=datetime.fromtimestamp(time.time() - 60, UTC))
    assert await later.status() is JobStatus.deferred
    (status,) = await backend.queue.status([later.job_id])
    assert status.state is TaskState.DELAYED
    assert status.due_at == pytest.approx(time.time() + 3600, abs=60)
    assert (await first(backend)).id == past.job_id
    assert await backend.queue.pull(10, 0) == []
    soon = await enqueued(pool, "soon", _defer_by=0.2)
    assert (await first(backend)).id == soon.job_id


async def test_an_expired_job_is_not_started(pool: ArqRedis, backend: Backend) -> None:
    """A job that nobody started within arq's `_expires` fails, and leaves a letter that says why."""
    job = await enqueued(pool, "late", _expires=0.05)
    async with asyncio.timeout(LIMIT_S):
        while await pool.exists(f"arq:job:{job.job_id}"):
            await asyncio.sleep(0.02)  # the end of a lifetime, which nothing announces
    assert await backend.queue.pull(1, 0) == []
    with pytest.raises(TaskFailed, match="job expired"):
        await job.result(timeout=LIMIT_S)
    (letter,) = await backend.queue.dead_letters()
    assert letter.error.startswith("job expired")
    assert await backend.queue.requeue([letter.id]) == []


async def test_tries_are_counted_as_arq_counts(pool: ArqRedis, backend: Backend) -> None:
    """arq's `_job_try` is where counting begins; each retry adds one to `arq:retry:<id>`, a release adds none."""
    job = await enqueued(pool, "hello", _job_try=3)
    attempts = []
    for retry_in_s in (0.0, None, 0.0):
        (delivery,) = await backend.queue.pull(1, LIMIT_S)
        attempts.append((delivery.task.attempt, int(await pool.get(f"arq:retry:{job.job_id}"))))
        await backend.queue.nack(delivery, "busy", retry_in_s=retry_in_s)
    assert attempts == [(2, 3), (3, 4), (3, 4)]
    (status,) = await backend.queue.status([job.job_id])
    assert status.task is not None
    assert status.task.attempt == 4


async def test_a_failure_is_raised(pool: ArqRedis, arq_url: str) -> None:
    """A task that fails raises its error in the engine, from a result that says so."""

    async def refuse(task: Task) -> str:
        raise ValueError(f"no {task.prompt} today")

    job = await enqueued(pool, "fish")
    async with shoal_worker(arq_url, refuse) as fleet:
        with pytest.raises(TaskFailed, match="no fish today") as caught:
            await job.result(timeout=LIMIT_S, poll_delay=0.05)
        (letter,) = await fleet.backend.queue.dead_letters()
    assert caught.value.task_result is not None
    assert caught.value.task_result.error == str(caught.value)
    info = await job.result_info()
    assert info is not None
    assert not info.success
    assert (letter.task_id, letter.prompt) == (job.job_id, "fish")


class Held:
    """An answer that does not come until the test lets it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self.cancelled: list[str] = []

    async def answer(self, task: Task) -> str:
        """Wait."""
        self.begun.set()
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(task.prompt)
            raise
        return task.prompt


async def test_a_running_job_is_aborted(pool: ArqRedis, arq_url: str) -> None:
    """arq's `abort()` stops a run of Shoal's, and returns True; the model's call was cancelled, the stream ended. The
    lease is so long that no renewal could come upon it in time."""
    held = Held()
    async with shoal_worker(arq_url, held.answer, lease_s=600) as fleet:
        job = await enqueued(pool, "long")
        async with asyncio.timeout(LIMIT_S):
            await held.begun.wait()
        assert await job.status() is JobStatus.in_progress
        assert await job.abort(timeout=LIMIT_S, poll_delay=0.05)
        assert held.cancelled == ["long"]
        async with asyncio.timeout(LIMIT_S):
            chunks = [chunk async for chunk in fleet.backend.chunks.subscribe(job.job_id)]
        assert [(chunk.type, chunk.content) for chunk in chunks] == [(ChunkType.ERROR, RUN_CANCELLED)]
        assert (await fleet.backend.queue.status([job.job_id]))[0].state is TaskState.CANCELLED
        assert await pool.zscore("arq:abort", job.job_id) is None


@pytest.mark.parametrize("defer_s", [0, 3600])
async def test_a_waiting_job_is_aborted_while_all_are_busy(pool: ArqRedis, arq_url: str, defer_s: int) -> None:
    """A job that is queued, or deferred, ends by arq's `abort()` though no worker has a free slot for it."""
    held = Held()
    async with shoal_worker(arq_url, held.answer, concurrency=1) as fleet:
        await enqueued(pool, "long")
        async with asyncio.timeout(LIMIT_S):
            await held.begun.wait()
        job = await enqueued(pool, "waits", _defer_by=defer_s)
        assert await job.abort(timeout=LIMIT_S, poll_delay=0.05)
        (chunk,) = [chunk async for chunk in fleet.backend.chunks.subscribe(job.job_id)]
        assert (chunk.type, chunk.content) == (ChunkType.ERROR, RUN_CANCELLED)
        assert await pool.zscore("arq:abort", job.job_id) is None
        held.let_go.set()


async def test_a_job_that_was_aborted_before_anybody_came_is_never_started(pool: ArqRedis, backend: Backend) -> None:
    """The pull that meets it ends it."""
    job = await enqueued(pool, "hello")
    abort = asyncio.create_task(job.abort(timeout=LIMIT_S, poll_delay=0.05))
    async with asyncio.timeout(LIMIT_S):
        while await pool.zscore("arq:abort", job.job_id) is None:
            await asyncio.sleep(0.01)  # arq announces no abort
    assert await backend.queue.pull(1, 0) == []
    assert await abort
    assert (await backend.queue.stats()).ready == 0


async def test_aborts_of_other_queues_are_left_alone(pool: ArqRedis, arq_url: str, arq_queue: str) -> None:
    """arq's set of aborts is every queue's: what is not ours stays in it."""
    foreign = await enqueued(pool, "hello", _queue_name=f"{arq_queue}-other")
    await pool.zadd("arq:abort", {foreign.job_id: time.time() * 1000})
    async with shoal_worker(arq_url, echo):
        job = await enqueued(pool, "mine")
        assert await job.abort(timeout=LIMIT_S, poll_delay=0.05) in {True, False}
    assert await pool.zscore("arq:abort", foreign.job_id) is not None
    assert await foreign.status() is JobStatus.queued
    await pool.zrem("arq:abort", foreign.job_id)


async def test_a_cancel_through_shoal_is_a_cancel_for_arq(pool: ArqRedis, backend: Backend) -> None:
    """Whoever waits with arq's client sees a cancelled job, as after an abort."""
    job = await enqueued(pool, "hello")
    await backend.queue.cancel([job.job_id])
    with pytest.raises(asyncio.CancelledError):
        await job.result(timeout=LIMIT_S)


async def test_what_shoal_submits_is_a_job_of_arqs(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """arq's client finds a task of Shoal's by its id, and a worker of arq's own can run it."""
    task_id = await backend.queue.submit(Task(prompt="hello", tenant="acme", meta={"ticket": "42"}))
    job = Job(task_id, pool, arq_queue, pool.job_deserializer)
    (queued,) = await pool.queued_jobs()
    assert (queued.job_id, queued.function, queued.job_try) == (task_id, "run_task", None)
    assert (await job.info()) is not None

    async def run_task(ctx: dict[str, object], prompt: str, tenant: str, meta: dict[str, str]) -> str:
        return f"{ctx['job_id']} {prompt} {tenant} {meta['ticket']}"

    async with arq_worker(pool, arq_queue, run_task):
        assert await job.result(timeout=LIMIT_S, poll_delay=0.05) == f"{task_id} hello acme 42"
    result = await backend.queue.wait(task_id, LIMIT_S)
    assert (result.output, result.error) == (f"{task_id} hello acme 42", "")


async def test_urgent_tasks_are_in_a_queue_of_their_own(pool: ArqRedis, backend: Backend, arq_queue: str) -> None:
    """arq has no priorities but several queues: those of Shoal's are queues of arq's, for its client too."""
    await enqueued(pool, "normal")
    low = await enqueued(pool, "low", _queue_name=f"{arq_queue}:low")
    high = await enqueued(pool, "high", _queue_name=f"{arq_queue}:high")
    assert [(await first(backend)).prompt for _ in range(3)] == ["high", "normal", "low"]
    assert await high.status() is JobStatus.in_progress
    assert await low.status() is JobStatus.in_progress
